"""Boxes in the texts of ms-swift's rows: `<ref-object>` and `<bbox>`.

The n-th of each, over all messages, stands for the n-th name and box in the
column `objects`:

    {"ref": [..], "bbox": [[x1, y1, x2, y2], ..], "bbox_type": "real",
     "image_id": [0, ..]}

`real` are pixels of the image file, `norm1000` and `norm1` thousandths and
fractions of it. The list of {ref or caption, bbox, ..} of ms-swift 2 is read as
well. A conversation keeps them as they are; a policy is shown, and writes,
boxes in its own frame.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import json
import re
from typing import Any

from gog_jax.boxes import BoxError
from gog_jax.boxes import BoxSpec
from gog_jax.conversations.messages import BOX_FRAME
from gog_jax.conversations.messages import Conversation
from gog_jax.conversations.messages import escape
from gog_jax.conversations.messages import Message
from gog_jax.conversations.messages import ROOT_PIXELS
from gog_jax.conversations.spellings import listed
from gog_jax.conversations.spellings import parsed
from gog_jax.conversations.spellings import unfilled
from gog_jax.images import size_of
from gog_jax.storage.records import Unusable

REF, BBOX = '<ref-object>', '<bbox>'
# Their types of boxes -> ours, and a factor.
_TYPES = {
    'real': ('original_pixels', 1),
    'norm1000': ('thousandths', 1),
    'norm1': ('thousandths', 1000),
}


def filled(
    told: Conversation,
    box_spec: BoxSpec,
    seen_size: Callable[[int, int], tuple[int, int]],
) -> Conversation:
  """The conversation with names and boxes in its texts.

  Args:
    told: As it was read.
    box_spec: How the policy writes boxes.
    seen_size: (width, height) of an image file -> of what the policy sees.

  Raises:
    Unusable: `objects` does not hold them, a box is no region of its image, or
      a text is about videos or sounds.
  """
  text = ''.join(one.text for one in told.messages)
  n_refs, n_boxes = text.count(REF), text.count(BBOX)
  if told.columns.get(BOX_FRAME) != ROOT_PIXELS and (found := unfilled(text)):
    detail = f'{found} in a text: only images can be used'
    raise Unusable(found, detail)
  if not n_refs + n_boxes:
    return told
  try:
    refs, boxes = _held(parsed(told.columns.get('objects')) or {})
    for word, n, held in ((REF, n_refs, refs), (BBOX, n_boxes, boxes)):
      if n and n != len(held):
        raise ValueError(f'{n} {word} in the texts, {len(held)} held')
  except (AttributeError, TypeError, ValueError) as error:
    detail = f'its column objects does not fit its texts: {error}'
    raise Unusable('objects differ', detail) from error

  def written(box: Any, kind: Any, number: Any) -> str:
    try:
      ours, scale = _TYPES[kind or 'real']
      data = told.pictures[range(len(told.pictures))[number or 0]].read()
      size = size_of(data)
      seen = {'original_size': size, 'seen_size': seen_size(*size)}
      box = BoxSpec(kind=ours, min_side=1).to_original(  # pyright: ignore
          [edge * scale for edge in box], **seen, exact=True
      )
      return json.dumps(box_spec.to_model(box, **seen), separators=(',', ':'))
    except (BoxError, LookupError, TypeError) as error:
      raise Unusable(
          'bad box',
          f'objects: bbox {box!r:.60}, bbox_type {kind!r} and image_id '
          f'{number!r} name no region of {len(told.pictures)} images ({error})',
      ) from error

  fills = {
      REF: iter([escape(str(one)) for one in refs]),
      BBOX: iter([written(*one) for one in boxes]),
  }

  def fill(one: Message) -> Message:
    text = re.sub(f'{REF}|{BBOX}', lambda m: next(fills[m[0]]), one.text)
    return dataclasses.replace(one, text=text)

  return dataclasses.replace(told, messages=tuple(map(fill, told.messages)))


def _held(objects: Any) -> tuple[list[Any], list[tuple[Any, Any, Any]]]:
  """Names; and boxes, each with its type and the number of its image."""
  if isinstance(objects, list):
    names = {'bbox': '', 'ref': 'caption', 'image_id': 'image', 'bbox_type': ''}
    objects = {
        name: [one.get(name, one.get(old)) for one in objects]
        for name, old in names.items()
    }
  boxes = listed(objects.get('bbox'))
  if boxes and not isinstance(boxes[0], list):
    boxes = [boxes]
  about = [
      value if isinstance(value, list) else [value] * len(boxes)
      for value in map(objects.get, ('bbox_type', 'image_id'))
  ]
  return listed(objects.get('ref')), [*zip(boxes, *about, strict=True)]
