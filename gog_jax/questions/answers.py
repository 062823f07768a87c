"""Accepted answers, as data sets write them."""

from __future__ import annotations

from collections.abc import Mapping
import json
import math
from typing import Any

from gog_jax.questions.questions import BAD
from gog_jax.storage.records import Unusable


def forms(*values: Any) -> tuple[str, ...]:
  """Every distinct text and number in the values, however nested, in order.

  A mapping with a `range` accepts any number within it (InfoSeek). Its forms
  are the `wikidata` value and the range in words: only a judge, who reads
  these, can tell that 1.4 lies in it.
  """
  found = (form.strip() for form in _walk(values))
  return tuple(dict.fromkeys(form for form in found if form))


def listed(value: Any, *, column: str) -> Any:
  """A list that may be JSON text, as verl's `candidate_answers` is.

  Raises:
    Unusable: It is text, but not a JSON list.
  """
  if not isinstance(value, str):
    return value
  try:
    parsed = json.loads(value) if value.strip() else []
  except (ValueError, RecursionError):
    parsed = None
  if not isinstance(parsed, list):
    detail = f'{column} is text, but no JSON list ({value[:40]!r})'
    raise Unusable(BAD, detail)
  return parsed


def _walk(value: Any):
  if isinstance(value, str):
    yield value
  elif isinstance(value, bool):
    yield 'yes' if value else 'no'
  elif isinstance(value, int | float):
    if math.isfinite(value):
      yield f'{value:g}' if abs(value) < 1e6 else f'{value:.15g}'
  elif isinstance(value, Mapping):
    if 'range' in value:
      yield from _walk(value.get('wikidata'))
      bounds = forms(value['range'])
      if len(bounds) == 2:
        yield f'any number from {bounds[0]} to {bounds[1]}'
    elif 'target' in value:  # verl's ground_truth, in some of its sets.
      yield from _walk(value['target'])
  elif isinstance(value, list | tuple):
    for part in value:
      yield from _walk(part)
