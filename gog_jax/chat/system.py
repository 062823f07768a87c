"""The system message: all that stands before the user's first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import json
from typing import Any

from gog_jax.chat.dialect import Dialect
from gog_jax.chat.template import END
from gog_jax.chat.template import START
from gog_jax.chat.template import Template
from gog_jax.chat.writer import Writer


def system_message(
    writer: Writer,
    dialect: Dialect,
    tools: Sequence[Mapping[str, Any]],
    template: Template | None,
) -> tuple[int, ...]:
  """Token ids; none for a dialect that has no system message.

  Args:
    writer: Empty.
    dialect: Its words.
    tools: `{'name', 'description', 'parameters'}` each.
    template: Of the model folder, which is asked first.

  Raises:
    UserError: The template and the dialect contradict each other.
  """
  if template is not None:
    template.check(dialect)
    head = template.head(dialect.instructions, tools)
    if head is not None:
      writer.ours(head)
      return writer.chunk().token_ids
  if not dialect.system:
    return ()

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
  return writer.chunk().token_ids


def _dumps(value: Any) -> str:
  """Compact JSON in the order given: people read what a tool does."""
  return json.dumps(value, ensure_ascii=False, separators=(',', ':'))
