"""A question with a trajectory of it, and how TFDS holds one."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import json
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from gog_jax.storage import trajectories as trajectories_lib
from gog_jax.storage import typed
from gog_jax.types import Example
from gog_jax.types import Trajectory

# Of a trajectory, what is no JSON: numbers by the thousand.
ARRAYS = {
    'token_ids': np.int32,
    'loss_mask': np.int8,
    'sampler_logprobs': np.float32,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
  """A question, what was done about it, and what else is known of both.

  Attributes:
    example: The question.
    trajectory: Its trajectory.
    facts: Plain values (text, numbers, None, lists and mappings of them), e.g.
      {'kind': 'no_search', 'teacher': 'expert'}.
  """

  example: Example
  trajectory: Trajectory
  facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def features() -> tfds.features.FeaturesDict:
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
          for key, dtype in ARRAYS.items()
      },
  })


def to_row(record: Record) -> dict[str, Any]:
  """Lays a record out as `features` has it."""
  images: dict[bytes, str] = {}  # To the index, as text: `store` says so.

  def store(data: bytes) -> str:
    return images.setdefault(data, str(len(images)))

  example = trajectories_lib.plain(record.example, store)
  trajectory = trajectories_lib.plain(
      dataclasses.replace(
          record.trajectory, **{key: np.zeros(0) for key in ARRAYS}
      ),
      store,
  )
  for key in ARRAYS:
    del trajectory[key]
  return {
      'id': _text(record.example.id),
      'question': _text(record.example.question),
      'answer': _text(record.trajectory.answer or ''),
      'example': json.dumps(example),
      'trajectory': json.dumps(trajectory),
      'facts': json.dumps(dict(record.facts)),
      'images': list(images),
      **{
          key: np.asarray(getattr(record.trajectory, key), dtype)
          for key, dtype in ARRAYS.items()
      },
  }


def from_row(row: Mapping[str, Any]) -> Record:
  """Returns what `to_row` was given, from a row whose images are encoded.

  Raises:
    KeyError, IndexError, TypeError, ValueError: It is damaged.
  """
  images = [bytes(data) for data in row['images']]

  def load_image(index: str) -> bytes:
    return images[int(index)]

  trajectory = json.loads(row['trajectory'])
  arrays = {key: row[key] for key in ARRAYS}
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
  """For people: what UTF-8 cannot carry is only in the JSON."""
  return text.encode('utf-8', 'replace').decode('utf-8')
