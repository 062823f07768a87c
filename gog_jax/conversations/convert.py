"""Converts training data from one format to another."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
from typing import Any

from etils import epath

from gog_jax.conversations import json_files
from gog_jax.conversations import reader
from gog_jax.conversations import tfds_set
from gog_jax.conversations.layouts import LAYOUTS
from gog_jax.errors import UserError
from gog_jax.run import Run
from gog_jax.storage.records import Loaded


def convert(
    source: epath.PathLike,
    target: epath.PathLike,
    *,
    form: str,
    run: Callable[[], Run],
    split: str = 'train',
    data_box: str = '',
    name: str = 'gog_instruct',
    description: str = '',
) -> Loaded[Any]:
  """Converts a file or folder; nothing is encoded, and every column is kept.

  Args:
    source: See `reader.read`.
    target: A .json or .jsonl file for `sharegpt` and `swift`; else a folder.
    form: 'sharegpt', 'swift' or 'tfds'.
    run: See `reader.read`.
    split: The split of a TFDS set to read.
    data_box: See `reader.read`.
    name: The name of a TFDS set to write.
    description: Its description.

  Returns:
    What was written, an item for each conversation, and what was dropped.

  Raises:
    UserError: `target` does not fit, or there is no usable record.
  """
  target, in_words = epath.Path(target), form in LAYOUTS
  if in_words != (target.suffix in ('.json', '.jsonl')):
    raise UserError(
        f'--config.output={target}: format {form} is written to a '
        + ('.json or .jsonl file' if in_words else 'folder')
    )
  if epath.Path(source) == target:
    raise UserError(f'{target} would be written over itself; name another')
  found = reader.read(source, run=run, split=split, data_box=data_box)
  if in_words:
    written = json_files.write(target, found.items, LAYOUTS[form])
    drops = (*found.drops, *written.drops)
    return dataclasses.replace(written, name=found.name, drops=drops).required()
  about = description or f'Converted from {epath.Path(source).name}.'
  tfds_set.write(target, found.items, name=name, description=about)
  return found
