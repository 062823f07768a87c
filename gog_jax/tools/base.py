"""What a tool is, and what it searches with."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Any, Protocol

import jsonschema
import jsonschema.exceptions

from gog_jax.remote.secrets import redact
from gog_jax.types import Reply
from gog_jax.types import View

# Characters of an error that the policy is shown.
ERROR_LENGTH = 120


class ModelError(Exception):
  """The policy's own mistake: the executor turns it into a model_error.

  The message is one line and is shown to the policy. Whatever else a tool
  raises counts as the infrastructure's fault.
  """


class SearchError(Exception):
  """A failure of the infrastructure.

  Attributes:
    billed: Whether it may have to be paid for: not where the request was
      turned away, or never left.
  """

  def __init__(self, message: str, *, billed: bool = True):
    super().__init__(message)
    self.billed = billed


class TransientError(SearchError):
  """One that may be gone when it is asked again.

  Attributes:
    retry_after_s: Seconds for which it asks to be left alone.
  """

  def __init__(
      self, message: str, *, retry_after_s: float = 0.0, billed: bool = True
  ):
    super().__init__(message, billed=billed)
    self.retry_after_s = retry_after_s


@dataclasses.dataclass(frozen=True)
class ToolContext:
  """The part of a conversation that a call may look at.

  Attributes:
    scope: Which world or corpus the searches run in.
    views: Every image so far, in order of appearance: the example's own
      images first, then one crop per gaze. Tools number them from 1.
    caller: Which call of which turn of which rollout this is, for recordings.
  """

  scope: str
  views: tuple[View, ...]
  caller: str = ''


@dataclasses.dataclass(frozen=True, kw_only=True)
class Query:
  """What a call searches with: words, or an image.

  Attributes:
    text: The words; None where there is an image.
    image: An encoded image file; None where there are words.
    scope: Which world or corpus is searched.
    top_k: Hits wanted.
    view: The crop that joins the conversation with the reply.
  """

  scope: str
  top_k: int
  text: str | None = None
  image: bytes | None = None
  view: View | None = None


class Tool(Protocol):
  """One function the policy can call.

  Attributes:
    name: As the policy writes it.
    description: What the policy is told about it.
    parameters: JSON schema of the arguments, an object.
  """

  @property
  def name(self) -> str:
    ...

  @property
  def description(self) -> str:
    ...

  @property
  def parameters(self) -> Mapping[str, Any]:
    ...

  async def query(
      self, arguments: Mapping[str, Any], context: ToolContext
  ) -> Query:
    """What the call searches with. The arguments already obey `parameters`.

    The same call in the same conversation gives the same query.

    Raises:
      ModelError: The call makes no sense here (no such image, a bad box).
    """
    ...


class SearchBackend(Protocol):
  """Where searches go: a world, an index, a service.

  What it raises is the infrastructure's failure. TransientError,
  ConnectionError and TimeoutError say that it may work soon: it is asked again.

  Attributes:
    version: Changes whenever the same query may be answered differently.
  """

  @property
  def version(self) -> str:
    ...

  async def search_text(
      self, query: str, *, scope: str, top_k: int
  ) -> Reply:
    """Finds at most `top_k` hits, best first."""
    ...

  async def search_image(
      self, data: bytes, *, scope: str, top_k: int
  ) -> Reply:
    """Searches with an encoded image; at most `top_k` hits, best first."""
    ...

  async def close(self) -> None:
    """Gives back what belongs to this event loop; it may be used in another."""


def describe(tool: Tool) -> dict[str, Any]:
  """What a prompt says about a tool: name, description, parameters."""
  return {
      'name': tool.name,
      'description': tool.description,
      'parameters': dict(tool.parameters),
  }


def check_arguments(
    arguments: Mapping[str, Any], schema: Mapping[str, Any]
) -> None:
  """Checks the arguments of a call against the tool's JSON schema.

  Raises:
    ModelError: They break it; one line that names the argument.
  """
  validator = jsonschema.Draft202012Validator(schema)
  error = jsonschema.exceptions.best_match(
      validator.iter_errors(dict(arguments))
  )
  if error is not None:
    where = ''.join(
        f'[{part}]' if isinstance(part, int) else f'.{part}'
        for part in error.absolute_path
    ).lstrip('.')
    raise ModelError(
        one_line(f'{where}: {error.message}' if where else error.message)
    )


def one_line(text: object) -> str:
  """`text` on one line of at most ERROR_LENGTH characters, without secrets."""
  line = ' '.join(redact(str(text)).split())
  return line if len(line) <= ERROR_LENGTH else line[: ERROR_LENGTH - 3] + '...'
