"""The world's questions as a TFDS data set, see storage/tfds_files.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import json
from typing import Any

from etils import epath
import tensorflow_datasets as tfds

from gog_jax.config.evaluation import DataConfig
from gog_jax.errors import UserError
from gog_jax.storage import metrics
from gog_jax.storage import tfds_files
from gog_jax.storage import trajectories
from gog_jax.storage import typed
from gog_jax.storage.records import Mapped
from gog_jax.toy.knowledge import make_scope
from gog_jax.toy.knowledge import SPLITS
from gog_jax.toy.knowledge import VERSION
from gog_jax.toy.questions import make_question
from gog_jax.types import Example

QUESTIONS_PER_SCOPE = 16
_NAME = 'gog_world'
_VERSION = f'{VERSION}.0.0'
# Scopes per world_seed: data sets of different seeds share none.
_SCOPES_PER_SEED = 1_000_000


def prepare(data_dir: epath.PathLike, data: DataConfig) -> dict[str, int]:
  """Writes the data set, replacing what is there.

  Args:
    data_dir: Folder to write below.
    data: The config's section; `hard` is the difficulty of the split `hard`.

  Returns:
    The number of examples by split.
  """
  sizes = {split: getattr(data, f'n_{split}') for split in SPLITS}
  text = tfds.features.Text
  tfds_files.write(
      data_dir,
      {split: _rows(split, size, data) for split, size in sizes.items()},
      name=_NAME,
      version=_VERSION,
      features=tfds.features.FeaturesDict({
          'id': text(),
          'question': text(),
          'images': tfds.features.Sequence(tfds.features.Image()),
          'example': text(doc='JSON; images are indices of `images`.'),
      }),
      description='Questions about scenes of emblems in an embedded world.',
      shuffle=True,
  )
  return sizes


def _rows(split: str, size: int, data: DataConfig) -> tfds_files.Rows:
  difficulty = data.hard if split == 'hard' else data.difficulty
  first = data.world_seed * _SCOPES_PER_SEED
  with metrics.Progress(split, total=size) as progress:
    for number in range(size):
      n_scopes, index = divmod(number, QUESTIONS_PER_SCOPE)
      scope = make_scope(split, first + n_scopes, difficulty)
      example = make_question(scope, index).example
      yield (
          example.id,
          {
              'id': example.id,
              'question': example.question,
              'images': list(example.images),
              'example': json.dumps(trajectories.plain(example, lambda _: '0')),
          },
      )
      progress.advance()


def load(data_dir: epath.PathLike, split: str) -> Sequence[Example]:
  """Opens a split; its examples are read on access, no image is decoded.

  Args:
    data_dir: As given to `prepare`.
    split: 'train', 'validation', 'test' or 'hard'.

  Raises:
    UserError: When there is no such data set.
  """
  path = epath.Path(data_dir) / _NAME / _VERSION
  if not path.exists():
    raise UserError(
        f'{data_dir} holds no data set of world version {VERSION}: delete it, '
        'it is made anew'
    )
  return Mapped(tfds_files.rows(path, split), _example_of)


def _example_of(row: Mapping[str, Any]) -> Example:
  return typed.read(
      Example,
      json.loads(row['example']),
      load=lambda image: bytes(row['images'][int(image)]),
  )


def questions(split: str, workdir: epath.PathLike) -> Sequence[Example]:
  """The world as a question source: a split of the data set in a workdir.

  Raises:
    UserError: The stage `data` has not made it.
  """
  return load(epath.Path(workdir) / 'data', split)
