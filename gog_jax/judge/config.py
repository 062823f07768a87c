"""What a config says of the judge."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from gog_jax.errors import UserError
from gog_jax.judge import prompt
from gog_jax.remote.endpoint import Endpoint
from gog_jax.remote.endpoint import EndpointConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class JudgeConfig:
  """The section `judge`; see configs/sections.py for what fields mean."""

  url: str
  model: str
  key_variable: str
  timeout_s: float
  max_attempts: int
  temperature: float
  max_tokens: int
  concurrency: int
  prompt: str
  cache: str
  min_success: float
  max_answer_characters: int
  price_in: float
  price_out: float
  max_spend: float
  ledger: str

  def endpoint(self) -> Endpoint:
    """Whom to ask.

    Raises:
      UserError: Its address, its name or the key cannot be one.
    """
    fields = {
        field.name: getattr(self, field.name)
        for field in dataclasses.fields(EndpointConfig)
        if field.name not in ('section', 'seeded')
    }
    return Endpoint(EndpointConfig(**fields, section='judge'))


def read(section: Any) -> JudgeConfig:
  """The section, checked; nothing is opened but the prompt.

  Raises:
    UserError: A field is missing or cannot be; names it.
  """
  config = JudgeConfig(**section)
  if not config.url:
    raise UserError(
        'a judge needs an endpoint: pass --config.judge.url=, e.g. '
        'http://127.0.0.1:8080/v1, and --config.judge.model=NAME'
    )
  for field in dataclasses.fields(JudgeConfig):
    value = getattr(config, field.name)
    if isinstance(value, float) and not math.isfinite(value):
      raise UserError(
          f'config.judge.{field.name} is {value}, which is no number'
      )
  for name in ('max_attempts', 'concurrency', 'max_answer_characters'):
    if getattr(config, name) < 1:
      raise UserError(f'config.judge.{name} must be 1 or more')
  for name in ('max_tokens', 'price_in', 'price_out', 'max_spend'):
    if getattr(config, name) < 0:
      raise UserError(f'config.judge.{name} must be 0 or more')
  if config.timeout_s <= 0:
    raise UserError('config.judge.timeout_s must be more than 0 seconds')
  if not 0 <= config.min_success <= 1:
    raise UserError('config.judge.min_success is a share, from 0 to 1')
  if config.price_in or config.price_out:
    if not config.max_spend:
      raise UserError(
          'verdicts cost money: say how much the run may spend on them with '
          '--config.judge.max_spend=DOLLARS'
      )
    if not config.max_tokens:
      raise UserError(
          'config.judge.max_tokens=0 sets no bound to what a verdict costs: '
          'give one, or no config.judge.price_in and price_out'
      )
  prompt.load(config.prompt)
  config.endpoint()
  return config
