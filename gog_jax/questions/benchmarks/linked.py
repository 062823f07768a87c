"""Images that a set links to: on this machine, or fetched if that is asked."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Iterator
import urllib.parse

from gog_jax.questions.benchmarks import fetching
from gog_jax.questions.benchmarks import reading
from gog_jax.questions.image_folder import ImageFolder
from gog_jax.questions.image_folder import url_key


class Linked:
  """Finds the images of addresses.

  A file is an address's if it is called by the address's hash, as fetched ones
  are; or as the address ends, with as many of its folders as there are, where
  no other address of the set ends so: DynVQA has two of many image_1.jpeg.
  """

  def __init__(
      self, request: reading.Request, urls: Iterable[str], *folders: str
  ):
    """Fetches those that are not here, if that is asked for.

    Args:
      request: Says where images may be, and whether to fetch.
      urls: All that the set has; '' is none.
      *folders: The set's own.

    Raises:
      UserError: There is nowhere to put what is fetched.
    """
    self._folders = (request.images, *folders, request.fetched)
    self._folder = ImageFolder(*self._folders)
    self._failed: dict[str, str] = {}
    distinct = [url for url in dict.fromkeys(urls) if url]
    self._n_with = collections.Counter(
        end for url in distinct for end in _ends(url)
    )
    if request.fetch:
      absent = [url for url in distinct if self.find(url) is None]
      self._failed = fetching.fetch(absent, request.fetched)
      self._folder = ImageFolder(*self._folders)

  def find(self, url: str) -> str | None:
    """The file of an address; None where it is not here."""
    if not url:
      return None
    if path := self._folder.by_stem(url_key(url)):
      return path
    for end in _ends(url):
      if self._n_with[end] == 1:
        path = self._folder.by_name(end) or self._folder.anywhere(end)
        if path:
          return path
    return None

  def why(self, url: str) -> str:
    """Why there is none, for a message."""
    if not url:
      return 'names no image that is here, and links to none'
    if url in self._failed:
      return f'{url} could not be fetched: {self._failed[url]}'
    return (
        f'{url} is not on this machine: put it into --config.benchmark.images, '
        'or set --config.benchmark.fetch_images'
    )


def _ends(url: str) -> Iterator[str]:
  """'https://a/b/c.jpg?d' -> 'b/c.jpg', 'c.jpg'."""
  address = url.partition('?')[0].partition('#')[0].partition('://')[2]
  parts = urllib.parse.unquote(address).split('/')[1:]
  for start in range(len(parts)):
    if parts[-1]:
      yield '/'.join(parts[start:])
