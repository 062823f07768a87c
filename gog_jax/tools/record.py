"""Results of calls as JSON, and the key by which the same call is known."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
import hashlib
import json
from typing import Any

from absl import logging

from gog_jax.storage.store import Store
from gog_jax.tools.base import Query
from gog_jax.types import Hit
from gog_jax.types import NO_ROOT
from gog_jax.types import ToolCall
from gog_jax.types import ToolResult
from gog_jax.types import ToolStatus
from gog_jax.types import View


class Cache:
  """Results in a `Store`, for this run and others, but no failures of the
  infrastructure. Its methods block."""

  def __init__(self, store: Store):
    self._store = store

  def get(self, key: str) -> ToolResult | None:
    """What is known of a call."""
    record = self._store.get(key)
    if record is None:
      return None
    try:
      return from_json(
          record, lambda text: base64.b64decode(text, validate=True)
      )
    except (ValueError, KeyError, TypeError) as error:
      logging.log_first_n(
          logging.WARNING, '%s: %s', 1, self._store.path, error
      )
      return None  # Then it is asked again.

  def put(
      self, key: str, call: ToolCall, query: Query, result: ToolResult
  ) -> None:
    del call, query
    self._store.put(
        key, to_json(result, lambda data: base64.b64encode(data).decode())
    )


def call_key(call: ToolCall, query: Query, *, version: str) -> str:
  """64 hex digits of all that an answer may depend on.

  The tool and its version, its canonical arguments, the pixels that are
  searched with or looked at, the scope, and how many hits are wanted.
  """
  asked = {
      'tool': call.name,
      'arguments': dict(call.arguments),
      'text': query.text,
      'image': None if query.image is None else _sha256(query.image),
      'scope': query.scope,
      'top_k': query.top_k,
      'backend': version,
  }
  if query.views:
    asked['views'] = [_sha256(view.data) for view in query.views]
  return _sha256(
      json.dumps(asked, sort_keys=True, separators=(',', ':')).encode()
  )


def _sha256(data: bytes) -> str:
  return hashlib.sha256(data).hexdigest()


def to_json(
    result: ToolResult, store_image: Callable[[bytes], str]
) -> dict[str, Any]:
  """A record; `store_image` gives images a name."""
  record: dict[str, Any] = {
      'status': result.status.value,
      'error': result.error,
      'hits': [
          {
              **vars(hit),
              'image': None if hit.image is None else store_image(hit.image),
          }
          for hit in result.hits
      ],
      'raw': result.raw,
      'price': result.price,
      'latency_s': result.latency_s,
      'time': result.time,
  }
  if result.parts:
    record['parts'] = [
        part
        if isinstance(part, str)
        else {'image': store_image(part.data), 'box': list(part.box)}
        for part in result.parts
    ]
  return record


def from_json(
    record: Mapping[str, Any], load_image: Callable[[str], bytes]
) -> ToolResult:
  """Reads what `to_json` made.

  Raises:
    KeyError, TypeError, ValueError: It did not.
  """
  raw = record['raw']
  return ToolResult(
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
      parts=tuple(
          part
          if isinstance(part, str)
          else View(
              data=load_image(part['image']),
              root=NO_ROOT,
              box=tuple(part['box']),
          )
          for part in record.get('parts', ())
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
