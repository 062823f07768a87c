"""Images on disk, every one once, named by its content: images/SHA256.png."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import hashlib
import uuid

from etils import epath

from gog_jax.errors import UserError

_FOLDER = 'images'


def put(folder: epath.Path, data: bytes) -> str:
  """Stores an image file whole; its name is relative to `folder`.

  Raises:
    UserError: The folder cannot be written.
  """
  name = name_of(data)
  path = folder / name
  if not path.exists():  # One that does holds the same bytes.
    # Threads, and hosts that share a folder, may store the same image at the
    # same time.
    partial = path.with_name(f'{path.name}.{uuid.uuid4().hex[:12]}.partial')
    with _writable(path):
      partial.write_bytes(data)
      partial.replace(path)
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


@contextlib.contextmanager
def _writable(path: epath.Path) -> Iterator[None]:
  """Makes the folder of `path`; an OSError inside becomes a UserError."""
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    yield
  except OSError as error:
    raise UserError(
        f'cannot write {path}: {error.strerror or error}; '
        'choose a folder you can write with --workdir=FOLDER'
    ) from error


def suffix_of(data: bytes) -> str:
  """png or jpg, by how the file begins; bin if it is neither."""
  if data.startswith(b'\x89PNG'):
    return 'png'
  return 'jpg' if data.startswith(b'\xff\xd8') else 'bin'
