"""What became of a search, and the key by which the same search is known."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
import dataclasses
import hashlib
import json
from typing import Any, Protocol

from gog_jax.tools.base import Query
from gog_jax.types import Hit
from gog_jax.types import ToolCall
from gog_jax.types import ToolResult
from gog_jax.types import ToolStatus


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
  """A search that came to an end, one way or the other.

  Attributes:
    status: ok or infra_error.
    hits: Best first.
    error: One line, empty when status is ok.
    raw: The answer as it came over the wire; None where none did.
    price: What it cost, in US dollars, all attempts together.
    latency_s: Wall time in seconds, the wait for a turn included.
    time: When it ended, ISO 8601 in UTC; empty until it is recorded.
  """

  status: ToolStatus
  hits: tuple[Hit, ...] = ()
  error: str = ''
  raw: str | None = None
  price: float = 0.0
  latency_s: float = 0.0
  time: str = ''

  def result(self, query: Query) -> ToolResult:
    """As the policy gets it, with the crop that it asked for."""
    ok = self.status == ToolStatus.OK
    return ToolResult(
        status=self.status,
        hits=self.hits,
        view=query.view if ok else None,
        error=self.error,
        n_searches=int(ok),
        latency_s=self.latency_s,
        price=self.price,
    )


class Store(Protocol):
  """Keeps outcomes by the key of their call. Its methods block."""

  def get(self, key: str) -> Outcome | None:
    """What is known of a call; failures never are."""

  def put(self, key: str, call: ToolCall, query: Query, outcome: Outcome):
    """Keeps an outcome that is ok."""


def call_key(call: ToolCall, query: Query, *, backend: str) -> str:
  """64 hex digits of what an answer may depend on.

  The tool, its canonical arguments, the pixels that are searched with, the
  scope, how many hits are wanted, and the backend's version.
  """
  image = query.image
  asked = {
      'tool': call.name,
      'arguments': dict(call.arguments),
      'text': query.text,
      'image': None if image is None else hashlib.sha256(image).hexdigest(),
      'scope': query.scope,
      'top_k': query.top_k,
      'backend': backend,
  }
  text = json.dumps(asked, sort_keys=True, separators=(',', ':'))
  return hashlib.sha256(text.encode()).hexdigest()


def to_json(
    outcome: Outcome, store_image: Callable[[bytes], str]
) -> dict[str, Any]:
  """A record; `store_image` gives images a name."""
  return {
      'status': outcome.status.value,
      'error': outcome.error,
      'hits': [
          {
              'title': hit.title,
              'text': hit.text,
              'score': hit.score,
              'image': None if hit.image is None else store_image(hit.image),
          }
          for hit in outcome.hits
      ],
      'raw': outcome.raw,
      'price': outcome.price,
      'latency_s': outcome.latency_s,
      'time': outcome.time,
  }


def from_json(
    record: Mapping[str, Any], load_image: Callable[[str], bytes]
) -> Outcome:
  """Reads what `to_json` made.

  Raises:
    KeyError, TypeError, ValueError: It did not.
  """
  raw = record['raw']
  return Outcome(
      status=ToolStatus(record['status']),
      error=_of(str, record['error']),
      hits=tuple(
          Hit(
              title=_of(str, hit['title']),
              text=_of(str, hit['text']),
              score=_of((int, float), hit['score']),
              image=None if hit['image'] is None else load_image(hit['image']),
          )
          for hit in record['hits']
      ),
      raw=None if raw is None else _of(str, raw),
      price=_of((int, float), record['price']),
      latency_s=_of((int, float), record['latency_s']),
      time=_of(str, record['time']),
  )


def _of(kind: Any, value: Any) -> Any:
  if not isinstance(value, kind):
    raise TypeError(f'{value!r:.40} is of the wrong kind')
  return value


def inline(data: bytes) -> str:
  """An image as text, for records that stand alone."""
  return base64.b64encode(data).decode()


def from_inline(text: str) -> bytes:
  """The way back; ValueError if it is not."""
  return base64.b64decode(text, validate=True)
