"""The report's numbers where training's curves are looked at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath

from gog_jax.storage import trackers


def show(config: Any, folder: epath.Path, summary: Mapping[str, Any]) -> None:
  """Writes every policy's numbers as event files and, if asked for, to W&B.

  A report is made anew from whatever is there, and so are these: at step 0 of
  FOLDER/events/POLICY, and as the summary of a run at W&B.

  Args:
    config: The run's.
    folder: The report's.
    summary: As in summary.json.

  Raises:
    UserError: W&B did not start.
  """
  found = {one['policy']: dict(_flat(one)) for one in summary['details']}
  if '://' not in str(folder):
    for policy, values in found.items():
      events = folder / 'events' / policy
      if events.exists():
        events.rmtree()
      writer = trackers.EventFiles(events, resume_step=-1)
      writer.write({'step': 0, **values})
      writer.close()
  if config.log.wandb:
    run = trackers.WandbRun(config, folder)
    run.summarise({
        f'{policy}/{name}': value
        for policy, values in found.items()
        for name, value in values.items()
    })
    run.close()


def _flat(
    values: Mapping[str, Any], prefix: str = ''
) -> Iterator[tuple[str, float]]:
  """Numbers at any depth, 'cost/price/total'; neither lists nor names."""
  for name, value in values.items():
    if isinstance(value, Mapping):
      yield from _flat(value, f'{prefix}{name}/')
    elif isinstance(value, (int, float)):
      yield prefix + name, value
