"""A data set's files on this machine, and images that it names or links to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
  """The files in a folder and below, sorted by path; or the one file given.

  Args:
    path: A folder or a file.
    *endings: Only files whose path has one of these endings.
    prefer: Words; only files whose path contains the first word that is in any.
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
  """The name, without suffix, of an image fetched from an address."""
  return hashlib.sha256(url.encode(errors='replace')).hexdigest()


def _is_in(root: str, path: str) -> bool:
  return os.path.commonpath([root, path]) == root


class ImageFolder:
  """Folders that are searched for images, in order.

  Names from data sets are not trusted: none can lead out of the folders, which
  of symbolic links is for whoever made them to say.
  """

  def __init__(self, *roots: str):
    self.roots = tuple(dict.fromkeys(root for root in roots if root))
    # Where the last one was found: folder, index of the subfolder, suffix.
    self._last: tuple[str, int, str] | None = None

  def __str__(self) -> str:
    return ', '.join(self.roots) or 'any folder: give config.benchmark.images'

  def by_name(self, name: str) -> str | None:
    """The file of that name, a path in one of the folders or an absolute one.
    """
    for root, path in self._paths(name):
      if _is_in(root, path) and os.path.isfile(path):
        return path
    return None

  def absent(self, name: str) -> str:
    """Why there is no file of that name."""
    if any(_is_in(root, path) for root, path in self._paths(name)):
      return f'its image {name[:200]!r} is not in {self}'
    return (
        f'its image {name[:200]!r} is outside of {self}: pass '
        "--config.questions.images=FOLDER, one that holds it ('/' allows any)"
    )

  def _paths(self, name: str) -> Iterator[tuple[str, str]]:
    for root in map(os.path.abspath, self.roots):
      yield root, os.path.normpath(os.path.join(root, name.replace('\\', '/')))

  def by_stem(
      self, stem: str, *, subfolders: Sequence[str] = ('',)
  ) -> str | None:
    """The file of that name with the suffix of an image.

    Args:
      stem: Its name.
      subfolders: Where to look within each folder.
    """
    if not re.fullmatch(r'[\w-][\w.-]*', stem):
      return None
    places = itertools.product(self.roots, range(len(subfolders)), SUFFIXES)
    # Most sets have one layout: try first what found the last image.
    for place in sorted(places, key=lambda place: place != self._last):
      root, at, suffix = place
      path = os.path.join(root, subfolders[at], stem + suffix)
      if os.path.isfile(path):
        self._last = place
        return path
    return None

  def anywhere(self, name: str) -> str | None:
    """The only file of that name in the folders or below."""
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
