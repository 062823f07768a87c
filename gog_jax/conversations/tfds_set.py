"""A set of trajectories as a TFDS data set: array_record, no TensorFlow.

    FOLDER/NAME/1.0.0/NAME-SPLIT.array_record-...   the records, in order
    FOLDER/NAME/1.0.0/dataset_info.json, features.json
    FOLDER/NAME/1.0.0/README.md                     the data card

Each record is a question, one trajectory of it, and facts about them. Images
stand in it once, as the files' bytes; token ids, masks and logprobs are typed
arrays; all else is JSON, escaped to ASCII, as in trajectories.jsonl. The set is
written elsewhere and moved into place whole: killed half-way, nothing counts
as written. Anyone with TFDS can read it, with TensorFlow or without.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import contextlib
from typing import Any

from etils import epath
import tensorflow_datasets as tfds
from tensorflow_datasets.core import example_serializer

from gog_jax import interrupt
from gog_jax.conversations import record as record_lib
from gog_jax.conversations.record import Record
from gog_jax.errors import UserError
from gog_jax.storage import files
from gog_jax.storage.records import Lazy
from gog_jax.storage.tfds_quiet import quiet
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
  """Writes a set whole, replacing one of that name.

  The same records give the same files, byte for byte.

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
  target = epath.Path(folder) / name / VERSION
  partial = epath.Path(folder) / f'.{name}.partial'
  with files.writable(target, 'choose a folder on a local disk'):
    if partial.exists():  # Of a run that was killed.
      partial.rmtree()
    partial.mkdir(parents=True)
    with quiet(), _sorted_fields():
      _Builder(
          name=name,
          version=VERSION,
          data_dir=partial,
          features=record_lib.features(),
          split_datasets={'train': _rows(records)},
          description=description,
          file_format='array_record',
          disable_shuffling=True,  # Grain shuffles, each epoch anew.
      ).download_and_prepare()
    made = partial / name / VERSION
    (made / 'README.md').write_text((card or description).rstrip() + '\n')
    if target.parent.exists():
      target.parent.rmtree()
    made.parent.rename(target.parent)
    partial.rmtree()
  return target


class _Builder(tfds.dataset_builders.AdhocBuilder, skip_registration=True):
  """Takes rows without asking TensorFlow whether they are a data set of its."""

  def _split_generators(self, dl_manager: Any) -> Any:
    del dl_manager  # Nothing is downloaded.
    return self._split_datasets


def _rows(records: Sequence[Record]) -> Iterator[tuple[int, dict[str, Any]]]:
  for number in range(len(records)):
    interrupt.check()
    yield number, record_lib.to_row(records[number])


@contextlib.contextmanager
def _sorted_fields() -> Iterator[None]:
  """Has TFDS write the fields of a record by name.

  Else they come in an order that every process has of its own, and the same
  records would not give the same files.
  """
  kind = example_serializer.ExampleSerializer

  def serialize_example(self, example):
    proto = self.get_tf_example(example)
    return proto.SerializeToString(deterministic=True)

  theirs = kind.serialize_example
  setattr(kind, 'serialize_example', serialize_example)  # noqa: B010
  try:
    yield
  finally:
    setattr(kind, 'serialize_example', theirs)  # noqa: B010


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
  with quiet():
    builder = tfds.builder_from_directory(path)
  if split not in builder.info.splits:
    raise UserError(
        f'{path} has no split {split!r}, only '
        + ', '.join(sorted(builder.info.splits))
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
    with quiet():
      self._source: Any = tfds.builder_from_directory(path).as_data_source(
          split=split,  # pyright: ignore[reportCallIssue] (a decorator hides it)
          decoders={'images': _AsBytes()},
      )

  def __reduce__(self):
    return Split, (self._path, self._split)

  def __len__(self) -> int:
    return len(self._source)

  def item(self, index: int) -> Record:
    try:
      return record_lib.from_row(self._source[index])
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


class _AsBytes(tfds.decode.SkipDecoding):
  """Leaves images encoded; TFDS's own cannot, in a sequence, in NumPy."""

  def decode_batch_example_np(self, serialized_example: Any) -> Any:
    return serialized_example
