"""Reads what a run left: its evaluations and its training curves.

    WORKDIR/eval/POLICY/trajectories.jsonl, examples.jsonl, manifest.json
    WORKDIR/STAGE/metrics.jsonl, validation.jsonl

Evaluations of other benchmarks than `questions.test` stand in eval_BENCHMARK.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

from etils import epath

from gog_jax.config import paradigms
from gog_jax.errors import UserError
from gog_jax.storage import manifest
from gog_jax.storage import metrics
from gog_jax.storage import rollouts
from gog_jax.types import Example
from gog_jax.types import Trajectory

_STAGES = ('pretrain', 'sft_no_gaze', 'sft', 'rl')  # Then the arms.
# Scores that every trajectory holds.
_MEASURES = {'accuracy', 'format', 'exact_match', 'f1'}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluated:
  """One policy's evaluation.

  Attributes:
    policy: Its name, e.g. 'sft'.
    examples: By id; holds every trajectory's example.
    trajectories: Scored ones, in the order of the data set.
    benchmark: What was asked.
    manifest: The manifest of its stage.
    run: Its workdir, where several are compared.
  """

  policy: str
  examples: Mapping[str, Example]
  trajectories: Sequence[Trajectory]
  benchmark: str = 'world'
  manifest: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  run: str = ''

  @property
  def items(self) -> Mapping[str, Any]:
    """Facts about the benchmark as read: 'name', 'digest', 'label', 'n', ..."""
    return self.manifest.get('benchmark', {})

  @property
  def model(self) -> str:
    """Path or name of the model that was asked; empty where none was."""
    if self._who in (paradigms.SCRIPT, paradigms.EXPERT):
      return ''
    if self._who == paradigms.REMOTE:
      return self._config('remote', 'model')
    return self._config('model', 'path')

  @property
  def dialect(self) -> str:
    """Empty for a remote model: its dialect does not tell what it is."""
    if self._who == paradigms.REMOTE:
      return ''
    return self._config('model', 'dialect')

  @property
  def scored_by(self) -> tuple[str, str]:
    """The accuracy's name, and the version of whatever says what is right."""
    name = self._config('reward', 'accuracy')
    inputs = self.manifest.get('inputs', {})
    said = inputs.get('judge') or inputs.get(f'reward {name}')
    # SQuAD's exact match has no versions.
    compared = '' if name == 'exact_match' else inputs.get('reward matcher', '')
    return name, said or compared

  @property
  def _who(self) -> str:
    """The model's part of the policy's name; a short name whole."""
    return self.policy.rpartition('@')[2]

  def _config(self, section: str, field: str) -> str:
    return self.manifest.get('config', {}).get(section, {}).get(field, '')


def evaluations(
    folder: epath.Path,
    *,
    images: bool = True,
    required: bool = True,
    run: str = '',
) -> list[Evaluated]:
  """Every policy's evaluation in `eval` or `eval_BENCHMARK`, complete or not.

  Args:
    folder: May not exist.
    images: False leaves every image empty, for those who only count.
    required: Whether there has to be one.
    run: What to call the run.

  Raises:
    UserError: A file is missing or damaged, or trajectories are not scored.
  """
  _, _, benchmark = folder.name.partition('_')
  remedy = (
      f'evaluate {benchmark or "the test questions"} anew: configs/eval.py '
      f'with --workdir={folder.parent} and the flags it was evaluated with'
  )
  found = []
  for path in folder.iterdir() if folder.exists() else ():
    if not (path / 'trajectories.jsonl').exists():
      continue
    if not (path / 'examples.jsonl').exists():
      raise UserError(f'{path}/examples.jsonl does not exist; {remedy}')
    trajectories, asked = rollouts.read(path, images=images)
    examples = {example.id: example for example in asked}
    for trajectory in trajectories:
      name = trajectory.example_id
      if name not in examples:
        raise UserError(f'{path}/examples.jsonl lacks {name}; {remedy}')
      if not _MEASURES <= trajectory.reward_parts.keys():
        raise UserError(
            f'{path}/trajectories.jsonl is not scored ({name}); {remedy}'
        )
    if trajectories:
      made = manifest.read(path)
      items = made.get('benchmark', {})
      found.append(
          Evaluated(
              policy=path.name,
              examples=examples,
              trajectories=trajectories,
              benchmark=items.get('name', benchmark or 'world'),
              manifest=made,
              run=run,
          )
      )
  if required and not found:
    raise UserError(f'{folder} holds no evaluation; {remedy}')
  return sorted(found, key=lambda one: place(one.policy, paradigms.SHORT))


def curves(workdir: epath.Path) -> dict[str, list[dict[str, Any]]]:
  """Metrics of every training stage: the known ones first, then the arms."""
  stages = {path.parent.name for path in workdir.glob('*/metrics.jsonl')}
  found = {}
  for stage in sorted(stages, key=lambda name: place(name, _STAGES)):
    rows = metrics.read_rows(workdir / stage / 'metrics.jsonl')
    known = {row['step'] for row in rows if 'validation_accuracy' in row}
    rows += [
        {'step': row['step'], 'validation_accuracy': row['accuracy']}
        for row in metrics.read_rows(workdir / stage / 'validation.jsonl')
        if row['step'] not in known
    ]
    found[stage] = sorted(rows, key=lambda row: row['step'])
  return found


def place(name: str, first: Sequence[str]) -> tuple[int, str]:
  """Sorts names: those of `first` in its order, then the others by name."""
  return first.index(name) if name in first else len(first), name
