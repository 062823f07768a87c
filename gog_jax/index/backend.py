"""A local index as a search backend: no server, no network."""

from __future__ import annotations

import concurrent.futures
import os
import pathlib
from typing import Any

from gog_jax import images
from gog_jax.errors import UserError
from gog_jax.index import build
from gog_jax.index import chunks
from gog_jax.index import store
from gog_jax.index.encoder import Encoder
from gog_jax.index.features import ImageEncoder
from gog_jax.index.image_index import ImageIndex
from gog_jax.index.text_index import TextIndex
from gog_jax.tools.base import IMAGE
from gog_jax.tools.base import in_thread
from gog_jax.tools.base import TEXT
from gog_jax.types import Hit
from gog_jax.types import ToolResult

# How many times a build may replace the index while it is being opened.
_TRIES = 5
# What the libraries raise on files that are not what they wrote.
_OPEN_ERRORS = (*chunks.DAMAGE, RuntimeError, UserError)


class LocalIndex:
  """An index that `configs/index.py` made, opened.

  It holds one corpus: `scope` is ignored. What was opened stays whole while a
  later build replaces it; open it anew to see what is new.

  Attributes:
    version: 'index/' and 16 hex digits, which change with what is searched.
    kinds: TEXT if it holds documents, IMAGE if it holds images.
    n_documents: How many can be found.
    n_images: How many can be found.
  """

  def __init__(self, folder: str, encoder: ImageEncoder | None = None):
    """Opens the index in a folder.

    Args:
      folder: As given to --config.index.
      encoder: The one it was built with, if any.

    Raises:
      UserError: Nothing is there, it is damaged, or it was built with another
        encoder.
    """
    index = pathlib.Path(folder)
    # One for each core: more would only wait.
    self._threads = concurrent.futures.ThreadPoolExecutor(
        os.cpu_count() or 1, thread_name_prefix='index'
    )
    for _ in range(_TRIES):
      manifest = store.read(index)
      if manifest is None:
        raise UserError(
            f'there is no index in {index}; run configs/index.py with '
            f'--config.index={index} first'
        )
      given = encoder.version if encoder is not None else ''
      if given != manifest.encoder:
        raise UserError(
            f'{index} was built with {manifest.encoder or "no"} encoder, and '
            f'is opened with {given or "none"}; give the same one, or build it '
            'again'
        )
      try:
        for name in store.damaged_files(index, manifest):
          what = f'{name} is missing or not what was written'
          raise store.damaged(index, what)
        self._open(index, manifest, encoder)
        return
      except _OPEN_ERRORS as error:
        if store.read(index) == manifest:  # Else it has been replaced.
          if isinstance(error, UserError):
            raise
          raise store.damaged(index, str(error).splitlines()[0]) from error
    raise UserError(f'{index} is being replaced over and over; try again later')

  def _open(
      self,
      index: pathlib.Path,
      manifest: store.Manifest,
      encoder: ImageEncoder | None,
  ) -> None:
    generation = index / manifest.generation
    self._texts = self._images = None
    if manifest.n_documents:
      self._texts = TextIndex(generation / build.TEXTS)
    if manifest.n_images:
      self._images = ImageIndex(
          index, generation / build.IMAGES, manifest.chunks, encoder
      )
    self.version = f'index/{manifest.version}'
    held = ((TEXT, manifest.n_documents), (IMAGE, manifest.n_images))
    self.kinds = tuple(kind for kind, n in held if n)
    self.n_documents = manifest.n_documents
    self.n_images = manifest.n_images

  def text(
      self, query: str, top_k: int
  ) -> list[tuple[dict[str, Any], float]]:
    """Documents {id, title, text, contents} and BM25 scores, best first."""
    if self._texts is None:
      return []
    return [
        (self._texts.document(number), score)
        for number, score in self._texts.search(query, top_k)
    ]

  def image(
      self, data: bytes, top_k: int
  ) -> list[tuple[dict[str, Any], Hit]]:
    """Pictures {id, title, caption, image, link}, and as hits of a search.

    Args:
      data: An encoded image file.
      top_k: At most so many, best first; scores are in [0, 1].

    Raises:
      UserError: The data is no image, or too large a one.
    """
    picture = images.decode(data)
    if self._images is None:
      return []
    return [
        (self._images.picture(number), self._images.hit(number, score))
        for number, score in self._images.search(picture, top_k)
    ]

  def thumbnail(self, picture_id: str) -> bytes:
    """A JPEG of at most 256 pixels a side.

    Raises:
      KeyError: There is no such picture.
    """
    if self._images is None:
      raise KeyError(picture_id)
    return self._images.thumbnail(self._images.number_of(picture_id))

  async def search_text(
      self, query: str, *, scope: str, top_k: int
  ) -> ToolResult:
    """Searches the documents; `scope` is ignored."""
    del scope  # There is one corpus.
    found = await in_thread(self._threads, self.text, query, top_k)
    return ToolResult(
        hits=tuple(
            Hit(title=document['title'], text=document['text'], score=score)
            for document, score in found
        )
    )

  async def search_image(
      self, data: bytes, *, scope: str, top_k: int
  ) -> ToolResult:
    """Searches the pictures with an encoded image; `scope` is ignored.

    Raises:
      UserError: As `image`.
    """
    del scope  # There is one corpus.
    found = await in_thread(self._threads, self.image, data, top_k)
    return ToolResult(hits=tuple(hit for _, hit in found))

  async def close(self) -> None:
    """Nothing needs to be closed."""


def from_config(config: Any) -> LocalIndex:
  """The index that the section `tools` names, and its encoder.

  Raises:
    UserError: None is named, or either cannot be used.
  """
  if not config.index:
    raise UserError(
        'config.tools.backend=index needs --config.tools.index=DIR, which '
        'configs/index.py makes'
    )
  return LocalIndex(config.index, load_encoder(config.encoder))


def load_encoder(folder: str) -> Encoder | None:
  """An encoder of images; None where no folder is named.

  Raises:
    UserError: The folder cannot be used.
  """
  return Encoder.from_folder(folder) if folder else None
