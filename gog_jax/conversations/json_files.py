"""Files of LLaMA-Factory and ms-swift, read and written: .json and .jsonl.

    FOLDER/NAME.jsonl            conversations, one a line (.json: a list)
    FOLDER/images/...            what they show, named relative to FOLDER
    FOLDER/dataset_info.json     LLaMA-Factory's entry for the file

Records that cannot be used are dropped and counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import json
import pathlib
import re
from typing import Any

from etils import epath

from gog_jax.conversations import layouts
from gog_jax.conversations.layouts import Layout
from gog_jax.conversations.messages import Conversation
from gog_jax.conversations.messages import Picture
from gog_jax.errors import UserError
from gog_jax.storage import blobs
from gog_jax.storage import files
from gog_jax.storage import records
from gog_jax.storage.records import Loaded
from gog_jax.storage.records import Unusable

# The text of a record; a longer one must be a mistake.
MAX_RECORD_BYTES = 2**26
_MEND = 'put it right, or name the file of conversations itself'
_SPACE = re.compile(r'\s*')


def read(
    path: epath.PathLike, *, data_box: str = ''
) -> Loaded[Conversation]:
  """Reads a file; pictures are read on access.

  Args:
    path: A .json or .jsonl file in either layout; or a dataset_info.json that
      describes one file, or its folder.
    data_box: In what the boxes of calls are, where a conversation does not say
      it; one of boxes.KINDS.

  Raises:
    UserError: There is no such file, or its format is unknown.
  """
  path, layout = described(epath.Path(path))
  if path.suffix not in ('.json', '.jsonl'):
    raise UserError(f'{path} is neither a .json nor a .jsonl file')
  if path.suffix == '.jsonl':
    lines = records.json_lines(path, max_bytes=MAX_RECORD_BYTES)
    rows = (line.value for line in lines)
  else:
    rows = _elements(path)

  def conversation(numbered: tuple[int, Any]) -> Conversation:
    number, row = numbered
    if isinstance(row, Unusable):
      raise row
    return layouts.read_row(
        row,
        layout,
        folder=path.parent,
        name=f'{path.stem}/{number}',
        data_box=data_box,
    )

  return records.sift(
      str(path),
      (
          (f'{path.name}, record {number}', (number, row))
          for number, row in enumerate(rows, start=1)
      ),
      conversation,
      id_of=lambda one: one.id,
  )


def write(
    path: epath.PathLike,
    conversations: Sequence[Conversation],
    layout: Layout,
) -> Loaded[str]:
  """Writes the images, then atomically the file that names them.

  A picture keeps its path, unless that leads out of the folder or is taken by
  another image: then it is named by its content.

  Args:
    path: A .jsonl file for an object a line, or a .json file for a list.
    conversations: Their items may raise Unusable on access.
    layout: For SHAREGPT, dataset_info.json gets an entry for the file.

  Returns:
    The lines that were written, and what was dropped.

  Raises:
    UserError: The folder cannot be written.
  """
  path = epath.Path(path)

  def line(index: int) -> str:
    one = conversations[index]
    paths = {
        picture.name: _store(path.parent, picture) for picture in one.pictures
    }
    return json.dumps(layouts.write_row(one, layout, paths=paths))

  written = records.sift(
      str(path),
      (
          (f'{path.name}, record {index + 1}', index)
          for index in range(len(conversations))
      ),
      line,
  )
  if path.suffix == '.jsonl':
    text = ''.join(line + '\n' for line in written.items)
  else:
    text = '[\n' + ',\n'.join(written.items) + '\n]\n'
  files.write_atomic(path, text)
  if layout is layouts.SHAREGPT:
    info = path.parent / 'dataset_info.json'
    entries = files.read_json(info, advice=_MEND) if info.exists() else {}
    entries[path.stem] = layouts.entry(path.name)
    files.write_json(info, entries)
  return written


def _elements(path: epath.Path) -> Iterator[Any]:
  """Yields the objects of a list, or Unusable for one that cannot be read.

  Those before a damaged one are still read; those after it are lost.
  """
  with files.readable(path):
    text = files.text_of(path.read_bytes())
  decoder = json.JSONDecoder()
  end = _after_space(text, 0)
  if text[end : end + 1] != '[':
    raise UserError(f'{path} is no JSON list; one object a line is .jsonl')
  while text[end : end + 1] in ('[', ','):
    start = _after_space(text, end + 1)
    if text[start : start + 1] == ']':  # An empty list.
      return
    try:
      row, end = decoder.raw_decode(text, start)
    except (ValueError, RecursionError) as error:
      detail = f'this and what follows is not JSON ({error})'
      yield Unusable(records.NOT_JSON, detail)
      return
    if (size := end - start) > MAX_RECORD_BYTES:
      detail = f'has {size} characters, over {MAX_RECORD_BYTES}'
      row = Unusable(records.TOO_LARGE, detail)
    yield row
    end = _after_space(text, end)
  if text[end : end + 1] != ']':
    yield Unusable(records.NOT_JSON, 'what follows is cut off')


def _after_space(text: str, start: int) -> int:
  match = _SPACE.match(text, start)
  return match.end() if match else start


def _store(folder: epath.Path, picture: Picture) -> str:
  """Writes a picture into a folder; returns its path relative to that."""
  data, path = picture.read(), folder / picture.name
  parts = pathlib.PurePosixPath(picture.name)
  outside = parts.is_absolute() or '..' in parts.parts
  if outside or (path.exists() and path.read_bytes() != data):
    return blobs.put(folder, data)
  return blobs.put(folder, data, picture.name)


def described(path: epath.Path) -> tuple[epath.Path, Layout | None]:
  """The file that a dataset_info.json or its folder describes, and how."""
  if path.is_dir():
    path = path / 'dataset_info.json'
  if not path.exists():
    raise UserError(f'{path} does not exist')
  if path.name != 'dataset_info.json':
    return path, None
  info = files.read_json(path, advice=_MEND)
  if len(info) != 1:
    raise UserError(
        f'{path} describes {len(info)} data sets; name the file of one'
    )
  (described,) = info.values()
  if not isinstance(described, dict) or 'file_name' not in described:
    raise UserError(f'{path} names no file on this disk')
  return path.parent / described['file_name'], layouts.of_entry(described)
