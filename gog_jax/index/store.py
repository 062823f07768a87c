"""The files of an index, and the manifest that says which of them count.

    manifest.json               written last; names everything that counts
    features/KIND-*.safetensors features of up to 64 images each
    generation-000001/          what is searched: texts, pictures, vectors
    lock                        held by whoever builds

Nothing is changed in place: a build writes new files, then the manifest by one
rename, then deletes what is no longer named. A reader that has opened the old
files keeps them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import re
import shutil
from typing import Any

from gog_jax.errors import UserError
from gog_jax.storage import files

FORMAT = 1
MANIFEST = 'manifest.json'
# Up to this size in bytes, the manifest has a file's digest beside its size.
_SMALL = 2**20
_GENERATION = re.compile(r'generation-(\d{6,})')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
  """Names what counts.

  Attributes:
    version: 16 hex digits that change with whatever is searched.
    generation: The folder that holds what is searched.
    n_documents: How many can be found.
    n_images: How many can be found.
    encoder: Version of the encoder of images, or ''.
    texts: What the index of texts was made from, and how.
    chunks: Files of features by kind, in the order that rows count them.
    files: Size, and digest if small, of every file by its path.
  """

  version: str
  generation: str
  n_documents: int
  n_images: int
  encoder: str
  texts: str
  chunks: Mapping[str, Sequence[str]]
  files: Mapping[str, Sequence[Any]]

  def write(self, index: pathlib.Path) -> None:
    row = {'format': FORMAT, **dataclasses.asdict(self)}
    row['digest'] = _digest(files.dumps(row).encode())
    files.write_atomic(index / MANIFEST, files.dumps(row) + '\n')
    sync(index)


def read(index: pathlib.Path) -> Manifest | None:
  """The manifest of an index; None if nothing has been built.

  Raises:
    UserError: It is damaged, or of another format.
  """
  path = index / MANIFEST
  try:
    row = json.loads(path.read_text())
    found = row.pop('format')
    if found != FORMAT:
      raise UserError(
          f'{index} has format {found!r}, and this program reads {FORMAT}; '
          'delete it and run configs/index.py again'
      )
    digest = row.pop('digest')
    if digest != _digest(files.dumps({'format': found, **row}).encode()):
      raise ValueError('digest')
    return Manifest(**row)
  except FileNotFoundError:
    return None
  except OSError as error:
    raise UserError(f'{path} cannot be read ({error.strerror})') from error
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise damaged(index, f'{MANIFEST} is not what was written') from error


def damaged(index: pathlib.Path, what: str) -> UserError:
  return UserError(
      f'the index {index} is damaged ({what}); run configs/index.py again'
  )


def damaged_files(index: pathlib.Path, manifest: Manifest) -> Iterator[str]:
  """Names of files that are missing or differ from what the manifest says."""
  for name, expected in manifest.files.items():
    path = index / name
    if not path.is_file() or _facts(path) != list(expected):
      yield name


def describe(
    index: pathlib.Path, generation: pathlib.Path, chunks: Sequence[str]
) -> dict[str, list[Any]]:
  """Size and digest of the files that a manifest will name; flushes them."""
  names = sorted(
      path.relative_to(index).as_posix()
      for path in generation.rglob('*')
      if path.is_file()
  )
  for name in names:
    sync(index / name)
  for folder in filter(pathlib.Path.is_dir, generation.iterdir()):
    sync(folder)
  sync(generation)
  sync(index)
  return {name: _facts(index / name) for name in (*names, *chunks)}


def _facts(path: pathlib.Path) -> list[Any]:
  size = path.stat().st_size
  if size > _SMALL:
    return [size]
  return [size, _digest(path.read_bytes())]


def _digest(data: bytes) -> str:
  return hashlib.sha256(data).hexdigest()[:16]


def sync(path: pathlib.Path) -> None:
  """Flushes a file, or the names in a folder, to the disk."""
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


def link_tree(source: pathlib.Path, target: pathlib.Path) -> None:
  """Hard links to the files of a folder; copies where links cannot be made."""

  def link(one: str, other: str) -> None:
    try:
      os.link(one, other)
    except OSError:
      shutil.copyfile(one, other)

  shutil.copytree(source, target, copy_function=link)


def new_generation(index: pathlib.Path) -> pathlib.Path:
  """A new empty folder, numbered after the existing ones."""
  taken = [0]
  for path in index.iterdir():
    if match := _GENERATION.fullmatch(path.name):
      taken.append(int(match.group(1)))
  folder = index / f'generation-{max(taken) + 1:06d}'
  folder.mkdir()
  return folder


def delete_others(index: pathlib.Path, generation: str) -> None:
  """Deletes generations that the manifest does not name."""
  for path in index.iterdir():
    if _GENERATION.fullmatch(path.name) and path.name != generation:
      shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def locked(index: pathlib.Path) -> Iterator[None]:
  """Makes the folder, and keeps other builds out of it.

  Raises:
    UserError: Another build is at work, or the folder cannot be written.
  """
  if '://' in str(index):
    raise UserError(f'{index} is no local folder; give --config.index=FOLDER')
  give = 'give a folder you can write as --config.index'
  try:
    if index.exists() and not _is_ours(index):
      raise UserError(
          f'{index} holds other things than an index; give an empty folder, or '
          'one that is not there yet, as --config.index'
      )
  except OSError as error:
    raise UserError(
        f'cannot read {index}: {error.strerror or error}; {give}'
    ) from error
  with files.lock(
      index / 'lock',
      taken=f'{index} is being built by another process; wait until it is '
      'done, or give another --config.index',
      unwritable=give,
  ):
    yield


def _is_ours(index: pathlib.Path) -> bool:
  """Whether a folder is empty or was begun as an index."""
  names = {path.name for path in index.iterdir()}
  if names <= {'lock'} or {'lock', 'features'} <= names:
    return True
  try:
    row = json.loads((index / MANIFEST).read_text())
    return isinstance(row, dict) and {'format', 'digest'} <= row.keys()
  except (OSError, ValueError):
    return False
