"""The files of an index, and the manifest that names them.

    index.lock              held by a build; marks the folder as an index
    manifest.json           written last; names every file that counts
    parts/texts-HASH/       the documents, see text_index
    parts/images-HASH/      the pictures, see image_index
    parts/features/VERSION/ features of pictures, see chunks

A part is named by what it was made from, and nothing is changed in place: a
build writes what is missing, then replaces the manifest by a rename, then
deletes what that does not name. A reader keeps the old files it has opened.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
import contextlib
import dataclasses
import hashlib
import os
import pathlib
from typing import Any, Literal

import filelock

from gog_jax.errors import UserError
from gog_jax.storage import files

PARTS = 'parts'
FEATURES = f'{PARTS}/features'
_MANIFEST = 'manifest.json'
_LOCK = 'index.lock'
# Up to this size in bytes, files have a digest in the manifest.
_SMALL = 2**20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
  """Names the files that count.

  Attributes:
    texts: Path of the part that holds the documents, or ''.
    images: Path of the part that holds the pictures, or ''.
    encoder: Version of the encoder of images, or ''.
    words: Version of what takes texts apart, or '': queries need the same.
    files: Size, and digest if small, of every file by its path.
    format: Of the manifest and of what it names.
  """

  texts: str
  images: str
  encoder: str
  files: Mapping[str, list[Any]]
  words: str = ''  # In indexes that do not say, another one's.
  format: Literal[2] = 2

  @property
  def version(self) -> str:
    """16 hex digits that change with whatever is searched."""
    return digest(f'{self.format} {self.texts} {self.images}')

  def damaged(self, index: pathlib.Path) -> list[str]:
    """Names of files that are missing or not what was written."""
    return [
        name
        for name, expected in self.files.items()
        if not (index / name).is_file()
        or _facts(index / name) != expected
    ]

  def write(self, index: pathlib.Path) -> None:
    """Makes the files count, once the disk holds all of them."""
    names = [pathlib.PurePath(name) for name in self.files]
    folders = {folder for name in names for folder in name.parents}
    for name in (*names, *folders):
      _sync(index / name)
    text = files.dumps(dataclasses.asdict(self))
    files.write_atomic(index / _MANIFEST, text + '\n')
    _sync(index)

  def delete_others(self, index: pathlib.Path) -> None:
    """Deletes the files of earlier and unfinished builds."""
    for place, _, names in os.walk(index / PARTS, topdown=False):
      for path in (pathlib.Path(place, name) for name in names):
        if path.relative_to(index).as_posix() not in self.files:
          path.unlink()
      with contextlib.suppress(OSError):  # It is not empty.
        os.rmdir(place)


def describe(
    index: pathlib.Path, parts: Iterable[str], chunks: Iterable[pathlib.Path]
) -> dict[str, list[Any]]:
  """The manifest's entries for the files of parts and for feature chunks."""
  paths = set(chunks)
  for part in filter(None, parts):
    paths |= {*(index / part).iterdir()}
  return {
      path.relative_to(index).as_posix(): _facts(path)
      for path in sorted(paths)
  }


NOTHING = Manifest(texts='', images='', encoder='', files={})


def read(index: pathlib.Path) -> Manifest:
  """The manifest of an index; NOTHING if none has been built.

  Raises:
    UserError: It is damaged, or of another format.
  """
  path = index / _MANIFEST
  if not path.exists():
    return NOTHING
  return files.read_json(path, Manifest, advice='run configs/index.py again')


def lock(index: pathlib.Path) -> filelock.BaseFileLock:
  """Makes the folder, and keeps other builds out of it until it is released.

  Raises:
    UserError: Another build is at work, the folder holds something else, or it
      cannot be written.
  """
  give = 'give a folder you can write as --config.index'
  with files.writable(index, give):
    held = {path.name for path in index.iterdir()} if index.exists() else ()
  if held and _LOCK not in held:
    raise UserError(
        f'{index} holds other things than an index; give an empty folder, or '
        'one that is not there yet, as --config.index'
    )
  return files.lock(
      index / _LOCK,
      taken=f'{index} is being built by another process; wait until it is '
      'done, or give another --config.index',
      unwritable=give,
  )


def digest(data: str | bytes) -> str:
  """16 hex digits."""
  data = data.encode() if isinstance(data, str) else data
  return hashlib.sha256(data).hexdigest()[:16]


def _facts(path: pathlib.Path) -> list[Any]:
  size = path.stat().st_size
  return [size] if size > _SMALL else [size, digest(path.read_bytes())]


def _sync(path: pathlib.Path) -> None:
  """Flushes a file, or the names in a folder, to the disk."""
  opened = os.open(path, os.O_RDONLY)
  try:
    os.fsync(opened)
  finally:
    os.close(opened)
