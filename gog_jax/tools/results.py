"""Results of calls as JSON, and the key by which the same call is known."""

from __future__ import annotations

import base64
from collections.abc import Callable
import hashlib
import json
from typing import Any

from absl import logging

from gog_jax.storage import typed
from gog_jax.storage.store import Store
from gog_jax.storage.trajectories import plain
from gog_jax.tools.base import Query
from gog_jax.types import ToolCall
from gog_jax.types import ToolResult


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
    except (ValueError, TypeError) as error:
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
  return plain(result, store_image) | {'raw': result.raw, 'time': result.time}


def from_json(record: Any, load_image: Callable[[str], bytes]) -> ToolResult:
  """Reads what `to_json` made, among other fields.

  Raises:
    ValueError: It did not.
  """
  if 'status' not in record:  # All that a result has to say.
    raise ValueError('it is no result')
  return typed.read(ToolResult, record, ignore_unknown=True, load=load_image)
