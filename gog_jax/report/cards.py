"""One trajectory as a web page shows it: the data of templates/card.html.j2.

Everything that came from a search or a policy is untrusted: the template
escapes whatever it prints, images are decoded and encoded anew, and a content
security policy forbids the page to run or fetch anything.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
import functools
import io
import json
from typing import Any

import jinja2

from gog_jax import boxes
from gog_jax import images
from gog_jax.errors import UserError
from gog_jax.report import charts
from gog_jax.rewards import behaviour
from gog_jax.types import Box
from gog_jax.types import Example
from gog_jax.types import Trajectory

# Longest sides, in pixels, of embedded images.
_SCENE_SIDE = 640
_THUMBNAIL_SIDE = 192
# Above this many pixels JPEG is several times smaller and looks the same.
_PNG_PIXELS = 256 * 256
_LINE = 64  # Up to this length, arguments stand on one line.


def render(template: str, *, package: str, **values: Any) -> str:
  """A page that needs nothing but itself.

  Args:
    template: Of the folder `templates` of `package`; it may build on ours.
    package: E.g. 'gog_jax.report'.
    **values: Of the template.
  """
  packages = (package, 'gog_jax.report')
  environment = jinja2.Environment(
      loader=jinja2.ChoiceLoader([*map(jinja2.PackageLoader, packages)]),
      autoescape=True,
      undefined=jinja2.StrictUndefined,
      trim_blocks=True,
      lstrip_blocks=True,
  )
  environment.filters |= {
      'percent': _percent,
      'pretty': _pretty,
      'short': charts.short,
      'thumbnail': lambda data: _embed(data, _THUMBNAIL_SIDE),
      'verdict': {None: 'unknown', True: 'hit', False: 'miss'}.get,
  }
  html = environment.get_template(template).render(values)
  # Policies can write lone surrogates; UTF-8 cannot.
  return html.encode('utf-8', 'replace').decode('utf-8')


def card(
    policy: str,
    example: Example,
    trajectory: Trajectory,
    *,
    others: Sequence[tuple[str, Trajectory]] = (),
) -> dict[str, Any]:
  """What the template shows of one trajectory.

  Args:
    policy: The name of its policy.
    example: What was asked; without accepted answers nothing is judged.
    trajectory: Scored, if there are accepted answers.
    others: Other policies' trajectories of this example, each after its name.
  """
  gazes = behaviour.gazes(example, trajectory)
  labels = _labels(gazes)
  return {
      'policy': policy,
      'example': example,
      'trajectory': trajectory,
      'outcome': _outcome(example, trajectory),
      'gazed': bool(gazes),
      'recovered': bool(behaviour.recovered(gazes)),
      'scenes': [
          _scene(root, example, gazes, labels)
          for root in range(len(example.images))
      ],
      'gazes': {(gaze.turn, gaze.call): gaze for gaze in gazes},
      'labels': labels,
      'others': [(name, t.answer, _outcome(example, t)) for name, t in others],
  }


def _outcome(example: Example, trajectory: Trajectory) -> str:
  if not example.answers:  # It is not known what would be right.
    return 'unanswered' if trajectory.answer is None else 'answered'
  if not trajectory.valid:
    return 'infra'
  accuracy = trajectory.reward_parts['accuracy']
  return 'right' if accuracy >= 1 else 'partly' if accuracy > 0 else 'wrong'


def _labels(gazes: Sequence[behaviour.Gaze]) -> dict[tuple[int, int], str]:
  """(turn, call) -> the turn's number; a letter tells its gazes apart."""
  labels = {}
  for gaze in gazes:
    of_turn = [other.call for other in gazes if other.turn == gaze.turn]
    letter = chr(ord('a') + of_turn.index(gaze.call)) if of_turn[1:] else ''
    labels[gaze.turn, gaze.call] = f'{gaze.turn + 1}{letter}'
  return labels


def _scene(
    root: int,
    example: Example,
    gazes: Sequence[behaviour.Gaze],
    labels: Mapping[tuple[int, int], str],
) -> dict[str, Any]:
  """A root image and the boxes drawn over it, in its original pixels."""
  try:
    width, height = images.size_of(example.images[root])
  except UserError:
    width, height = 1, 1
  size = 0.052 * max(width, height)
  drawn, badges = [], []
  for gaze in gazes:
    if gaze.view.root == root:
      label = labels[gaze.turn, gaze.call]
      badges.append(_badge(gaze.view.box, label, size, width, badges))
      drawn.append({'gaze': gaze, 'label': label, 'badge': badges[-1]})
  return {
      'image': _embed(example.images[root], _SCENE_SIDE),
      'width': width,
      'height': height,
      'font': size,
      'boxes': drawn,
      # Gold regions are only ever given in image 0.
      'gold': example.gold_regions if root == 0 else (),
  }


def _badge(
    box: Box,
    label: str,
    size: float,
    image_width: int,
    taken: Sequence[Box],
) -> Box:
  """Where a gaze's number goes: above its box if there is room, else inside.

  It is moved to the right of earlier badges.
  """
  width, height = size * (0.62 * len(label) + 0.55), size * 1.3
  y = box[1] - height if box[1] >= height else box[1]
  x = min(box[0], image_width - width)
  while True:
    badge = (x, y, x + width, y + height)
    if not any(boxes.iou(badge, other) > 0 for other in taken):
      return badge
    x += width * 1.05


def _pretty(arguments: Mapping[str, Any]) -> str:
  line = json.dumps(arguments, ensure_ascii=False)
  if len(line) <= _LINE:
    return line
  return json.dumps(arguments, ensure_ascii=False, indent=2)


@functools.lru_cache(maxsize=256)
def _embed(data: bytes, longest_side: int) -> str | None:
  """An image as a data: address, no larger than needed.

  Never the bytes as they came: decoding and encoding anew leaves pixels only.
  None where they are no image.
  """
  try:
    image = images.decode(data)
  except UserError:
    return None
  image.thumbnail((longest_side, longest_side))
  buffer, kind = io.BytesIO(), 'png'
  if image.width * image.height > _PNG_PIXELS:
    kind = 'jpeg'
  image.save(buffer, format=kind, quality=85)
  encoded = base64.b64encode(buffer.getvalue()).decode('ascii')
  return f'data:image/{kind};base64,{encoded}'


def _percent(share: float | None) -> str:
  return '–' if share is None else f'{100 * share:.1f}'
