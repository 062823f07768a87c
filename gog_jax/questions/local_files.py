"""A data set's files on this machine, and images that it names or links to."""

from __future__ import annotations

from collections.abc import Sequence
import functools
import hashlib
import itertools
import os
import re

SUFFIXES = (
    '.jpg', '.JPEG', '.jpeg', '.JPG', '.png', '.PNG', '.webp', '.gif', '.bmp',
)  # fmt: skip


def files_of(
    path: str, *endings: str, prefer: Sequence[str] = ('',)
) -> list[str]:
  """Files below a folder, or the one given, in the order of names.

  Args:
    path: A folder or a file.
    *endings: Of a file's path, one of which it has to have.
    prefer: Words; only files whose path has the first of them that any has.
  """
  if os.path.isfile(path):
    return [path]
  paths = sorted(
      os.path.join(place, name)
      for place, _, names in os.walk(path)
      for name in names
      if not name.startswith('.')
  )
  found = [one for one in paths if one.endswith(endings)]
  for word in prefer:
    chosen = [
        one for one in found if word in os.path.relpath(one, path).lower()
    ]
    if chosen:
      return chosen
  return []


def url_key(url: str) -> str:
  """What an image is called, but for its suffix, that was fetched from there.
  """
  return hashlib.sha256(url.encode(errors='replace')).hexdigest()


class ImageFolder:
  """Folders, in the order in which they are looked through.

  What a data set calls an image is not trusted: only names within the folders
  are looked for.
  """

  def __init__(self, *roots: str):
    self.roots = tuple(
        dict.fromkeys(root for root in roots if root and os.path.isdir(root))
    )
    # Where one was found: folder, which of the subfolders, suffix.
    self._last = (self.roots[0] if self.roots else '', 0, SUFFIXES[0])

  def __str__(self) -> str:
    return ', '.join(self.roots) or 'any folder: give config.benchmark.images'

  def by_name(self, name: str) -> str | None:
    """The file of that name, which may have folders in it."""
    name = name.replace('\\', '/')
    parts = name.split('/')
    if '..' in parts or name.startswith('/') or '\0' in name or ':' in parts[0]:
      return None
    for root in self.roots:
      path = os.path.join(root, *parts)
      if os.path.isfile(path):
        return path
    return None

  def by_stem(
      self, stem: str, *, subfolders: Sequence[str] = ('',)
  ) -> str | None:
    """The file of that name and any suffix of an image's.

    Args:
      stem: Its name; nothing that leads elsewhere is looked for.
      subfolders: Of each folder, those to look in.
    """
    if not re.fullmatch(r'[\w-][\w.-]*', stem):
      return None
    places = itertools.product(self.roots, range(len(subfolders)), SUFFIXES)
    # Most sets have one layout: what found the last one is tried first.
    for place in (self._last, *places):
      root, at, suffix = place
      if at < len(subfolders):
        path = os.path.join(root, subfolders[at], stem + suffix)
        if os.path.isfile(path):
          self._last = place
          return path
    return None

  def anywhere(self, name: str) -> str | None:
    """The one file of that name in the folders and all that is in them."""
    paths = self._by_name.get(name, ())
    return paths[0] if len(paths) == 1 else None

  @functools.cached_property
  def _by_name(self) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    for root in self.roots:
      for place, _, files in os.walk(root):
        for name in files:
          names.setdefault(name, []).append(os.path.join(place, name))
    return names
