"""Tells a conversation on the terminal, turn by turn, while it happens.

What a policy or a page says is untrusted: it is printed as text, never as
markup, and what would steer the terminal or turn the reading direction is
spelled out.
"""

from __future__ import annotations

import io
import json
import sys
from typing import TextIO
import unicodedata

import rich.console
import rich.padding
import rich.text

from gog_jax.remote import secrets
from gog_jax.rewards import behaviour
from gog_jax.types import Example
from gog_jax.types import NO_ROOT
from gog_jax.types import ToolCall
from gog_jax.types import ToolResult
from gog_jax.types import ToolStatus
from gog_jax.types import Trajectory
from gog_jax.types import Turn

_LINE = 100  # Characters shown of a hit's text, or of a call's arguments.
# Cc and Cf steer, Cs no file can hold, Zl and Zp break lines.
_SPELLED_OUT = ('Cc', 'Cf', 'Cs', 'Zl', 'Zp')
_JOINERS = '\u200c\u200d'  # Of Cf, what scripts and emoji are written with.
_FAULTS = {
    ToolStatus.MODEL_ERROR: "the policy's error",
    ToolStatus.INFRA_ERROR: "the tool's failure",
}
_INDENT = 3


def clean(text: str) -> str:
  r"""Text that a terminal only shows: an escape character becomes `\x1b`.

  Line feeds stay, tabs become spaces, secrets are left out.
  """
  text = secrets.redact(text).replace('\r\n', '\n').replace('\t', '  ')
  return ''.join(map(_visible, text))


def _visible(character: str) -> str:
  if character == '\n' or character in _JOINERS:
    return character
  if unicodedata.category(character) not in _SPELLED_OUT:
    return character
  return character.encode('unicode_escape').decode()


class Narrator:
  """Tells one conversation."""

  def __init__(self, example: Example, *, file: TextIO | None = None):
    """Initialises with what is asked.

    Args:
      example: The question and its images.
      file: Where to print, standard output by default. Colours and line
        breaks are for terminals alone.
    """
    file = file or sys.stdout
    if isinstance(file, io.TextIOWrapper):  # Of any encoding.
      file.reconfigure(errors='backslashreplace')
    self._console = rich.console.Console(
        file=file, markup=False, highlight=False, emoji=False
    )
    self._wraps = self._console.is_terminal
    self._example = example
    self._n_turns = 0
    self._n_images = len(example.images)

  def header(self, **facts: str) -> None:
    """Prints what is asked, of what and of whom."""
    width = max(map(len, ('question', *facts)))
    for name, value in {'question': self._example.question, **facts}.items():
      self._print(value, label=name.ljust(width), indent=0, style='bold')
    self._console.print()

  def on_turn(self, turn: Turn) -> None:
    """Prints a turn that was sampled, or the results that came back for it."""
    if turn.results:
      for call, result in zip(turn.parsed.calls, turn.results, strict=True):
        if len(turn.results) > 1:
          self._print(f'{call.name or "call"}:', style='cyan')
        self._result(call, result)
      self._console.print()
      return
    self._n_turns += 1
    parsed = turn.parsed
    thought = parsed.thought or ('' if parsed.format_error else '(no thought)')
    self._print(
        thought or parsed.text,
        label=str(self._n_turns).ljust(_INDENT - 1),
        indent=0,
        style='italic',
    )
    for call in parsed.calls:
      if call.error is not None:
        self._print(call.error, label=call.name or 'call', style='red')
      else:
        arguments = json.dumps(dict(call.arguments), ensure_ascii=False)
        self._print(arguments, label=call.name, style='cyan')
    if parsed.format_error:
      self._print(parsed.format_error, label='format', style='red')

  def footer(self, trajectory: Trajectory, **facts: str) -> None:
    """Prints the answer, or why there is none, and what it took."""
    if trajectory.answer is not None:
      self._print(trajectory.answer, label='answer', style='bold green')
    else:
      reason = f'no answer, stopped by {trajectory.stop_reason.value}'
      self._print(reason, style='bold red')
    self._console.print()
    self._print(counts(trajectory), indent=0, style='dim')
    for name, value in facts.items():
      self._print(value, label=name, indent=0)

  def _result(self, call: ToolCall, result: ToolResult) -> None:
    if result.status != ToolStatus.OK:
      if result.error != call.error:  # Else it was told with the call.
        self._print(result.error, label=_FAULTS[result.status], style='red')
      return
    if result.view is not None:
      self._n_images += 1
      view = result.view
      x1, y1, x2, y2 = (f'{edge:g}' for edge in view.box)
      of = f'image {view.root + 1}'
      if view.root == NO_ROOT:
        of = "a tool's image"
      self._print(
          f'x {x1} to {x2}, y {y1} to {y2} of {of}, '
          f'in its own pixels; from now on image {self._n_images}',
          label='box',
          style='magenta',
      )
    for part in result.parts:
      if isinstance(part, str):
        self._print(part, style='dim')
      else:
        self._n_images += 1
        self._print(f'from now on image {self._n_images}', label='image')
    if not (result.hits or result.parts):
      self._print(f'{call.name} found nothing', style='dim')
    for rank, hit in enumerate(result.hits, start=1):
      title = ' '.join(hit.title.split()) or '(no title)'
      self._print(f'{title}  ({hit.score:.3f})', label=f'{rank}.')
      lines = hit.text.strip().splitlines() or ['']
      if lines[0]:
        cut = len(lines[0]) > _LINE or len(lines) > 1
        text = lines[0][:_LINE] + (' ...' if cut else '')
        self._print(text, indent=_INDENT + 3, style='dim')

  def _print(
      self, text: str, *, label: str = '', indent: int = _INDENT,
      style: str = '',
  ) -> None:  # fmt: skip
    line = rich.text.Text()
    if label:
      line.append(clean(label).replace('\n', ' ') + ' ', style='bold blue')
    line.append(clean(text), style=style)
    if not self._wraps:  # As it is: for files, and for other programs.
      whole = line.plain.replace('\n', '\n' + ' ' * indent)
      print(' ' * indent + whole, file=self._console.file, flush=True)
      return
    self._console.print(rich.padding.Padding(line, (0, 0, 0, indent)))


def counts(trajectory: Trajectory) -> str:
  """What a conversation took: turns, searches, seconds and their price."""
  return (
      f'{_count(len(trajectory.turns), "turn")}, '
      f'{_count(behaviour.n_searches(trajectory), "search", "es")}, '
      f'{trajectory.seconds["sample"]:.1f} s of the policy, '
      f'{trajectory.seconds["tools"]:.1f} s of tools, '
      f'${trajectory.price:.4f}'
  )


def _count(n: int, what: str, plural: str = 's') -> str:
  return f'{n} {what}' + (plural if n != 1 else '')
