"""What a user can mend, apart from what a programmer must."""

from collections.abc import Iterable
import difflib


class UserError(Exception):
  """A mistake the user can mend: `main` prints it on one line and exits 2.

  The message names what is wrong and what to do. Anything that is not a
  UserError keeps its traceback.
  """


class RunStopped(UserError):
  """The run cannot go on for now: it ends, and what it has is kept."""


def first_line(error: BaseException) -> str:
  """What an error says, on one line; its type if it says nothing."""
  lines = str(error).strip().splitlines()
  return lines[0][:200] if lines else type(error).__name__


def nearest(name: str, known: Iterable[str]) -> str:
  """The known name that is most like a mistyped one; '' if none is known."""
  return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=0)), '')
