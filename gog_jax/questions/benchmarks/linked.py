"""Images that a data set links to: found on this machine, or fetched once.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable, Iterator
import urllib.parse

from gog_jax.config.evaluation import BenchmarkConfig
from gog_jax.questions import questions as q
from gog_jax.questions.fetched import Fetched
from gog_jax.questions.local_files import ImageFolder
from gog_jax.questions.local_files import url_key


class Linked:
  """Finds the files of images that are known by their addresses.

  A file belongs to an address if it is named by the address's hash, as fetched
  images are, or by an ending of the address that no other address of the set
  has: the file name alone is often ambiguous, as DynVQA's image_1.jpeg.
  """

  def __init__(
      self,
      c: BenchmarkConfig,
      fetched: Fetched,
      urls: Iterable[str],
      *folders: str,
  ):
    """Fetches missing images if the config says so.

    Args:
      c: The config's section.
      fetched: Images that were fetched before.
      urls: All addresses in the set; '' is none.
      *folders: The set's own folders of images.

    Raises:
      UserError: As `Fetched.fetch`.
    """
    self._folder = ImageFolder(c.images, *folders, fetched.folder)
    self._fetched = fetched
    distinct = [url for url in dict.fromkeys(urls) if url]
    self._n_with = collections.Counter(
        end for url in distinct for end in _ends(url)
    )
    fetched.fetch(url for url in distinct if self.find(url) is None)

  def find(self, url: str) -> str | None:
    """The file of an address; None if there is none."""
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

  def read(self, url: str) -> tuple[q.Image, ...]:
    """A question's only image.

    Raises:
      Unusable: It is not here.
    """
    absent = 'names no image that is here, and links to none'
    if url:
      absent = self._fetched.absent(url)
    return q.found_image(self.find(url), absent)


def _ends(url: str) -> Iterator[str]:
  """'https://a/b/c.jpg?d' -> 'b/c.jpg', 'c.jpg'."""
  address = url.partition('?')[0].partition('#')[0].partition('://')[2]
  parts = urllib.parse.unquote(address).split('/')[1:]
  for start in range(len(parts)):
    if parts[-1]:
      yield '/'.join(parts[start:])
