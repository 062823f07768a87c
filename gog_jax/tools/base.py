"""What a tool is, and what it searches with."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
import concurrent.futures
import dataclasses
from typing import Any, Protocol

from gog_jax.config.tools import IMAGE
from gog_jax.config.tools import INHERITED
from gog_jax.config.tools import TEXT
from gog_jax.config.tools import ToolLimits
from gog_jax.remote.secrets import redact
from gog_jax.types import ToolResult
from gog_jax.types import View

# Characters of an error that the policy is shown.
ERROR_LENGTH = 120


class ModelError(Exception):
  """The policy's own mistake; the message is shown to it, on one line.

  Any other exception of a tool counts as the infrastructure's failure.
  """


class SearchError(Exception):
  """A failure of the infrastructure.

  Attributes:
    billed: Whether it may have to be paid for: False where the request was
      turned away, or never sent.
    retry_after_s: Seconds that the service asks to wait.
  """

  def __init__(
      self, message: str, *, billed: bool = True, retry_after_s: float = 0.0
  ):
    super().__init__(message)
    self.billed = billed
    self.retry_after_s = retry_after_s


class TransientError(SearchError):
  """One after which the call is tried again."""

  transient = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToolContext:
  """The part of a conversation that a call may look at.

  Attributes:
    scope: Which world or corpus the searches run in.
    views: Every image so far, in order of appearance: the example's own
      images first, then crops and tools' images. Policies number them from 1.
    caller: Which call of which turn of which rollout this is, for recordings.
  """

  scope: str
  views: tuple[View, ...]
  caller: str = ''


@dataclasses.dataclass(frozen=True, kw_only=True)
class Query:
  """A call that is ready to be made.

  Its answer depends on nothing but these fields, the call's arguments and the
  tool's version: equal queries are answered from caches and recordings.

  Attributes:
    ask: Makes the call; raises as `SearchBackend` says. None where there is
      nothing to ask: the result is `view` alone.
    text: The words that are searched for, if any.
    image: The encoded image file that is searched with, if any.
    scope: Which world or corpus is searched.
    top_k: Hits wanted.
    views: Images that a function looks at.
    view: The crop that joins the conversation with the result.
  """

  ask: Callable[[], Awaitable[ToolResult]] | None = dataclasses.field(
      default=None, compare=False
  )
  text: str | None = None
  image: bytes | None = None
  scope: str = ''
  top_k: int = 0
  views: tuple[View, ...] = ()
  view: View | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tool:
  """A function the policy can call.

  Attributes:
    name: As the policy writes it.
    description: What the policy is told about it.
    parameters: JSON schema of the arguments, an object.
    version: Changes whenever the same query may be answered differently.
    query: What a call asks; its arguments obey `parameters`. The same call in
      the same conversation gives the same query. Raises ModelError if the call
      makes no sense here (no such image, a bad box).
    limits: Its own, where the config names none; 0 inherits the config's.
  """

  name: str
  description: str
  parameters: Mapping[str, Any]
  version: str
  query: Callable[[Mapping[str, Any], ToolContext], Awaitable[Query]]
  limits: ToolLimits = INHERITED


class SearchBackend(Protocol):
  """Where searches go: a world, an index, a service.

  What it raises counts as the infrastructure's failure. After TransientError,
  ConnectionError and TimeoutError the search is tried again. Where there is a
  method `prepare`, without arguments, servers call it before they are ready: it
  does what a first search would wait for.

  Attributes:
    version: Changes whenever the same query may be answered differently.
    kinds: What it can be searched with: TEXT, IMAGE or both. Tools that need
      another kind are not offered to the policy, if no other backend serves it.
  """

  version: str

  @property
  def kinds(self) -> Collection[str]:
    ...

  async def search_text(
      self, query: str, *, scope: str, top_k: int
  ) -> ToolResult:
    """Finds at most `top_k` hits, best first."""
    ...

  async def search_image(
      self, data: bytes, *, scope: str, top_k: int
  ) -> ToolResult:
    """Searches with an encoded image; at most `top_k` hits, best first."""
    ...

  async def close(self) -> None:
    """Frees what belongs to this event loop; another may follow. Optional."""


def describe(tool: Tool) -> dict[str, Any]:
  """What a prompt says about a tool: name, description, parameters."""
  return {
      'name': tool.name,
      'description': tool.description,
      'parameters': dict(tool.parameters),
  }


def one_line(text: object) -> str:
  """`text` on one line of at most ERROR_LENGTH characters, without secrets."""
  line = ' '.join(redact(str(text)).split())
  return line if len(line) <= ERROR_LENGTH else line[: ERROR_LENGTH - 3] + '...'


def joined(backends: Mapping[str, SearchBackend]) -> str:
  """One version of what is searched with TEXT and with IMAGE."""
  held = {k: backends[k].version for k in (TEXT, IMAGE) if k in backends}
  if len(held) == 2 and len(set(held.values())) == 1:
    return held[TEXT]
  return ', '.join(f'{kind} {version}' for kind, version in held.items())


async def close(backends: Iterable[SearchBackend]) -> None:
  """Frees what they hold of this event loop, once each."""
  for backend in {id(one): one for one in backends}.values():
    if closing := getattr(backend, 'close', None):
      await closing()


async def in_thread(
    pool: concurrent.futures.Executor, function: Callable[..., Any], *args: Any
) -> Any:
  """Calls a function in a pool's thread.

  A thread cannot be stopped: when cancelled, this waits for it to end, so that
  no more calls run than the caller has counted.
  """
  job = pool.submit(function, *args)
  future = asyncio.wrap_future(job)
  try:
    return await asyncio.shield(future)
  except asyncio.CancelledError:
    if not job.cancel():
      await asyncio.wait([future])
      future.exception()  # Retrieved: nobody else will.
    raise
