"""What a policy is shown: text, control tokens and images, put into one chunk.

`render_system` and `render_result` write in a dialect's words; the frame of a
message around them is chat.py's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
import json
from typing import Any

from gog_jax.chat.codec import Codec
from gog_jax.chat.codec import END
from gog_jax.chat.codec import IMAGE_PAD
from gog_jax.chat.codec import START
from gog_jax.chat.codec import VISION_END
from gog_jax.chat.codec import VISION_START
from gog_jax.chat.dialect import Dialect
from gog_jax.chat.dialect import parts
from gog_jax.chat.template import Template
from gog_jax.images import ImageProcessor
from gog_jax.images import size_of
from gog_jax.types import Placement
from gog_jax.types import TokenChunk
from gog_jax.types import ToolResult
from gog_jax.types import ToolStatus
from gog_jax.types import View

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
      n_tokens = self._processor.n_tokens(*size)
      self._placements.append(
          Placement(
              start=len(self._ids),
              image=len(self._images),
              grid=self._processor.grid(*size),
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


def render_system(
    writer: Writer,
    dialect: Dialect,
    tools: Sequence[Mapping[str, Any]],
    template: Template | None,
) -> None:
  """Writes all that stands before the user's first message; maybe nothing.

  Args:
    writer: Empty.
    dialect: Its words.
    tools: `{'name', 'description', 'parameters'}` each.
    template: The model folder's, which is asked first.

  Raises:
    UserError: The template and the dialect contradict each other.
  """
  if template is not None:
    template.check(dialect)
    head = template.head(dialect.instructions, tools)
    if head is not None:
      writer.ours(head)
      return
  if not dialect.system:
    return

  def describe() -> None:
    for index, tool in enumerate(tools):
      writer.text('\n' if index else '')
      writer.fill(
          dialect.tool,
          name=tool['name'],
          description=tool['description'],
          parameters=_dumps(tool['parameters']),
          function=_dumps(dict(tool)),
          spaced=json.dumps(dict(tool), ensure_ascii=False),
      )

  writer.ours(f'{START}system\n')
  writer.fill(
      dialect.system,
      tools=describe,
      instructions=lambda: writer.ours(dialect.instructions),
  )
  writer.ours(f'{END}\n')


def render_result(writer: Writer, dialect: Dialect, result: ToolResult) -> None:
  """Writes what a call brought back, in the dialect's words."""
  if result.status != ToolStatus.OK:
    writer.fill(dialect.error, error=result.error)
    return
  if result.parts:
    writer.pieces(result.parts)
    return

  def crop() -> None:
    if (view := result.view) is not None:
      writer.fill(dialect.crop, image=lambda: writer.images([view]))

  def hits() -> None:
    for index, hit in enumerate(result.hits):
      writer.ours(dialect.hit_separator if index else '')
      writer.fill(
          dialect.hit, rank=str(index + 1), title=hit.title, text=hit.text
      )
    writer.ours('' if result.hits else dialect.no_hits)

  writer.fill(dialect.result, crop=crop, hits=hits)


def whole(images: Iterable[bytes]) -> list[View]:
  """An example's images as views of themselves.

  Raises:
    UserError: An image cannot be read.
  """
  return [
      View(data=data, root=root, box=(0, 0, *size_of(data)))
      for root, data in enumerate(images)
  ]


def _dumps(value: Any) -> str:
  """Compact JSON in the order given: people read what a tool does."""
  return json.dumps(value, ensure_ascii=False, separators=(',', ':'))
