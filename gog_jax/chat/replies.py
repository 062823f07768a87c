"""What a policy is shown: its tools' replies, and an example's images."""

from __future__ import annotations

from collections.abc import Sequence

from gog_jax.chat.dialect import Dialect
from gog_jax.chat.writer import Writer
from gog_jax.images import size_of
from gog_jax.types import ToolResult
from gog_jax.types import ToolStatus
from gog_jax.types import View


def write_result(writer: Writer, dialect: Dialect, result: ToolResult) -> None:
  """Appends what a call brought back, in the dialect's words."""
  if result.status != ToolStatus.OK:
    writer.fill(dialect.error, error=result.error)
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


def whole(images: Sequence[bytes]) -> list[View]:
  """An example's images as views of themselves.

  Raises:
    UserError: An image cannot be read.
  """
  views = []
  for root, data in enumerate(images):
    width, height = size_of(data)
    views.append(View(data=data, root=root, box=(0, 0, width, height)))
  return views
