"""Boxes of conversations, in the frame in which a policy writes them.

In sets of ours, whose boxes are in pixels of root images, the crop that answers
a gaze is cut anew, by the tool, from the box as the policy writes it: training
shows just what a rollout would show. Crops in sets of others stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from gog_jax.boxes import BoxSpec
from gog_jax.chat.render import Piece
from gog_jax.conversations.messages import BOX_FRAME
from gog_jax.conversations.messages import ROOT_PIXELS
from gog_jax.errors import UserError
from gog_jax.images import size_of
from gog_jax.storage.records import Unusable
from gog_jax.tools import gaze
from gog_jax.types import Box
from gog_jax.types import ToolCall
from gog_jax.types import View


class FrameError(UserError):
  """Nobody has said in what the boxes of calls are."""


class Regions:
  """The boxes and crops of one conversation."""

  def __init__(
      self,
      frame: str,
      box_spec: BoxSpec,
      seen_size: Callable[[int, int], tuple[int, int]],
  ):
    """Nothing of the conversation has been seen yet.

    Args:
      frame: In what its boxes are, see messages.BOX_FRAME; '' if nobody says
        it.
      box_spec: How the policy writes boxes.
      seen_size: (width, height) of an image file -> of what the policy sees.
    """
    self._frame = frame
    self._box_spec, self._seen_size = box_spec, seen_size
    self._crops: list[View] = []

  def written(self, call: ToolCall, views: Sequence[View]) -> ToolCall:
    """The call with its box, if it has one, as the policy writes it.

    Args:
      call: It obeys its tool's schema.
      views: All images before the call.

    Raises:
      ModelError: The box is no region of its image, or leaves it.
      FrameError, ValueError: It is not known, or unknown, in what it is.
    """
    if call.name != gaze.NAME:
      return call
    arguments = dict(call.arguments)
    kind = self._frame
    if kind in ('', 'resized_pixels') and kind != self._box_spec.kind:
      raise FrameError(
          'this data has boxes: say in what with --config.sft.data_box='
          'thousandths or original_pixels, or resized_pixels for a model that '
          'writes them so and sees the images at that very size; or in the '
          f'column {BOX_FRAME} of each conversation'
      )
    if kind == ROOT_PIXELS:
      kind = 'original_pixels'
      number = int(arguments.get('image', 1))
      if number <= len(views):  # Else the tool's check says what is wrong.
        view = views[number - 1]
        arguments[gaze.BOX] = self._in_view(arguments[gaze.BOX], view)
    view, box = gaze.region(
        arguments,
        views,
        box_spec=BoxSpec(kind=cast(Any, kind), min_side=1),
        seen_size=self._seen_size,
        exact=True,
    )
    size = size_of(view.data)
    box = self._box_spec.to_model(
        box, original_size=size, seen_size=self._seen_size(*size)
    )
    return ToolCall(
        name=call.name, arguments={**arguments, gaze.BOX: list(box)}
    )

  def _in_view(self, box: Box, view: View) -> Box:
    """A box in pixels of a root image -> in pixels of a view of it."""
    x1, y1, x2, y2 = gaze.shifted(box, view.box, sign=-1)
    if not any(view is crop for crop in self._crops):
      return x1, y1, x2, y2
    # In another frame the crop may have become a little smaller.
    width, height = size_of(view.data)
    return max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)

  def shown(
      self,
      calls: Sequence[ToolCall],
      replies: Sequence[list[Piece]],
      views: Sequence[View],
  ) -> Sequence[list[Piece]]:
    """Replies to calls, with the crops that the tool makes of them.

    Args:
      calls: As `written` gives them.
      replies: To each of them.
      views: All images before the calls.

    Raises:
      Unusable: Of a set of ours, it is not clear which reply is to which call.
    """
    if self._frame != ROOT_PIXELS:
      return replies
    if len(calls) != len(replies):
      raise Unusable(
          'turn order', f'{len(replies)} replies to {len(calls)} calls'
      )
    return [
        [
            self._crop(call, views)
            if call.name == gaze.NAME and isinstance(piece, View)
            else piece
            for piece in reply
        ]
        for call, reply in zip(calls, replies, strict=True)
    ]

  def _crop(self, call: ToolCall, views: Sequence[View]) -> View:
    named = gaze.region(
        call.arguments,
        views,
        box_spec=self._box_spec,
        seen_size=self._seen_size,
    )
    self._crops.append(gaze.cut(*named))
    return self._crops[-1]
