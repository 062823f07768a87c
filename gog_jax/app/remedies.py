"""What to type for a stage that is missing."""

from __future__ import annotations

from typing import Any

from gog_jax.evaluation import policies
from gog_jax.run import Run


def command(run: Run, page: str, stage: str) -> str:
  """What to type for a page to make a stage as this run needs it."""
  c = run.config
  flags = [f'--config=configs/{page}.py:{c.profile}']
  if c.model.path:
    flags.append(f'--config.model.path={c.model.path}')
  if c.sft.data:
    flags.append(f'--config.sft.data={c.sft.data}')
  flags.append(f'--config.seed={c.seed}')
  if stage in (*c.arms, 'demos_no_gaze', policies.NO_GAZE):
    # Made for those who ask for it; and what evaluates has to ask for the same.
    flags.append(f'--config.eval.policies="{tuple(c.eval.policies)}"')
  flags.append(f'--workdir={run.workdir}')
  return ' '.join(['python -m gog_jax.main', *flags])


def owners(config: Any, name: str) -> list[str]:
  """The commands that make a stage themselves at any size, the usual first."""
  made = {
      'pretrain': ('pretrain',),
      'sft': ('data', 'demos', 'sft', 'demos_no_gaze', policies.NO_GAZE),
      'grade': ('grade',),
      'rl': ('rl', *config.arms, 'eval', 'report'),
      'eval': ('eval', 'report'),
      'instruct': ('data',),
  }
  return [target for target, stages in made.items() if name in stages]
