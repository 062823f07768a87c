"""Images that a data set links to: found on this machine, or fetched once.
"""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Iterable, Iterator, Sequence
import os
import urllib.parse

import aiohttp
from etils import epath

from gog_jax import images
from gog_jax.config.evaluation import BenchmarkConfig
from gog_jax.errors import first_line
from gog_jax.errors import UserError
from gog_jax.questions import questions as q
from gog_jax.questions.local_files import ImageFolder
from gog_jax.questions.local_files import url_key
from gog_jax.remote import http
from gog_jax.storage import blobs
from gog_jax.storage import files
from gog_jax.storage import metrics

MAX_BYTES = 32 * 2**20
TIMEOUT_S = 30.0
_AT_ONCE = 8
_REDIRECTS = 3
# Some servers give images to browsers alone.
_HEADERS = {'User-Agent': 'Mozilla/5.0 (compatible; gog_jax)'}


def fetch(urls: Sequence[str], folder: str) -> dict[str, str]:
  """Fetches images into a folder, named by the hashes of their addresses.

  Args:
    urls: Addresses; all but http and https fail.
    folder: Where the images go.

  Returns:
    For each address that failed, why, in one line.

  Raises:
    UserError: No folder is given, or it cannot be written.
  """
  if not urls:
    return {}
  if not folder:
    raise UserError(
        'images are fetched into --workdir=FOLDER, which has to be a local one'
    )
  with files.writable(folder):
    os.makedirs(folder, exist_ok=True)
  return asyncio.run(_fetch_all(urls, folder))


async def _fetch_all(urls: Sequence[str], folder: str) -> dict[str, str]:
  failed: dict[str, str] = {}
  limit = asyncio.Semaphore(_AT_ONCE)

  async def one(url: str) -> None:
    async with limit:
      try:
        _keep(await _get(client, url), folder, url)
      except (
          aiohttp.ClientError, TimeoutError, ValueError, UserError,
          http.Refused, http.Garbled,
      ) as error:  # fmt: skip
        failed[url] = first_line(error)
      progress.advance()

  with metrics.Progress('images', total=len(urls)) as progress:
    async with http.session(key=None) as client:
      await asyncio.gather(*map(one, urls))
  return failed


async def _get(client: aiohttp.ClientSession, url: str) -> bytes:
  if not url.startswith(('http://', 'https://')):
    raise ValueError('no http or https address')
  async with client.get(
      url,
      headers=_HEADERS,
      max_redirects=_REDIRECTS,
      timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
  ) as response:
    if response.status != 200:
      raise http.Refused(response.status, '')
    return await http.read_body(response, MAX_BYTES)


def _keep(data: bytes, folder: str, url: str) -> None:
  """Writes an image; raises UserError if it is not one."""
  images.size_of(data)  # Of its header.
  suffix = blobs.suffix_of(data)
  if suffix == 'bin':  # Of any other format that images are decoded from.
    suffix = 'webp'
  blobs.put(epath.Path(folder), data, f'{url_key(url)}.{suffix}')


class Linked:
  """Finds the files of images that are known by their addresses.

  A file belongs to an address if it is named by the address's hash, as fetched
  images are, or by an ending of the address that no other address of the set
  has: the file name alone is often ambiguous, as DynVQA's image_1.jpeg.
  """

  def __init__(
      self,
      c: BenchmarkConfig,
      fetched: str,
      urls: Iterable[str],
      *folders: str,
  ):
    """Fetches missing images if the config says so.

    Args:
      c: The config's section.
      fetched: The folder of fetched images, or ''.
      urls: All addresses in the set; '' is none.
      *folders: The set's own folders of images.

    Raises:
      UserError: Images are to be fetched, but `fetched` is empty.
    """
    self._folder = ImageFolder(c.images, *folders, fetched)
    self._failed: dict[str, str] = {}
    distinct = [url for url in dict.fromkeys(urls) if url]
    self._n_with = collections.Counter(
        end for url in distinct for end in _ends(url)
    )
    if c.fetch_images:
      absent = [url for url in distinct if self.find(url) is None]
      self._failed = fetch(absent, fetched)

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
    if url in self._failed:
      absent = f'{url} could not be fetched: {self._failed[url]}'
    elif url:
      absent = (
          f'{url} is not on this machine: put it into '
          '--config.benchmark.images, or set --config.benchmark.fetch_images'
      )
    else:
      absent = 'names no image that is here, and links to none'
    return q.found_image(self.find(url), absent)


def _ends(url: str) -> Iterator[str]:
  """'https://a/b/c.jpg?d' -> 'b/c.jpg', 'c.jpg'."""
  address = url.partition('?')[0].partition('#')[0].partition('://')[2]
  parts = urllib.parse.unquote(address).split('/')[1:]
  for start in range(len(parts)):
    if parts[-1]:
      yield '/'.join(parts[start:])
