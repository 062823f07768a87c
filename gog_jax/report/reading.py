"""Reads what a run left: its evaluations and its training curves.

    WORKDIR/eval/POLICY/trajectories.jsonl, examples.jsonl, manifest.json
    WORKDIR/eval/manifest.json             where the policy's does not say
    WORKDIR/STAGE/metrics.jsonl, validation.jsonl

Evaluations of other benchmarks than `questions.test` stand in eval_BENCHMARK.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import json
from typing import Any

from etils import epath

from gog_jax.errors import UserError
from gog_jax.storage import metrics
from gog_jax.storage import rollouts
from gog_jax.types import Example
from gog_jax.types import Trajectory

_STAGES = ('pretrain', 'sft_no_gaze', 'sft', 'rl')  # Then the arms.
# The order in which the policies tell the story.
_POLICIES = ('direct', 'full_search', 'expert', 'sft_no_gaze', 'sft', 'rl')
_PARTS = {'accuracy', 'format'}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluated:
  """One policy's evaluation.

  Attributes:
    policy: Its name, e.g. 'sft'.
    examples: By id; holds every trajectory's example.
    trajectories: Scored ones, in the order of the data set.
    benchmark: What was asked.
    manifest: What is known of how it was made.
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
    """Of the benchmark as it was read: 'name', 'digest', 'label', 'n', ..."""
    facts = self.manifest.get('facts') or {}
    return self.manifest.get('benchmark') or facts.get('benchmark') or {}

  @property
  def who(self) -> str:
    """The model's part of the policy's name; a short name whole."""
    return self.policy.rpartition('@')[2]

  @property
  def model(self) -> str:
    """The path or the name of what was asked; empty where no model was."""
    if self.who in ('script', 'expert'):
      return ''
    section, field = ('model', 'path')
    if self.who == 'remote':
      section, field = 'remote', 'model'
    return self._config(section).get(field) or ''

  @property
  def dialect(self) -> str:
    """Empty for a remote model, which may be any, however it is asked."""
    if self.who == 'remote':
      return ''
    return self._config('model').get('dialect', '')

  @property
  def scored_by(self) -> tuple[str, str]:
    """The accuracy's name, and the version of a judge or of a user's part."""
    name = self._config('reward').get('accuracy', '')
    inputs = self.manifest.get('inputs') or {}
    return name, inputs.get('judge') or inputs.get(f'reward {name}') or ''

  def _config(self, section: str) -> Mapping[str, Any]:
    return (self.manifest.get('config') or {}).get(section) or {}


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
              benchmark=(manifest.get('benchmark') or {}).get(
                  'name', benchmark or 'world'
              ),
              manifest=manifest,
              run=run,
          )
      )
  if required and not found:
    raise UserError(f'{folder} holds no evaluation; {remedy}')
  order = {policy: place for place, policy in enumerate(_POLICIES)}
  return sorted(
      found,
      key=lambda one: (order.get(one.policy, len(order)), one.policy),
  )


def curves(workdir: epath.Path) -> dict[str, list[dict[str, Any]]]:
  """Metrics of every training stage: the known ones first, then the arms."""
  stages = {path.parent.name for path in workdir.glob('*/metrics.jsonl')}
  found = {}
  for stage in (*_STAGES, *sorted(stages - {*_STAGES})):
    rows = metrics.read_rows(workdir / stage / 'metrics.jsonl') + [
        {'step': row['step'], 'validation_accuracy': row['accuracy']}
        for row in metrics.read_rows(workdir / stage / 'validation.jsonl')
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
