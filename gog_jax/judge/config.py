"""Checks the section `judge`; see configs/sections.py for its fields."""

from __future__ import annotations

import math
from typing import Any

from gog_jax.errors import UserError
from gog_jax.judge import prompt
from gog_jax.remote.endpoint import Endpoint

_AT_LEAST = {
    'max_attempts': 1,
    'concurrency': 1,
    'max_answer_characters': 1,
    'max_tokens': 0,
    'price_in': 0,
    'price_out': 0,
    'max_spend': 0,
}
_FLOATS = (
    'timeout_s', 'temperature', 'min_success', 'price_in', 'price_out',
    'max_spend',
)  # fmt: skip


def check(section: Any) -> None:
  """Refuses a judge that cannot be asked; opens nothing but the prompt.

  Raises:
    UserError: Names the field.
  """
  if not section.url:
    raise UserError(
        'a judge needs an endpoint: pass --config.judge.url=, e.g. '
        'http://127.0.0.1:8080/v1, and --config.judge.model=NAME'
    )
  for name in _FLOATS:
    if not math.isfinite(value := getattr(section, name)):
      raise UserError(f'config.judge.{name} is {value}, not a finite number')
  for name, least in _AT_LEAST.items():
    if getattr(section, name) < least:
      raise UserError(f'config.judge.{name} must be {least} or more')
  if section.timeout_s <= 0:
    raise UserError('config.judge.timeout_s must be more than 0 seconds')
  if not 0 <= section.min_success <= 1:
    raise UserError('config.judge.min_success is a share, from 0 to 1')
  if section.price_in or section.price_out:
    if not section.max_spend:
      raise UserError(
          'verdicts cost money: say how much the run may spend on them with '
          '--config.judge.max_spend=DOLLARS'
      )
    if not section.max_tokens:
      raise UserError(
          'config.judge.max_tokens=0 sets no bound to what a verdict costs: '
          'give one, or no config.judge.price_in and price_out'
      )
  prompt.load(section.prompt)
  Endpoint(section, name='judge')
