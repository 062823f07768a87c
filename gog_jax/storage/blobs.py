"""Images on disk, each stored once under its content: images/SHA256.png."""

from __future__ import annotations

import hashlib
import os
import uuid

from etils import epath

from gog_jax.storage import files

_FOLDER = 'images'


def put(folder: epath.Path, data: bytes, name: str = '') -> str:
  """Stores an image file whole; its name is relative to `folder`.

  Args:
    folder: On a local disk or in a bucket.
    data: The file.
    name: Replaces the name by content; an existing file of that name stays.

  Raises:
    UserError: The folder cannot be written.
  """
  name = name or name_of(data)
  path = os.path.join(folder, name)
  if '://' in path:
    if not (there := epath.Path(path)).exists():
      with files.writable(path):
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_bytes(data)  # A bucket's objects are written whole.
  elif not os.path.exists(path):
    # Threads may write the same file at the same time.
    partial = f'{path}.{uuid.uuid4().hex[:12]}.partial'
    with files.writable(path):
      os.makedirs(os.path.dirname(path), exist_ok=True)
      with open(partial, 'wb') as file:
        file.write(data)
      os.replace(partial, path)
  return name


def name_of(data: bytes) -> str:
  """Where `put` stores an image file."""
  return f'{_FOLDER}/{hashlib.sha256(data).hexdigest()}.{suffix_of(data)}'


def get(folder: epath.Path, name: str) -> bytes:
  """Reads an image file and checks it against its name.

  Raises:
    OSError: It is missing, or its content has another hash.
  """
  path = folder / _FOLDER / epath.Path(name).name
  try:
    data = path.read_bytes()
  except OSError as error:
    raise OSError(error.errno, 'missing', str(path)) from error
  if hashlib.sha256(data).hexdigest() != path.stem:
    raise OSError(0, 'damaged', str(path))
  return data


def suffix_of(data: bytes) -> str:
  """png or jpg, by how the file begins; bin if it is neither."""
  if data.startswith(b'\x89PNG'):
    return 'png'
  return 'jpg' if data.startswith(b'\xff\xd8') else 'bin'
