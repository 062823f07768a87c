"""One question and its answer: what pretraining's lessons are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses

from gog_jax.types import Box
from gog_jax.types import ToolCall

# Takes a box in pixels of the scene, returns it as the model would write it.
ToModelBox = Callable[[Box], Sequence[int]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exchange:
  """A question and its answer.

  Attributes:
    images: Shown before the question.
    question: Plain text.
    thought: What comes first. With one, the message is written as an agent
      writes: thought, then answer or call; else the answer is all of it.
    answer: Plain text; '' where the message ends in a call.
    gaze: The box that is pointed at, as the model writes it.
    query: What is searched for in texts.
    before: What was said before, if it matters; no target of training. It ends
      in a call: the question is what that brought, the image a gaze's crop.
  """

  images: tuple[bytes, ...] = ()
  question: str
  thought: str = ''
  answer: str = ''
  gaze: tuple[int, ...] = ()
  query: str = ''
  before: Exchange | None = None

  @property
  def calls(self) -> list[ToolCall]:
    """The calls that the message ends in, one at most."""
    if self.gaze:
      return [ToolCall(name='gaze', arguments={'bbox_2d': list(self.gaze)})]
    if self.query:
      return [ToolCall(name='text_search', arguments={'query': self.query})]
    return []
