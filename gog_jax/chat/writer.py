"""Puts pieces of text, control tokens and images together into one chunk."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from gog_jax.chat.codec import Codec
from gog_jax.chat.dialect import parts
from gog_jax.images import ImageProcessor
from gog_jax.images import size_of
from gog_jax.types import Placement
from gog_jax.types import TokenChunk
from gog_jax.types import View

VISION_START, VISION_END = '<|vision_start|>', '<|vision_end|>'
IMAGE_PAD = '<|image_pad|>'
# Text in which nothing is a control token, or an image.
Piece = str | View


class Writer:
  """Collects pieces and encodes them.

  Text between two control tokens is encoded in one go, whoever wrote its
  pieces: a tokenizer that reads the whole rendered message merges across
  pieces too, and models were trained on what that yields.
  """

  def __init__(
      self,
      codec: Codec,
      processor: ImageProcessor,
      defuse: Callable[[str], str],
  ):
    """Initialises the writer.

    Args:
      codec: Encodes.
      processor: Says how many tokens an image takes.
      defuse: What becomes of content before it fills a template.
    """
    self._codec = codec
    self._processor = processor
    self._defuse = defuse
    self._pending: list[str] = []
    self._ids: list[int] = []
    self._images: list[View] = []
    self._placements: list[Placement] = []

  def text(self, text: str) -> None:
    """Appends text in which nothing is a control token."""
    self._pending.append(text)

  def ours(self, text: str) -> None:
    """Appends text of the protocol or a dialect, control tokens included."""
    for part in self._codec.split(text):
      if isinstance(part, str):
        self._pending.append(part)
      else:
        self.ids([part])

  def ids(self, token_ids: Iterable[int]) -> None:
    """Appends tokens as they are; text does not merge with them."""
    self._flush()
    self._ids.extend(token_ids)

  def images(self, views: Sequence[View]) -> None:
    """Appends images: their frame, and one token per merged patch.

    Raises:
      UserError: An image cannot be read.
    """
    pad = self._codec.id_of(IMAGE_PAD)
    assert pad is not None  # Chat has checked.
    for view in views:
      self.ours(VISION_START)
      size = size_of(view.data)
      grid = self._processor.grid(*size)
      n_tokens = self._processor.n_tokens(*size)
      self._placements.append(
          Placement(
              start=len(self._ids),
              image=len(self._images),
              grid=grid,
              n_tokens=n_tokens,
          )
      )
      self._images.append(view)
      self.ids([pad] * n_tokens)
      self.ours(VISION_END)

  def pieces(self, pieces: Iterable[Piece]) -> None:
    """Appends text that is not ours, and images, in order."""
    for piece in pieces:
      if isinstance(piece, str):
        self.text(self._defuse(piece))
      else:
        self.images([piece])

  def fill(self, template: str, **values: str | Callable[[], None]) -> None:
    """Appends a dialect's template.

    Args:
      template: Its own words are ours, control tokens included.
      **values: Content by name: text, in which nothing is a control token,
        or a function that appends it.
    """
    for kind, part in parts(template):
      if kind == 'text':
        self.ours(part)
        continue
      value = values[part]
      if isinstance(value, str):
        self.text(self._defuse(value))
      else:
        value()

  def chunk(self) -> TokenChunk:
    """Returns all that was appended."""
    self._flush()
    return TokenChunk(
        token_ids=tuple(self._ids),
        images=tuple(self._images),
        placements=tuple(self._placements),
    )

  def _flush(self) -> None:
    if text := ''.join(self._pending):
      self._ids.extend(self._codec.encode_text(text))
    self._pending.clear()
