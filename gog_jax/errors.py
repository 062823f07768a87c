"""What a user can mend, apart from what a programmer must."""


class UserError(Exception):
  """A mistake the user can mend: `main` prints it on one line and exits 2.

  The message names what is wrong and what to do. Anything that is not a
  UserError keeps its traceback.
  """


class RunStopped(UserError):
  """The run cannot go on for now: it ends, and what it has is kept."""
