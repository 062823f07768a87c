"""A set of trajectories as a TFDS data set, see storage/tfds_files.py.

Each record is a question, one trajectory of it, and facts about them. Images
stand in it once, as the files' bytes; token ids, masks and logprobs are typed
arrays; all else is JSON, escaped to ASCII, as in trajectories.jsonl.
"""

from __future__ import annotations

from collections.abc import Sequence

from etils import epath

from gog_jax.conversations import record as record_lib
from gog_jax.conversations.record import Record
from gog_jax.errors import UserError
from gog_jax.storage import tfds_files
from gog_jax.storage.records import Lazy
from gog_jax.types import Trajectory

VERSION = '1.0.0'  # Of how a record is laid out.


def write(
    folder: epath.PathLike,
    records: Sequence[Record],
    *,
    name: str = 'gog_instruct',
    description: str,
    card: str = '',
) -> epath.Path:
  """Writes a set whole, replacing one of that name; see `tfds_files.write`.

  Args:
    folder: On a local disk; other sets may lie beside it.
    records: Read one at a time; their order is kept.
    name: Lower case, digits and `_`.
    description: What the set is, in a sentence or two.
    card: Text of the data card, markdown; empty is `description`.

  Returns:
    The folder that holds the set.

  Raises:
    UserError: The folder cannot be written.
  """
  numbers = range(len(records))
  return tfds_files.write(
      folder,
      # Grain shuffles, each epoch anew.
      {'train': ((n, record_lib.to_row(records[n])) for n in numbers)},
      name=name,
      version=VERSION,
      features=record_lib.features(),
      description=description,
      card=card,
  )


def load(folder: epath.PathLike, split: str = 'train') -> Split:
  """Opens a split for reading, by random access.

  Args:
    folder: As given to `write`, or the set's own.
    split: Its name.

  Raises:
    UserError: There is no such set or split, or another version wrote it.
  """
  path = find(folder)
  if path.name != VERSION:
    raise UserError(
        f'{path} has layout {path.name}, this gog_jax reads {VERSION}; make '
        'the set again'
    )
  return Split(path, split)


def find(folder: epath.PathLike) -> epath.Path:
  """The folder of the one set in `folder`, or below it.

  Raises:
    UserError: There is none, or several.
  """
  folder = epath.Path(folder)
  found = [
      path.parent
      for pattern in ('.', '*', '*/*')
      for path in sorted(folder.glob(f'{pattern}/features.json'))
      if 'trajectory' in path.read_text()
  ]
  if not found:
    raise UserError(
        f'{folder} holds no training data: name a .json or .jsonl file of '
        'conversations, a folder with trajectories.jsonl, or a TFDS set of '
        'trajectories'
    )
  if len(found) > 1:
    raise UserError(
        f'{folder} holds {len(found)} sets of trajectories, one is needed: '
        f'name one of {", ".join(map(str, found))}'
    )
  return found[0]


class Split(Lazy[Record]):
  """A split on disk.

  May be pickled, for Grain's worker processes: it is opened where it is read.
  """

  def __init__(self, path: epath.Path, split: str):
    """Opens `split` of the set in `path`."""
    self._path = path
    self._split = split
    self._rows = tfds_files.rows(path, split)

  def __reduce__(self):
    return Split, (self._path, self._split)

  def __len__(self) -> int:
    return len(self._rows)

  def item(self, index: int) -> Record:
    try:
      return record_lib.from_row(self._rows[index])
    # What array_record raises, and what a row that decodes to nonsense does.
    except (RuntimeError, ValueError, KeyError, TypeError, IndexError) as error:
      reason = (str(error) or repr(error)).splitlines()[0]
      raise UserError(
          f'{self._path}, split {self._split}, record {index} is damaged '
          f'({reason}); make the set again'
      ) from error


class Trajectories(Lazy[Trajectory]):
  """The trajectories of records, read as they are asked for."""

  def __init__(self, records: Sequence[Record]):
    self._records = records

  def __len__(self) -> int:
    return len(self._records)

  def item(self, index: int) -> Trajectory:
    return self._records[index].trajectory
