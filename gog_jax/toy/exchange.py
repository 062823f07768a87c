"""One question and its answer: what pretraining's lessons are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses

from gog_jax.types import Box
from gog_jax.types import ToolCall

# Takes a box in pixels of the scene, returns it as the model would write it.
ToModelBox = Callable[[Box], Sequence[int]]
Calls = tuple[ToolCall, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exchange:
  """A question and its answer.

  Attributes:
    images: Shown before the question.
    question: Plain text.
    thought: What comes first. With one, the message is written as an agent
      writes: thought, then answer or call; else the answer is all of it.
    answer: Plain text; '' where the message ends in a call.
    calls: The call that the message ends in, if it does.
    before: The exchange before, if it matters; it is not trained on. It ends in
      a call, which brought the question and, if it was a gaze, the image.
  """

  images: tuple[bytes, ...] = ()
  question: str
  thought: str = ''
  answer: str = ''
  calls: Calls = ()
  before: Exchange | None = None


def gaze(box: Sequence[int]) -> Calls:
  """A gaze at a box, as the model writes it."""
  sides = [int(side) for side in box]
  return (ToolCall(name='gaze', arguments={'bbox_2d': sides}),)


def text_search(query: str) -> Calls:
  return (ToolCall(name='text_search', arguments={'query': query}),)
