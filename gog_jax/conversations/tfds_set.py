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

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import hashlib
from typing import Any, overload

from etils import epath
import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import example_serializer

from gog_jax import interrupt
from gog_jax.conversations import record as record_lib
from gog_jax.conversations.record import Record
from gog_jax.errors import UserError
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
    citation: str = '',
    splits: Mapping[str, float] | None = None,
) -> epath.Path:
  """Writes a set whole, replacing one of that name.

  The same records give the same files, byte for byte.

  Args:
    folder: On a local disk; other sets may lie beside it.
    records: Read one at a time, twice where there are splits; their order is
      kept within a split.
    name: Lower case, digits and `_`.
    description: What the set is, in a sentence or two.
    card: Text of the data card, markdown; empty is `description`.
    citation: BibTeX, if there is any.
    splits: Share of each, which add up to 1; {'train': 1.0} if not given. All
      records of an example fall in one split, decided by its id alone, so that
      adding some never moves others.

  Returns:
    The folder that holds the set.

  Raises:
    UserError: The folder cannot be written, or a split gets no record.
  """
  target = epath.Path(folder) / name / VERSION
  numbers = _split(records, splits or {'train': 1.0})
  partial = epath.Path(folder) / f'.{name}.partial'
  try:
    if partial.exists():  # Of a run that was killed.
      partial.rmtree()
    partial.mkdir(parents=True)
    with quiet(), _sorted_fields():
      builder = _Builder(
          name=name,
          data_dir=partial,
          records=records,
          numbers=numbers,
          description=description,
          citation=citation,
      )
      builder.download_and_prepare()
    made = partial / name / VERSION
    (made / 'README.md').write_text((card or description).rstrip() + '\n')
    if target.parent.exists():
      target.parent.rmtree()
    made.parent.rename(target.parent)
    partial.rmtree()
  except OSError as error:
    raise UserError(
        f'cannot write {target}: {error.strerror or error}; choose a folder on '
        'a local disk that you can write'
    ) from error
  return target


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


def load(folder: epath.PathLike, split: str = 'train') -> Records:
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
  return Records(path, split)


def find(folder: epath.PathLike) -> epath.Path:
  """The folder of the one set in `folder`, or below it.

  Raises:
    UserError: There is none, or several.
  """
  folder = epath.Path(folder)
  found = [
      path.parent
      for pattern in ('.', '*', '*/*')
      for path in sorted(folder.glob(f'{pattern}/dataset_info.json'))
      if 'trajectory' in _features(path.parent)
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


class Records(Sequence[Record]):
  """A split on disk as a random-access sequence of records.

  May be pickled, for Grain's worker processes: it is opened where it is read.
  """

  def __init__(self, path: epath.Path, split: str):
    """Opens `split` of the set in `path`."""
    self._path = path
    self._split = split
    self._source = _open(path, split)

  def __reduce__(self):
    return Records, (self._path, self._split)

  def __len__(self) -> int:
    return len(self._source)

  @overload
  def __getitem__(self, index: int) -> Record:
    ...

  @overload
  def __getitem__(self, index: slice) -> Sequence[Record]:
    ...

  def __getitem__(self, index: int | slice) -> Record | Sequence[Record]:
    """Reads a record, or several.

    Raises:
      UserError: It is damaged; names it.
    """
    if isinstance(index, slice):
      return [self[i] for i in range(*index.indices(len(self)))]
    if not -len(self) <= index < len(self):
      raise IndexError(f'record {index} of {len(self)}')
    index %= len(self)
    try:
      return record_lib.from_row(self._source[index])
    # What array_record raises, and what a row that decodes to nonsense does.
    except (RuntimeError, ValueError, KeyError, TypeError, IndexError) as error:
      reason = (str(error) or repr(error)).splitlines()[0]
      raise UserError(
          f'{self._path}, split {self._split}, record {index} is damaged '
          f'({reason}); make the set again'
      ) from error


class Trajectories(Sequence[Trajectory]):
  """The trajectories of records, read as they are asked for."""

  def __init__(self, records: Sequence[Record]):
    self._records = records

  def __len__(self) -> int:
    return len(self._records)

  @overload
  def __getitem__(self, index: int) -> Trajectory:
    ...

  @overload
  def __getitem__(self, index: slice) -> Sequence[Trajectory]:
    ...

  def __getitem__(self, index: Any) -> Any:
    if isinstance(index, slice):
      return Trajectories(self._records[index])
    return self._records[index].trajectory


class _Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """Writes records; nothing but this module knows it, reading needs none."""

  VERSION = tfds.core.Version(VERSION)

  def __init__(
      self,
      *,
      name: str,
      data_dir: epath.Path,
      records: Sequence[Record],
      numbers: Mapping[str, Sequence[int]],
      description: str,
      citation: str,
  ):
    self.name = name  # pyright: ignore[reportAttributeAccessIssue]
    self._records = records
    self._numbers = numbers
    self._description = description
    self._citation = citation
    super().__init__(data_dir=data_dir, file_format='array_record')

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
        builder=self,
        description=self._description,
        citation=self._citation or None,
        features=record_lib.features(),
        disable_shuffling=True,  # Grain shuffles, each epoch anew.
    )

  def _split_generators(
      self, dl_manager: tfds.download.DownloadManager
  ) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
    del dl_manager  # Nothing is downloaded.
    return {
        split: self._generate_examples(numbers)
        for split, numbers in self._numbers.items()
    }

  def _generate_examples(
      self, numbers: Sequence[int]
  ) -> Iterator[tuple[int, dict[str, Any]]]:
    for key, number in enumerate(numbers):
      interrupt.check()
      yield key, record_lib.to_row(self._records[number])


class _AsBytes(tfds.decode.SkipDecoding):
  """Leaves images encoded; TFDS's own cannot, in a sequence, in NumPy."""

  def decode_batch_example_np(self, serialized_example: Any) -> Any:
    return serialized_example


def _open(path: epath.Path, split: str) -> Any:
  with quiet():
    return tfds.builder_from_directory(path).as_data_source(
        split=split,  # pyright: ignore[reportCallIssue] (a decorator hides it)
        decoders={'images': _AsBytes()},
    )


def _features(folder: epath.Path) -> str:
  path = folder / 'features.json'
  return path.read_text() if path.exists() else ''


def _split(
    records: Sequence[Record], shares: Mapping[str, float]
) -> dict[str, list[int]]:
  """Indices of the records of each split, in order."""
  if abs(sum(shares.values()) - 1) > 1e-6 or min(shares.values()) <= 0:
    raise UserError(
        f'the shares of splits {dict(shares)} are not above 0 or do not add up '
        'to 1'
    )
  if len(shares) == 1 and len(records):  # No id need be looked at.
    return {split: list(range(len(records))) for split in shares}
  ends = np.cumsum(list(shares.values()))
  ends[-1] = 1.0
  found: dict[str, list[int]] = {split: [] for split in shares}
  for index in range(len(records)):
    key = records[index].example.id.encode('utf-8', 'surrogatepass')
    drawn = int.from_bytes(hashlib.sha256(key).digest()[:4]) / 2**32
    found[list(shares)[int(np.searchsorted(ends, drawn, 'right'))]].append(
        index
    )
  if empty := [split for split, numbers in found.items() if not numbers]:
    raise UserError(
        f'split {empty[0]} gets none of {len(records)} records; give it a '
        'larger share or make more'
    )
  return found
