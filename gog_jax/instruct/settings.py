"""What a build may be told, and what of it makes another build."""

from __future__ import annotations

from typing import Any

from gog_jax.config import paradigms
from gog_jax.config import picked
from gog_jax.config.pages import InstructPage
from gog_jax.evaluation import policies
from gog_jax.questions import sources

# What is asked, and what becomes of it, hangs on these alone: the others may
# change between two starts, and no teacher is asked again.
_ASKED = (
    'teacher', 'chunk', 'n_direct', 'direct_temperature', 'samples',
    'gold', 'gold_iou', 'evidence', 'repeats',
)  # fmt: skip
# Not the address, which may change with every start of a server.
_REMOTE = ('model', 'temperature', 'max_tokens', 'seeded')
_SECTIONS = (
    'seed', 'model', 'rollout', 'reward', 'batch.row_patches',
    'questions.train', 'tools.offered', 'tools.backend', 'tools.top_k',
    'tools.hit_characters',
)  # fmt: skip


def identity(config: InstructPage) -> dict[str, Any]:
  """The fields on which the committed chunks depend."""
  names = [*_SECTIONS, *(f'instruct.{name}' for name in _ASKED)]
  if config.instruct.teacher == policies.REMOTE:
    names += [f'remote.{name}' for name in _REMOTE]
  return picked(config, names, without=())


def teacher_config(config: InstructPage) -> InstructPage:
  """The config with the tools, wording and limits that the teacher has."""
  own = policies.config_of(config, config.instruct.teacher)
  assert isinstance(own, InstructPage)
  return own


def teacher_name(config: Any) -> str:
  """Who teaches, for people."""
  name = config.instruct.teacher
  if name == policies.REMOTE:
    return f'{config.remote.model} (by an OpenAI-compatible endpoint)'
  return f'{name} ({config.profile})'


def stages(config: Any) -> tuple[str, ...]:
  """The stages whose output a build reads."""
  needed = []
  if sources.WORLD in config.questions.train:
    needed.append('data')
  if stage := paradigms.parse(config.instruct.teacher, config.arms).stage:
    needed.append(stage)
  return tuple(needed)
