"""When a stage is complete, and what it was made from.

Each stage owns one folder of the workdir. Its `manifest.json` is written twice:
when the stage starts (so that a restart with another config is noticed) and
when it is done (so that the next stage may trust it). The second time it gets a
birthmark, by which a later stage knows that it was built on this very output
and not on one that was made again since.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
import contextlib
import dataclasses
import hashlib
import json
from typing import Any
import uuid

from etils import epath
from flax import traverse_util

import gog_jax
from gog_jax.errors import UserError
from gog_jax.storage import files

# Names, for messages, of inputs that are not stages.
_INPUTS = {
    'model_folder': 'model folder',
    'maker': 'version of the world',
    'searched': 'search backend',
    'judge': 'judge',
    'reward matcher': 'way to compare answers',
    'start_from': 'base to start from',
    'init': 'folder in config.rl.init',
    'sft_data': 'training data',
    'questions': 'set of questions',
    'leaks': 'config.questions.leaks',
    'told': 'description of the tools',
}


@dataclasses.dataclass(frozen=True)
class Manifest:
  """Identity of a stage's output.

  Attributes:
    stage: Its name, e.g. 'sft'.
    config: The config values that its output depends on, nested.
    inputs: Fingerprints of what it read, by name.
  """

  stage: str
  config: Mapping[str, Any]
  inputs: Mapping[str, str]

  def fingerprint(self) -> str:
    """16 hex digits of the SHA-256 of everything above."""
    text = files.dumps(dataclasses.asdict(self))
    return hashlib.sha256(text.encode()).hexdigest()[:16]

  def but_as(
      self, saved: Mapping[str, Any], is_free: Callable[[str], bool]
  ) -> Manifest:
    """With the values, of what may differ, that another one has.

    Args:
      saved: As `read` gives it.
      is_free: Whether that may differ: a name in `config` or `inputs`.
    """

    def mixed(now: Mapping[str, Any], then: Mapping[str, Any]):
      kept = {key: value for key, value in now.items() if not is_free(key)}
      return kept | {k: value for k, value in then.items() if is_free(k)}

    return dataclasses.replace(
        self,
        config=mixed(self.config, saved['config']),
        inputs=mixed(self.inputs, saved['inputs']),
    )

  def is_complete(self, folder: epath.PathLike) -> bool:
    """Whether `folder` holds this very stage, complete.

    Raises:
      UserError: The folder was made with another config or other inputs; the
        message names the fields that differ. Or the manifest is damaged.
    """
    saved = read(folder)
    if not saved:
      return False
    wanted = json.loads(files.dumps(dataclasses.asdict(self)))
    different = list(
        _differences(wanted, {key: saved.get(key) for key in wanted})
    )
    if different:
      # What was trained, and is evaluated, is in this workdir.
      advice = 'To evaluate with these, move away or delete'
      if not self.stage.startswith('eval'):
        advice = 'Use another --workdir or delete'
      raise UserError(
          f'{folder} was made with other settings: '
          + '; '.join(different[:4])
          + (f' and {len(different) - 4} more' if len(different) > 4 else '')
          + f'. {advice} {folder}'
      )
    return saved.get('complete', False)

  @contextlib.contextmanager
  def taken_back(self, folder: epath.PathLike) -> Iterator[None]:
    """Withdraws the manifest if the stage is refused before it makes anything.

    Otherwise the user's correction would count as a changed input.
    """
    try:
      yield
    except UserError:
      left = list(epath.Path(folder).iterdir())
      if [path.name for path in left] == ['manifest.json']:
        left[0].unlink()
      raise

  def write(self, folder: epath.PathLike, *, complete: bool, **facts: Any):
    """Records the stage as started or as complete; `facts` are for people."""
    files.write_json(
        epath.Path(folder) / 'manifest.json',
        {
            'complete': complete,
            'gog_jax': gog_jax.__version__,
            'fingerprint': self.fingerprint(),
            'birthmark': uuid.uuid4().hex[:16] if complete else None,
            **dataclasses.asdict(self),
            **facts,
        },
        sort_keys=True,
    )


def birthmark(folder: epath.PathLike) -> str | None:
  """The birthmark of the complete stage in `folder`; None without one."""
  return read(folder).get('birthmark')


def read(folder: epath.PathLike) -> dict[str, Any]:
  """The manifest in a folder; empty without one."""
  path = epath.Path(folder) / 'manifest.json'
  if not path.exists():
    return {}
  return files.read_json(
      path, advice=f'delete {path.parent} to run that stage again'
  )


def _differences(
    wanted: Mapping[str, Any], saved: Mapping[str, Any]
) -> Iterator[str]:
  now, then = (
      traverse_util.flatten_dict(fields, sep='.') for fields in (wanted, saved)
  )
  for name in sorted(now.keys() | then.keys()):
    if now.get(name) == then.get(name):
      continue
    section, _, field = name.partition('.')
    if section == 'inputs':  # Fingerprints tell a reader nothing.
      what = _INPUTS.get(field, field)
      yield f'it was made from another {what} than there is now'
    else:
      yield f'{name} is {then.get(name)!r}, now {now.get(name)!r}'
