"""Policies that a user writes in Python: `config.eval.script`.

    def play(request, turns):
      '''What to say: (thought, calls, answer), or the token ids of a message.

      request.example is what is asked; turns are those so far, each with
      `parsed` and `results`. Calls are ToolCalls or (name, arguments); the
      answer is None where calls are made.
      '''
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gog_jax import seams
from gog_jax.chat import Chat
from gog_jax.errors import UserError
from gog_jax.rollout.policy import Request
from gog_jax.rollout.scripted import Script
from gog_jax.types import ToolCall
from gog_jax.types import Turn


def script_of(name: str, chat: Chat) -> Script:
  """A policy's script, from what a user's function says.

  Raises:
    UserError: There is no such function; and as it plays, that it says neither.
  """
  play = seams.load(name, {}, field='config.eval.script')

  def script(request: Request, turns: tuple[Turn, ...]) -> Sequence[int]:
    said = play(request, turns)
    if isinstance(said, tuple) and len(said) == 3:
      thought, calls, answer = said
      return chat.encode_turn(
          thought=thought,
          calls=[_call(call) for call in calls],
          answer=answer,
      )
    if isinstance(said, list) and all(isinstance(x, int) for x in said):
      return said
    raise UserError(
        f'config.eval.script={name} said {str(said)[:80]!r}: return (thought, '
        'calls, answer), or a list of token ids'
    )

  return script


def _call(call: Any) -> ToolCall:
  if isinstance(call, ToolCall):
    return call
  name, arguments = call
  return ToolCall(name=name, arguments=arguments)
