"""Records as a TFDS data set, see storage/tfds_files.py.

A row holds a question, one trajectory of it, and facts about them. Image files
are stored once a row; token ids, masks and logprobs are typed arrays; the rest
is JSON, escaped to ASCII, as in trajectories.jsonl.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import functools
import json
from typing import Any

from etils import epath
import numpy as np
import tensorflow_datasets as tfds

from gog_jax.conversations.record import Record
from gog_jax.errors import first_line
from gog_jax.errors import UserError
from gog_jax.storage import tfds_files
from gog_jax.storage import trajectories as trajectories_lib
from gog_jax.storage import typed
from gog_jax.storage.records import Mapped
from gog_jax.types import Example
from gog_jax.types import Trajectory

VERSION = '1.0.0'  # Of the layout of rows.

# The parts of a trajectory that are no JSON: thousands of numbers.
_ARRAYS = {
    'token_ids': np.int32,
    'loss_mask': np.int8,
    'sampler_logprobs': np.float32,
}


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
      {'train': ((n, _to_row(records[n])) for n in numbers)},
      name=name,
      version=VERSION,
      features=_features(),
      description=description,
      card=card,
  )


def load(folder: epath.PathLike, split: str = 'train') -> Mapped[Record]:
  """Opens a split for reading, by random access.

  Grain's workers get it pickled, and open it again.

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
  rows = tfds_files.rows(path, split)
  return Mapped(range(len(rows)), functools.partial(_read, rows, path))


def find(folder: epath.PathLike) -> epath.Path:
  """The folder of the only set in `folder` or below.

  Raises:
    UserError: There is none, or there are several.
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


def _read(rows: Sequence[Any], path: epath.Path, index: int) -> Record:
  try:
    return _from_row(rows[index])
  # What array_record raises, and what a row that decodes to nonsense does.
  except (RuntimeError, ValueError, KeyError, TypeError, IndexError) as error:
    raise UserError(
        f'{path}, record {index} is damaged ({first_line(error)}); make the '
        'set again'
    ) from error


def _features() -> tfds.features.FeaturesDict:
  """The columns of a set."""
  text = tfds.features.Text
  return tfds.features.FeaturesDict({
      'id': text(doc='Of the example.'),
      'question': text(),
      'answer': text(doc='That the trajectory gives; empty for none.'),
      'images': tfds.features.Sequence(tfds.features.Image()),
      'example': text(doc='JSON; images are indices of `images`.'),
      'trajectory': text(doc='JSON without the arrays that follow.'),
      'facts': text(doc='JSON.'),
      **{
          key: tfds.features.Tensor(shape=(None,), dtype=dtype)
          for key, dtype in _ARRAYS.items()
      },
  })


def _to_row(record: Record) -> dict[str, Any]:
  """A record as a row with the columns of `_features`."""
  images: dict[bytes, str] = {}  # To the index, as text: `store` says so.

  def store(data: bytes) -> str:
    return images.setdefault(data, str(len(images)))

  example = trajectories_lib.plain(record.example, store)
  trajectory = trajectories_lib.plain(record.trajectory, store)
  arrays = {
      key: np.asarray(trajectory.pop(key), dtype)
      for key, dtype in _ARRAYS.items()
  }
  return {
      'id': _text(record.example.id),
      'question': _text(record.example.question),
      'answer': _text(record.trajectory.answer or ''),
      'example': json.dumps(example),
      'trajectory': json.dumps(trajectory),
      'facts': json.dumps(dict(record.facts)),
      'images': list(images),
      **arrays,
  }


def _from_row(row: Mapping[str, Any]) -> Record:
  """The inverse of `_to_row`; the row's images are encoded.

  Raises:
    KeyError, IndexError, TypeError, ValueError: It is damaged.
  """
  images = [bytes(data) for data in row['images']]

  def load_image(index: str) -> bytes:
    return images[int(index)]

  trajectory = json.loads(row['trajectory'])
  arrays = {key: row[key] for key in _ARRAYS}
  return Record(
      example=typed.read(
          Example, json.loads(row['example']), 'example', load=load_image
      ),
      trajectory=typed.read(
          Trajectory, {**trajectory, **arrays}, 'trajectory', load=load_image
      ),
      facts=json.loads(row['facts']),
  )


def _text(text: str) -> str:
  """Text for people; lone surrogates are kept in the JSON only."""
  return text.encode('utf-8', 'replace').decode('utf-8')
