"""Reads training data of any format."""

from __future__ import annotations

from collections.abc import Callable
import hashlib

from etils import epath

from gog_jax.conversations import json_files
from gog_jax.conversations import tfds_set
from gog_jax.conversations.decode import decode
from gog_jax.conversations.messages import Conversation
from gog_jax.conversations.record import Record
from gog_jax.errors import UserError
from gog_jax.run import Run
from gog_jax.storage import trajectories as trajectories_lib
from gog_jax.storage.records import Drop
from gog_jax.storage.records import Loaded
from gog_jax.storage.records import Mapped
from gog_jax.storage.records import sift
from gog_jax.storage.records import Unusable
from gog_jax.types import Example
from gog_jax.types import Trajectory

# The files of a folder of trajectories.
TRAJECTORIES, EXAMPLES = 'trajectories.jsonl', 'examples.jsonl'


def kind_of(path: epath.PathLike) -> str:
  """'tfds', 'trajectories', or 'words': conversations in JSON.

  Raises:
    UserError: The path does not exist.
  """
  path = epath.Path(path)
  if not path.exists():
    raise UserError(f'{path} does not exist')
  if path.name == TRAJECTORIES or (path / TRAJECTORIES).exists():
    return 'trajectories'
  if path.is_dir() and not (path / 'dataset_info.json').exists():
    return 'tfds'
  if (path / 'features.json').exists():  # A set's own folder has both.
    return 'tfds'
  return 'words'


def read(
    path: epath.PathLike,
    *,
    run: Callable[[], Run],
    split: str = 'train',
    data_box: str = '',
) -> Loaded[Conversation]:
  """Reads conversations.

  Args:
    path: A TFDS set, a folder with trajectories.jsonl and examples.jsonl, or a
      file as in json_files.py.
    run: Has the chat of trajectories; called only if there are any.
    split: The split of a TFDS set.
    data_box: As json_files.read takes it.

  Returns:
    The usable ones, and what was dropped.

  Raises:
    UserError: There is no such file, or it holds nothing of use.
  """
  place, kind = epath.Path(path), kind_of(path)
  if kind == 'words':
    return json_files.read(place, data_box=data_box).required()
  if kind == 'trajectories':
    found = _read_trajectories(_folder_of(place))
    made_by = run()
    items = Mapped(
        found.items, lambda one: decode(one, made_by.chat, made_by.box_spec)
    )
  else:
    found = Loaded(name=str(place), items=tfds_set.load(place, split))
    items = found.items

  def usable(index: int) -> tuple[int, str]:
    try:
      return index, items[index].id
    except UserError as error:
      raise Unusable('damaged', str(error)) from error

  kept = sift(
      found.name,
      ((f'{found.name}, record {i + 1}', i) for i in range(len(items))),
      usable,
      id_of=lambda one: one[1],
      drops=found.drops,
  ).required()
  held = Mapped([index for index, _ in kept.items], items.__getitem__)
  return Loaded(name=kept.name, items=held, drops=kept.drops)


def digest(path: epath.PathLike) -> str:
  """16 hex digits that change with all that `read` reads."""
  path = epath.Path(path)
  kind, found = kind_of(path), hashlib.sha256()
  if kind == 'tfds':
    paths = sorted(tfds_set.find(path).iterdir())
  elif kind == 'trajectories':  # Which name images by their content.
    paths = [_folder_of(path) / name for name in (TRAJECTORIES, EXAMPLES)]
    paths = [file for file in paths if file.exists()]
  else:
    paths = [json_files.described(path)[0]]
    for conversation in json_files.read(path).items:
      for picture in conversation.pictures:
        found.update(picture.read())
  for file in paths:
    found.update(file.name.encode())
    with file.open('rb') as f:
      while block := f.read(2**20):
        found.update(block)
  return found.hexdigest()[:16]


def _folder_of(path: epath.Path) -> epath.Path:
  """The folder of trajectories, given that or its file."""
  return path.parent if path.name == TRAJECTORIES else path


def _read_trajectories(folder: epath.Path) -> Loaded[Record]:
  damaged: list[UserError] = []
  examples = {
      example.id: example
      for example in trajectories_lib.read(
          folder / EXAMPLES, Example, damaged=damaged
      )
  }
  trajectories = trajectories_lib.read(
      folder / TRAJECTORIES, Trajectory, damaged=damaged
  )

  def record(trajectory: Trajectory) -> Record:
    name = trajectory.example_id
    if name not in examples:
      raise Unusable('no example', f'{name!r} is not in {EXAMPLES}')
    return Record(example=examples[name], trajectory=trajectory)

  return sift(
      str(folder / TRAJECTORIES),
      ((folder.name, trajectory) for trajectory in trajectories),
      record,
      drops=[
          Drop(where=folder.name, reason='damaged', detail=str(error))
          for error in damaged
      ],
  )
