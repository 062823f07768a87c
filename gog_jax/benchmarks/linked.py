"""Images that a set links to: on this machine, or fetched if that is asked."""

from __future__ import annotations

from collections.abc import Iterable

from gog_jax.benchmarks import fetching
from gog_jax.benchmarks import reading
from gog_jax.data.image_folder import ImageFolder


class Linked:
  """Finds the images of addresses."""

  def __init__(self, request: reading.Request, *folders: str):
    """`folders` are the set's own, beside those of the request."""
    self._request = request
    self._folders = (request.images, *folders)
    self._failed: dict[str, str] = {}
    self._look()

  def fetch(self, urls: Iterable[str]) -> None:
    """Fetches those that are not here, if that is asked for.

    Raises:
      UserError: There is nowhere to put them.
    """
    if not self._request.fetch:
      return
    absent = [
        url
        for url in dict.fromkeys(urls)
        if url and self._folder.by_url(url) is None
    ]
    self._failed = fetching.fetch(absent, self._request.fetched)
    self._look()

  def find(self, url: str) -> str | None:
    """The file of an address; None where it is not here."""
    return self._folder.by_url(url) if url else None

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

  def _look(self) -> None:
    self._folder = ImageFolder(*self._folders, self._request.fetched)
