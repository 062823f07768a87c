"""A local index as a search backend: no server, no network."""

from __future__ import annotations

import concurrent.futures
import os
import pathlib
from typing import Any

from gog_jax import images
from gog_jax.config.tools import IMAGE
from gog_jax.config.tools import TEXT
from gog_jax.errors import first_line
from gog_jax.errors import UserError
from gog_jax.index import manifest
from gog_jax.index import text_index
from gog_jax.index.encoder import Encoder
from gog_jax.index.image_index import ImageIndex
from gog_jax.tools.base import in_thread
from gog_jax.types import Hit
from gog_jax.types import ToolResult

_ATTEMPTS = 5  # To open an index, each after a build replaced it.
# What the libraries raise on damaged files.
_DAMAGE = (OSError, ValueError, KeyError, TypeError, RuntimeError, UserError)


class LocalIndex:
  """An index that `configs/index.py` made, opened.

  It holds one corpus: `scope` is ignored. Once opened, it stays intact while a
  later build replaces it; open it again to see what is new.

  Attributes:
    version: 'index/' and 16 hex digits, which change with what is searched.
    kinds: TEXT if it holds documents, IMAGE if it holds images.
    n_documents: Documents that can be found.
    n_images: Images that can be found.
    threads: Where searches run.
  """

  def __init__(self, folder: str, encoder: Encoder | None = None):
    """Opens the index in a folder.

    Args:
      folder: As given to --config.index.
      encoder: The one it was built with, if any.

    Raises:
      UserError: Nothing is there, it is damaged, or it was built with another
        encoder or tokeniser.
    """
    index = pathlib.Path(folder)
    # One for each core; more would only wait.
    self.threads = concurrent.futures.ThreadPoolExecutor(
        os.cpu_count() or 1, thread_name_prefix='index'
    )
    for _ in range(_ATTEMPTS):
      made = manifest.read(index)
      if made == manifest.NOTHING:
        raise UserError(
            f'there is no index in {index}; make it: python -m gog_jax.main '
            f'--config=configs/index.py --config.index={index} '
            '--config.docs=FILE --config.images=FOLDER'
        )
      given = encoder.version if encoder is not None else ''
      if given != made.encoder:
        raise UserError(
            f'{index} was built with {made.encoder or "no"} encoder, and is '
            f'opened with {given or "none"}; give the same one, or build it '
            'again'
        )
      if made.texts and made.words != text_index.VERSION:
        raise UserError(
            f'{index} took its texts apart in another way '
            f'({made.words or "not known"}) than queries are now '
            f'({text_index.VERSION}); run configs/index.py again'
        )
      try:
        self._open(index, made, encoder)
        return
      except _DAMAGE as error:
        if manifest.read(index) == made:  # Else a build has just replaced it.
          raise UserError(
              f'the index {index} is damaged ({first_line(error)}); run '
              'configs/index.py again'
          ) from error
    raise UserError(
        f'{index} was replaced {_ATTEMPTS} times while it was opened; open it '
        'once nobody builds it'
    )

  def _open(
      self,
      index: pathlib.Path,
      made: manifest.Manifest,
      encoder: Encoder | None,
  ) -> None:
    if damaged := made.damaged(index):
      raise ValueError(f'{damaged[0]} is missing or not what was written')
    self._texts = None
    if made.texts:
      self._texts = text_index.TextIndex(index / made.texts)
    self._images = None
    if made.images:
      self._images = ImageIndex(index, index / made.images, encoder)
    self.version = f'index/{made.version}'
    held = ((TEXT, made.texts), (IMAGE, made.images))
    self.kinds = tuple(kind for kind, part in held if part)
    self.n_documents = len(self._texts or ())
    self.n_images = len(self._images or ())

  def text(
      self, query: str, top_k: int
  ) -> list[tuple[dict[str, Any], float]]:
    """Documents {id, title, text, contents} and BM25 scores, best first."""
    return self._texts.search(query, top_k) if self._texts else []

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
    return self._images.search(picture, top_k) if self._images else []

  async def search_text(
      self, query: str, *, scope: str, top_k: int
  ) -> ToolResult:
    """Searches the documents; `scope` is ignored."""
    del scope  # There is one corpus.
    found = await in_thread(self.threads, self.text, query, top_k)
    return ToolResult(
        hits=tuple(
            Hit(
                title=row['title'],
                text=row['text'],
                score=score,
                document={name: row[name] for name in ('id', 'contents')},
            )
            for row, score in found
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
    found = await in_thread(self.threads, self.image, data, top_k)
    return ToolResult(hits=tuple(hit for _, hit in found))


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
  return Encoder(folder) if folder else None
