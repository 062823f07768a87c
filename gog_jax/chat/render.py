"""What a policy is shown, in pieces: our words, content and images.

`system_message` and `tool_result` write in a dialect's words; the frame of a
message around them is chat.py's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
import json
from typing import Any

from gog_jax.chat.codec import END
from gog_jax.chat.codec import START
from gog_jax.chat.dialect import Dialect
from gog_jax.chat.dialect import parts
from gog_jax.chat.template import Template
from gog_jax.images import size_of
from gog_jax.types import ToolResult
from gog_jax.types import ToolStatus
from gog_jax.types import View


class Markup(str):
  """Text of the protocol or a dialect: it may spell control tokens."""


# Text that is not Markup is content: nothing in it is a control token.
Piece = str | View


def fill(template: str, **values: str | Sequence[Piece]) -> list[Piece]:
  """A dialect's template as pieces, with content or pieces for its names."""
  pieces: list[Piece] = []
  for kind, part in parts(template):
    if kind == 'text':
      pieces.append(Markup(part))
    elif isinstance(value := values[part], str):
      pieces.append(value)
    else:
      pieces += value
  return pieces


def system_message(
    dialect: Dialect,
    tools: Sequence[Mapping[str, Any]],
    template: Template | None,
) -> list[Piece]:
  """All that stands before the user's first message; nothing in some dialects.

  Args:
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
      return [Markup(head)]
  if not dialect.system:
    return []
  described: list[Piece] = []
  for index, tool in enumerate(tools):
    described.append('\n' if index else '')
    described += fill(
        dialect.tool,
        name=tool['name'],
        description=tool['description'],
        parameters=_dumps(tool['parameters']),
        function=_dumps(dict(tool)),
        spaced=json.dumps(dict(tool), ensure_ascii=False),
    )
  instructions = [Markup(dialect.instructions)]
  message = fill(dialect.system, tools=described, instructions=instructions)
  return [Markup(f'{START}system\n'), *message, Markup(f'{END}\n')]


def tool_result(dialect: Dialect, result: ToolResult) -> list[Piece]:
  """What a call brought back, in the dialect's words.

  Only crops are shown as images; a hit's own image is for reports, since no
  tool can refer to it.
  """
  if result.status != ToolStatus.OK:
    return fill(dialect.error, error=result.error)
  if result.parts:
    return list(result.parts)
  crop: list[Piece] = []
  if result.view is not None:
    crop = fill(dialect.crop, image=[result.view])
  hits: list[Piece] = [] if result.hits else [Markup(dialect.no_hits)]
  for rank, hit in enumerate(result.hits, start=1):
    if rank > 1:
      hits.append(Markup(dialect.hit_separator))
    hits += fill(dialect.hit, rank=str(rank), title=hit.title, text=hit.text)
  return fill(dialect.result, crop=crop, hits=hits)


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
