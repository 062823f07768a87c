"""Images that are known by their addresses: fetched once, and kept.

    FOLDER/SHA256.jpg     an image, named by the hash of its address
    FOLDER/failed.json    why there is none of other addresses

What failed is kept as well: a set stays what it was when it was first opened,
until one deletes that file.
"""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Iterable, Iterator
import dataclasses

import aiohttp
from etils import epath

from gog_jax import images
from gog_jax.config.evaluation import FetchConfig
from gog_jax.errors import first_line
from gog_jax.errors import UserError
from gog_jax.questions import questions as q
from gog_jax.questions.local_files import ImageFolder
from gog_jax.questions.local_files import url_key
from gog_jax.remote import http
from gog_jax.remote import public
from gog_jax.remote import retries
from gog_jax.remote import tasks
from gog_jax.storage import blobs
from gog_jax.storage import files
from gog_jax.storage import metrics

_BACKOFF_S = 0.5
_REDIRECTS = 3
# Some servers give images to browsers alone.
_HEADERS = {'User-Agent': 'Mozilla/5.0 (compatible; gog_jax)'}
_SAID = 3  # Of the reasons for failures.


class Fetched:
  """A folder of fetched images.

  Attributes:
    folder: Its path; '' is none.
    config: How images are fetched.
  """

  def __init__(
      self, folder: str, c: FetchConfig, *, allowed: bool, section: str
  ):
    """Looks at what is there.

    Args:
      folder: Where they are if `c` names none; none in a bucket.
      c: How images are fetched.
      allowed: Whether they are.
      section: The config's that says so, for messages.
    """
    self.folder = c.folder or ('' if '://' in folder else folder)
    self.config, self._allowed, self._section = c, allowed, f'config.{section}'
    self._refused = (
        'its host is not on the public internet '
        f'(--{self._section}.fetch.private allows it)'
    )
    self._images = ImageFolder(self.folder)
    self._failed: dict[str, str] = {}

  def find(self, url: str) -> str | None:
    """The file of an address; None if there is none."""
    return self._images.by_stem(url_key(url))

  def absent(self, url: str) -> str:
    """Why there is none."""
    if url in self._failed:
      return f'{url} could not be fetched: {self._failed[url]}'
    return (
        f'{url} is not on this machine: put it into --{self._section}.images, '
        f'or set --{self._section}.fetch_images'
    )

  def found(self, question: q.Question) -> q.Question:
    """A question whose images can be read; Unusable if one is not here."""
    shown = list(question.images)
    for index, image in enumerate(shown):
      if isinstance(image, q.Link):
        path, absent = self.find(image.url), self.absent(image.url)
        (shown[index],) = q.found_image(path, absent, q.NOT_FETCHED)
    return dataclasses.replace(question, images=tuple(shown))

  def fetch(self, urls: Iterable[str]) -> None:
    """Fetches what is not here, if that is allowed, and says so.

    Raises:
      UserError: There is no folder for it, or it cannot be written.
    """
    absent = [
        url for url in dict.fromkeys(urls) if self.find(url) is None
    ]
    if not absent or not self._allowed:
      return
    if not self.folder:
      raise UserError(
          f'images are fetched into a local folder: pass --workdir=FOLDER or '
          f'--{self._section}.fetch.folder=FOLDER'
      )
    record = epath.Path(self.folder) / 'failed.json'
    if record.exists():  # Other splits write it, too.
      advice = 'delete it to have these fetched again'
      self._failed = files.read_json(record, dict[str, str], advice=advice)
    absent = [url for url in absent if url not in self._failed]
    if not absent:
      return
    metrics.say(f'{len(absent)} images are fetched into {self.folder}')
    failed = asyncio.run(self._fetch(absent))
    self._failed |= failed
    if len(failed) < len(absent):  # Or it is the network's failure.
      # Who may be asked is for the config to say, at each start.
      kept = {u: w for u, w in self._failed.items() if w != self._refused}
      files.write_json(record, kept)
    if failed:
      reasons = collections.Counter(failed.values()).most_common(_SAID)
      said = ', '.join(f'{why} ({n})' for why, n in reasons)
      metrics.say(
          f'{len(failed)} of {len(absent)} images could not be fetched: '
          f'{said}; they are asked for again once {record} is deleted'
      )

  async def _fetch(self, urls: list[str]) -> dict[str, str]:
    """Fetches all; returns why those failed that did."""
    failed: dict[str, str] = {}
    # The largest that is read takes about 1 GB.
    decoding = asyncio.Semaphore(2)
    with metrics.Progress('images', total=len(urls)) as progress:
      async with http.session(
          None, socket_factory=public.maker(self.config.networks)
      ) as client:

        async def work(left: Iterator[str]) -> None:
          for url in left:
            if why := await self._keep(client, url, decoding):
              failed[url] = why
            progress.advance()

        left = iter(urls)
        n = min(self.config.concurrency, len(urls))
        await tasks.gather(work(left) for _ in range(n))
    return failed

  async def _keep(
      self,
      client: aiohttp.ClientSession,
      url: str,
      decoding: asyncio.Semaphore,
  ) -> str:
    """Fetches an image; returns why it could not, '' if it could."""
    c = self.config
    get = retries.retrying(
        max_attempts=c.max_attempts,
        timeout_s=c.timeout_s,
        backoff_s=_BACKOFF_S,
    )
    try:
      async with asyncio.timeout(c.timeout_s):
        data = await get(
            http.fetch,
            client,
            'GET',
            url,
            max_bytes=c.max_bytes,
            headers=_HEADERS,
            max_redirects=_REDIRECTS,
        )
      async with decoding:
        await asyncio.to_thread(images.decode, data)
    except TimeoutError:
      return f'no answer within {c.timeout_s:g} s'
    except public.NotPublic:
      return self._refused
    except (
        OSError, ValueError, UserError, http.Refused, http.Garbled
    ) as error:  # fmt: skip
      return first_line(error)
    # A name that is found; what decodes images looks at their bytes.
    suffix = blobs.suffix_of(data).replace('bin', 'webp')
    blobs.put(epath.Path(self.folder), data, f'{url_key(url)}.{suffix}')
    return ''
