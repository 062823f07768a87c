"""Accepted answers, as data sets write them."""

from __future__ import annotations

from collections.abc import Mapping
import json
import math
from typing import Any


def forms(*values: Any) -> tuple[str, ...]:
  """Every distinct text and number in the values, however nested, in order.

  A mapping with a `range` accepts any number within it (InfoSeek). Its forms
  are the `wikidata` value and the range in words: only a judge, who reads
  these, can tell that 1.4 lies in it.
  """
  found = (form.strip() for form in _walk(values))
  return tuple(dict.fromkeys(form for form in found if form))


def listed(value: Any) -> Any:
  """A list that may be JSON text, as verl's `candidate_answers` is."""
  try:
    found = json.loads(value) if isinstance(value, str) else value
  except (ValueError, RecursionError):
    return value
  return found if isinstance(found, list) else value


def _walk(value: Any):
  if isinstance(value, str):
    found = listed(value)
    # A list of numbers may be one answer, as a box is.
    texts = isinstance(found, list) and all(isinstance(t, str) for t in found)
    yield from _walk(found) if texts else [value]
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
    else:  # verl's ground_truth, which in some of its sets is a mapping, too.
      yield from _walk(value.get('target', value.get('ground_truth')))
  elif isinstance(value, list | tuple):
    for part in value:
      yield from _walk(part)
