"""Accepted answers, as data sets write them."""

from __future__ import annotations

from collections.abc import Mapping
import decimal
import json
import math
import numbers
import re
from typing import Any

# As a model is to write it: R1-V's solutions.
MARKED = re.compile('<answer>(.*?)</answer>', re.DOTALL)


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
    if marked := MARKED.fullmatch(value.strip()):
      value = marked[1]
    found = listed(value)
    # A list of numbers may be one answer, as a box is.
    texts = isinstance(found, list) and all(isinstance(t, str) for t in found)
    yield from _walk(found) if texts else [value]
  elif isinstance(value, bool):
    yield 'yes' if value else 'no'
  elif isinstance(value, (numbers.Real, decimal.Decimal)):
    if math.isfinite(value):  # Every digit, and none that says nothing: 2.0.
      exact = decimal.Decimal(str(value))
      text = f'{exact:f}'
      yield text.rstrip('0').rstrip('.') if '.' in text else text
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
