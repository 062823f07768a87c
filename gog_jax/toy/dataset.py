"""The world as a TFDS data set: array_record files, no TensorFlow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import os
from typing import Any

from etils import epath
import numpy as np
import tensorflow_datasets as tfds

from gog_jax import interrupt
from gog_jax.config.evaluation import Difficulty
from gog_jax.config.evaluation import World
from gog_jax.errors import UserError
from gog_jax.storage import metrics
from gog_jax.storage.records import Lazy
from gog_jax.storage.tfds_quiet import quiet
from gog_jax.toy import scenes
from gog_jax.toy.knowledge import make_scope
from gog_jax.toy.knowledge import SPLITS
from gog_jax.toy.knowledge import text_of
from gog_jax.toy.knowledge import VERSION
from gog_jax.toy.questions import make_question
from gog_jax.types import Example

QUESTIONS_PER_SCOPE = 16
# Scopes of one world_seed: no two data sets of different seeds share one.
_SCOPES_PER_SEED = 1_000_000
_NO_HOPS = -1


@dataclasses.dataclass(kw_only=True)
class WorldConfig(tfds.core.BuilderConfig):
  """Number and difficulty of the questions by split, and the scopes' seed."""

  sizes: Mapping[str, int]
  difficulties: Mapping[str, Difficulty]
  world_seed: int


class GogWorld(tfds.core.GeneratorBasedBuilder):
  """Writes and reads the embedded world's questions."""

  VERSION = tfds.core.Version(f'{VERSION}.0.0')

  def _info(self) -> tfds.core.DatasetInfo:
    # Boxes are (y1, x1, y2, x2) as shares of the picture, as TFDS has them.
    features = tfds.features.FeaturesDict({
        'id': tfds.features.Text(),
        'image': tfds.features.Image(
            shape=(scenes.SIZE, scenes.SIZE, 3), encoding_format='png'
        ),
        'question': tfds.features.Text(),
        'answers': tfds.features.Sequence(tfds.features.Text()),
        'source': tfds.features.Text(),
        'scope': tfds.features.Text(),
        'search_required': tfds.features.Scalar(dtype=np.bool_),
        'gold_regions': tfds.features.Sequence(tfds.features.BBoxFeature()),
        'hops': tfds.features.Scalar(dtype=np.int32),
    })
    return tfds.core.DatasetInfo(
        builder=self,
        description='Questions about scenes of emblems in an embedded world.',
        features=features,
    )

  def _split_generators(
      self, dl_manager: tfds.download.DownloadManager
  ) -> dict[str, Iterator[tuple[str, dict[str, Any]]]]:
    del dl_manager  # Nothing is downloaded.
    return {split: self._generate_examples(split) for split in SPLITS}

  def _generate_examples(
      self, split: str
  ) -> Iterator[tuple[str, dict[str, Any]]]:
    config = self.builder_config
    assert isinstance(config, WorldConfig)
    first = config.world_seed * _SCOPES_PER_SEED
    size = config.sizes[split]
    with metrics.Progress(split, total=size) as progress:
      for number in range(size):
        interrupt.check()
        n_scopes, index = divmod(number, QUESTIONS_PER_SCOPE)
        scope = make_scope(
            split, first + n_scopes, config.difficulties[split]
        )
        example = make_question(scope, index).example
        yield example.id, _to_record(example)
        progress.advance()


def _to_record(example: Example) -> dict[str, Any]:
  side = scenes.SIZE
  return {
      'id': example.id,
      'image': example.images[0],
      'question': example.question,
      'answers': list(example.answers),
      'source': example.source,
      'scope': example.scope,
      'search_required': bool(example.search_required),
      'gold_regions': [
          tfds.features.BBox(
              ymin=y1 / side, xmin=x1 / side, ymax=y2 / side, xmax=x2 / side
          )
          for x1, y1, x2, y2 in example.gold_regions
      ],
      'hops': _NO_HOPS if example.hops is None else example.hops,
  }


def to_example(record: Mapping[str, Any]) -> Example:
  """Turns a record, as the data source reads it, into an Example.

  Args:
    record: With its image undecoded, i.e. the PNG file's bytes.

  Returns:
    What `make_question` made, byte for byte.
  """
  hops = int(record['hops'])
  return Example(
      id=_text(record['id']),
      images=(bytes(record['image']),),
      question=_text(record['question']),
      answers=tuple(_text(answer) for answer in record['answers']),
      source=_text(record['source']),
      scope=_text(record['scope']),
      search_required=bool(record['search_required']),
      gold_regions=tuple(
          (_pixels(x1), _pixels(y1), _pixels(x2), _pixels(y2))
          for y1, x1, y2, x2 in record['gold_regions']
      ),
      hops=None if hops == _NO_HOPS else hops,
  )


def _pixels(share: Any) -> float:
  """Whole pixels: float32 shares are exact enough to round back."""
  return float(round(float(share) * scenes.SIZE))


def _text(value: bytes | str) -> str:
  return value.decode() if isinstance(value, bytes) else str(value)


class Examples(Lazy[Example]):
  """A split on disk as a random-access sequence of Examples."""

  def __init__(self, records: Sequence[Mapping[str, Any]]):
    """Wraps a TFDS data source with undecoded images."""
    self._records = records

  def __len__(self) -> int:
    return len(self._records)

  def item(self, index: int) -> Example:
    return to_example(self._records[index])


def prepare(data_dir: str | os.PathLike[str], data: World) -> dict[str, int]:
  """Writes the data set, unless it is there already.

  A data set of other sizes or another seed in the same folder is replaced.
  Killed half-way, nothing counts as written.

  Args:
    data_dir: Folder to write below.
    data: The config's section; `hard` is the difficulty of the split `hard`.

  Returns:
    The number of examples by split.
  """
  sizes = {split: getattr(data, f'n_{split}') for split in SPLITS}
  difficulties = dict.fromkeys(SPLITS, data.difficulty) | {'hard': data.hard}
  texts = (text_of(data.difficulty), text_of(data.hard))
  name = '_'.join((f's{data.world_seed}', *map(str, sizes.values()), *texts))
  root = epath.Path(data_dir) / GogWorld.name
  if root.exists():
    # Of other sizes, or left behind by a run that was killed.
    for folder in [*root.iterdir(), *(root / name).glob('incomplete.*')]:
      if folder.name != name and folder.is_dir():
        folder.rmtree()
  with quiet():
    builder = GogWorld(
        data_dir=data_dir,
        config=WorldConfig(
            name=name,
            sizes=sizes,
            difficulties=difficulties,
            world_seed=data.world_seed,
        ),
        file_format='array_record',
    )
    builder.download_and_prepare()
  return {split: builder.info.splits[split].num_examples for split in SPLITS}


def load(data_dir: str | os.PathLike[str], split: str) -> Examples:
  """Opens a split for reading.

  Args:
    data_dir: As given to `prepare`.
    split: 'train', 'validation', 'test' or 'hard'.

  Returns:
    Its examples; reading is random access and decodes no image.

  Raises:
    UserError: When there is no such data set.
  """
  root = epath.Path(data_dir) / GogWorld.name
  found = sorted(root.glob(f'*/{GogWorld.VERSION}')) if root.exists() else []
  if len(found) != 1:
    raise UserError(
        f'{root} holds {len(found)} data sets of world version {VERSION}, '
        f'one is needed: delete {data_dir}, it is made anew'
    )
  builder = tfds.builder_from_directory(found[0])
  if split not in builder.info.splits:
    raise UserError(f'{found[0]} has no split {split!r}')
  records = builder.as_data_source(
      split=split,  # pyright: ignore[reportCallIssue] (a decorator hides it)
      decoders={'image': tfds.decode.SkipDecoding()},
  )
  return Examples(records)


def questions(split: str, workdir: epath.PathLike) -> Examples:
  """The world as a question source: a split of the data set in a workdir.

  Raises:
    UserError: The stage `data` has not made it.
  """
  return load(epath.Path(workdir) / 'data', split)
