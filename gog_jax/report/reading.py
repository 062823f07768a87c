"""Reads what a run left: its evaluations and its training curves.

    WORKDIR/eval/POLICY/trajectories.jsonl, examples.jsonl, manifest.json
    WORKDIR/eval/manifest.json             where the policy's does not say
    WORKDIR/STAGE/metrics.jsonl, validation.jsonl

Evaluations of other benchmarks than the embedded world's test split stand in
eval_BENCHMARK.
"""

from __future__ import annotations

import json
from typing import Any

from etils import epath

from gog_jax.errors import UserError
from gog_jax.report.measures import Evaluated
from gog_jax.storage import rollouts

_STAGES = ('pretrain', 'sft_no_gaze', 'sft', 'rl')  # Then the arms.
# The order in which the policies tell the story.
_POLICIES = ('direct', 'full_search', 'expert', 'sft_no_gaze', 'sft', 'rl')
_PARTS = {'accuracy', 'format'}


def evaluations(
    folder: epath.Path, *, images: bool = True, required: bool = True
) -> list[Evaluated]:
  """Every policy's evaluation in `eval` or `eval_BENCHMARK`, complete or not.

  Args:
    folder: May not exist.
    images: False leaves every image empty, for those who only count.
    required: Whether there has to be one.

  Raises:
    UserError: A file is missing or damaged, or trajectories are not scored.
  """
  _, _, benchmark = folder.name.partition('_')
  remedy = (
      'make it with python -m gog_jax.main --config=configs/eval.py '
      f'--workdir={folder.parent}'
      + f' --config.eval.benchmark={benchmark}' * bool(benchmark)
  )
  found = []
  for path in folder.iterdir() if folder.exists() else ():
    if not (path / 'trajectories.jsonl').exists():
      continue
    if not (path / 'examples.jsonl').exists():
      raise UserError(f'{path / "examples.jsonl"} does not exist; {remedy}')
    trajectories, asked = rollouts.read(path, images=images)
    examples = {example.id: example for example in asked}
    for trajectory in trajectories:
      if trajectory.example_id not in examples:
        raise UserError(
            f'{path / "examples.jsonl"} lacks {trajectory.example_id}; '
            + remedy
        )
      if not _PARTS <= trajectory.reward_parts.keys():
        raise UserError(
            f'{path / "trajectories.jsonl"} is not scored '
            f'({trajectory.example_id}); {remedy}'
        )
    if trajectories:
      manifest = {**_manifest(folder), **_manifest(path)}
      found.append(
          Evaluated(
              policy=path.name,
              examples=examples,
              trajectories=trajectories,
              manifest=manifest,
          )
      )
  if required and not found:
    raise UserError(f'{folder} holds no evaluation; {remedy}')
  return sorted(found, key=lambda one: _story_order(one.policy))


def curves(workdir: epath.Path) -> dict[str, list[dict[str, Any]]]:
  """Metrics of every training stage: the known ones first, then the arms."""
  stages = {path.parent.name for path in workdir.glob('*/metrics.jsonl')}
  found = {}
  for stage in (*_STAGES, *sorted(stages - {*_STAGES})):
    rows = _rows(workdir / stage / 'metrics.jsonl') + [
        {'step': row['step'], 'validation_accuracy': row['accuracy']}
        for row in _rows(workdir / stage / 'validation.jsonl')
    ]
    found[stage] = sorted(rows, key=lambda row: row['step'])
  return found


def _manifest(folder: epath.Path) -> dict[str, Any]:
  path = folder / 'manifest.json'
  try:
    return json.loads(path.read_text()) if path.exists() else {}
  except ValueError as error:
    raise UserError(
        f'{path} is damaged; delete it and evaluate again'
    ) from error


def _story_order(policy: str) -> tuple[int, str]:
  known = policy in _POLICIES
  return (_POLICIES.index(policy) if known else len(_POLICIES), policy)


def _rows(path: epath.Path) -> list[dict[str, Any]]:
  """The lines of a metrics file; none where the stage has not been run."""
  rows = []
  for line in path.read_text().split('\n') if path.exists() else ():
    try:
      rows.append(json.loads(line))
    except json.JSONDecodeError:
      break  # The last line of a run that is still going, or was killed.
  return rows
