"""What a build may be told, and what of it makes another build."""

from __future__ import annotations

from typing import Any

from gog_jax.errors import UserError
from gog_jax.evaluation import policies
from gog_jax.questions import sources

MODEL, EXPERT = 'model', 'expert'  # Teachers, beside those of policies.py.
EASY = ('keep', 'drop')
GOLD = ('any', 'each', 'off')

# What is asked, and what becomes of it, hangs on these alone: the others may
# change between two starts, and no teacher is asked again.
_ASKED = (
    'sources', 'teacher', 'chunk', 'n_direct', 'direct_temperature', 'samples',
    'gold', 'gold_iou', 'evidence', 'repeats',
)  # fmt: skip
# Not the address, which may change with every start of a server.
_REMOTE = ('model', 'temperature', 'max_tokens', 'seeded')
_TOOLS = ('backend', 'top_k', 'hit_characters')


def identity(config: Any) -> dict[str, Any]:
  """The fields on which the answers depend, nested."""
  c = config
  fields = {
      'seed': c.seed,
      'model': c.model.to_dict(),
      'rollout': c.rollout.to_dict(),
      'reward': c.reward.to_dict(),
      'batch': {'row_patches': c.batch.row_patches},
      'tools': {name: c.tools[name] for name in _TOOLS},
      'instruct': {name: c.instruct[name] for name in _ASKED},
  }
  if c.instruct.teacher == policies.REMOTE:
    fields['remote'] = {name: c.remote[name] for name in _REMOTE}
  return fields


def teacher_name(config: Any) -> str:
  """Who teaches, for people."""
  name = config.instruct.teacher
  if name == policies.REMOTE:
    return f'{config.remote.model} (by an OpenAI-compatible endpoint)'
  return f'{name} ({config.profile})'


def stages(config: Any) -> tuple[str, ...]:
  """The stages whose output a build reads."""
  needed = []
  if sources.WORLD in config.instruct.sources:
    needed.append('data')
  if config.instruct.teacher not in (policies.REMOTE, MODEL, EXPERT):
    stage = policies.named(config, config.instruct.teacher).stage
    assert stage is not None
    needed.append(stage)
  return tuple(needed)


def check(config: Any) -> None:
  """Refuses a build that would stop late.

  Raises:
    UserError: Says which field, and what to give it.
  """
  c = config.instruct
  # Those that have to answer at once have no trajectories to show.
  trained = [n for n in policies.NAMES if n not in ('direct', 'full_search')]
  known = (policies.REMOTE, MODEL, *trained, *config.arms)
  if c.teacher not in known:
    raise UserError(
        f'unknown teacher {c.teacher!r}: pass --config.instruct.teacher=, one '
        'of ' + ', '.join(known)
    )
  sources.check(c.sources, field='config.instruct.sources')
  if c.teacher == EXPERT and tuple(c.sources) != (sources.WORLD,):
    raise UserError(
        'the expert knows the questions of the embedded world only: pass '
        '--config.instruct.teacher=remote, or another that can read yours'
    )
  if c.teacher == policies.REMOTE:
    policies.check_remote(config)
    if c.n_direct > 1 and not c.direct_temperature:
      raise UserError(
          'config.instruct.direct_temperature=0 gives the same answer every '
          'time: raise it, or pass --config.instruct.n_direct=1'
      )
  foreign = tuple(c.sources) != (sources.WORLD,)
  if foreign and config.tools.backend == 'world':
    if config.tools.mode != 'replay':
      raise UserError(
          'the embedded world knows nothing about questions of others: pass '
          '--config.tools.backend=index or retriever'
      )
