"""Images that a set links to: on this machine, or fetched if that is asked.

Each is fetched once; each failure is said and counted.
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
from gog_jax.errors import UserError
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
  """Fetches images into a folder, named by the hash of their addresses.

  Args:
    urls: http or https; others are failures.
    folder: Where they go.

  Returns:
    For each that failed, why, in one line.

  Raises:
    UserError: There is no folder, or it cannot be written.
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
  with metrics.Progress('images', total=len(urls)) as progress:
    async with http.session(key=None) as client:

      async def one(url: str) -> None:
        async with limit:
          try:
            _keep(await _get(client, url), folder, url)
          except (
              aiohttp.ClientError, TimeoutError, ValueError, UserError,
              http.Refused, http.Garbled,
          ) as error:  # fmt: skip
            text = str(error).strip().splitlines()
            failed[url] = text[0] if text else type(error).__name__
          progress.advance()

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
  """Writes an image whole, or not at all; what is no image is a UserError."""
  images.size_of(data)  # Of its header.
  suffix = blobs.suffix_of(data)
  if suffix == 'bin':  # Of any other format that images are decoded from.
    suffix = 'webp'
  blobs.put(epath.Path(folder), data, f'{url_key(url)}.{suffix}')


class Linked:
  """Finds the images of addresses.

  A file is an address's if it is called by the address's hash, as fetched ones
  are; or as the address ends, with as many of its folders as there are, where
  no other address of the set ends so: DynVQA has two of many image_1.jpeg.
  """

  def __init__(
      self,
      c: BenchmarkConfig,
      fetched: str,
      urls: Iterable[str],
      *folders: str,
  ):
    """Fetches those that are not here, if that is asked for.

    Args:
      c: Says where images may be, and whether to fetch.
      fetched: Where images go that are fetched, and are looked for; or ''.
      urls: All that the set has; '' is none.
      *folders: The set's own.

    Raises:
      UserError: There is nowhere to put what is fetched.
    """
    self._folders = (c.images, *folders, fetched)
    self._folder = ImageFolder(*self._folders)
    self._failed: dict[str, str] = {}
    distinct = [url for url in dict.fromkeys(urls) if url]
    self._n_with = collections.Counter(
        end for url in distinct for end in _ends(url)
    )
    if c.fetch_images:
      absent = [url for url in distinct if self.find(url) is None]
      self._failed = fetch(absent, fetched)
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
