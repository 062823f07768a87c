"""TFDS data sets as files: array_record, no TensorFlow.

    FOLDER/NAME/VERSION/NAME-SPLIT.array_record-...
    FOLDER/NAME/VERSION/dataset_info.json, features.json
    FOLDER/NAME/VERSION/README.md                     the data card

Anyone with TFDS can read them, with TensorFlow or without.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
import contextlib
import io
from typing import Any, cast

from absl import logging
from etils import epath
import tensorflow_datasets as tfds
from tensorflow_datasets.core import example_serializer

from gog_jax import interrupt
from gog_jax.errors import UserError
from gog_jax.storage import files

# Each with its key, unique in its split.
Rows = Generator[tuple[int | str, Mapping[str, Any]], None, None]


def write(
    folder: epath.PathLike,
    splits: Mapping[str, Rows],
    *,
    name: str,
    version: str,
    features: tfds.features.FeaturesDict,
    description: str,
    card: str = '',
    shuffle: bool = False,
) -> epath.Path:
  """Writes a data set, replacing one of that name.

  It is written elsewhere and moved into place whole: killed half-way, nothing
  counts as written. The same rows give the same files, byte for byte.

  Args:
    folder: On a local disk; other data sets may lie beside it.
    splits: Each split's rows; closed at the end.
    name: Lower case, digits and `_`.
    version: Of the rows' layout and content, e.g. '1.0.0'.
    features: Of a row.
    description: What the data set is, in a sentence or two.
    card: Text of its README.md, in place of the description.
    shuffle: Whether to order rows by their keys' hashes, not as they come.

  Returns:
    The folder that holds the files.

  Raises:
    UserError: The folder cannot be written.
  """
  target = epath.Path(folder) / name / version
  partial = epath.Path(folder) / f'.{name}.partial'
  with files.writable(target, 'choose a folder on a local disk'):
    if partial.exists():  # Of a run that was killed.
      partial.rmtree()
    partial.mkdir(parents=True)
    with _quiet(), _sorted_fields():
      _Builder(
          name=name,
          version=version,
          data_dir=partial,
          features=features,
          split_datasets=splits,
          description=description,
          file_format='array_record',
          disable_shuffling=not shuffle,
      ).download_and_prepare()
    made = partial / name / version
    (made / 'README.md').write_text((card or description).rstrip() + '\n')
    if target.parent.exists():
      target.parent.rmtree()
    made.parent.rename(target.parent)
    partial.rmtree()
  return target


class _Builder(tfds.dataset_builders.AdhocBuilder, skip_registration=True):
  """Takes rows without asking TensorFlow whether they are one of its own."""

  def _split_generators(self, dl_manager: Any) -> Any:
    del dl_manager  # Nothing is downloaded.
    return {
        split: _interruptible(cast(Rows, rows))
        for split, rows in self._split_datasets.items()
    }


def _interruptible(rows: Rows) -> Rows:
  with contextlib.closing(rows):  # Their progress bar, if any, ends its line.
    for row in rows:
      interrupt.check()
      yield row


@contextlib.contextmanager
def _sorted_fields() -> Iterator[None]:
  """Has TFDS write the fields of a row by name.

  Otherwise their order differs from process to process, and the same rows
  would not give the same files.
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


def rows(path: epath.Path, split: str) -> Any:
  """Opens a split for random access; its `images` stay encoded.

  Args:
    path: As `write` returned it.
    split: Its name.

  Raises:
    UserError: There is no such split.
  """
  with _quiet():
    builder = tfds.builder_from_directory(path)
    if split not in builder.info.splits:
      raise UserError(
          f'{path} has no split {split!r}, only '
          + ', '.join(sorted(builder.info.splits))
      )
    return builder.as_data_source(
        split=split,  # pyright: ignore[reportCallIssue] (a decorator hides it)
        decoders={'images': _AsBytes()},
    )


class _AsBytes(tfds.decode.SkipDecoding):
  """Leaves images encoded; TFDS's own cannot, in a sequence, in NumPy."""

  def decode_batch_example_np(self, serialized_example: Any) -> Any:
    return serialized_example


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """Hides TFDS's own progress and its talk of downloads: there are none."""
  verbosity = logging.get_verbosity()
  logging.set_verbosity(logging.ERROR)
  tfds.disable_progress_bar()
  try:
    with contextlib.redirect_stdout(io.StringIO()):
      yield
  finally:
    tfds.enable_progress_bar()
    logging.set_verbosity(verbosity)
