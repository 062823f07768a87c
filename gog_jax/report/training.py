"""What the training stages of a run have left of their metrics."""

from __future__ import annotations

import json
from typing import Any

from etils import epath

_STAGES = ('pretrain', 'sft_no_gaze', 'sft', 'rl')  # Then the arms.


def curves(workdir: epath.Path) -> dict[str, list[dict[str, Any]]]:
  """Metrics of every training stage: the known ones first, then the arms."""
  arms = sorted(
      path.parent.name
      for path in workdir.glob('*/metrics.jsonl')
      if path.parent.name not in _STAGES
  )
  found = {}
  for stage in (*_STAGES, *arms):
    rows = _read_metrics(workdir / stage / 'metrics.jsonl')
    rows += [
        {'step': row['step'], 'validation_accuracy': row['accuracy']}
        for row in _read_metrics(workdir / stage / 'validation.jsonl')
    ]
    found[stage] = sorted(rows, key=lambda row: row['step'])
  return found


def _read_metrics(path: epath.Path) -> list[dict[str, Any]]:
  """The lines of a metrics file; none where the stage has not been run."""
  if not path.exists():
    return []
  rows = []
  for line in path.read_text().split('\n'):
    try:
      rows.append(json.loads(line))
    except json.JSONDecodeError:
      break  # The last line of a run that is still going, or was killed.
  return rows
