"""The frozen records that pass between packages.

Axis letters, obeyed everywhere: P problem (example), G group member,
B batch row, T query time, S key time, V vocabulary, D model width, N query
heads, K key-value heads, H head dimension, F feed-forward width, L layers,
I images, C patch channels (temporal * channels * patch * patch).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import enum
import math
from typing import Any, TypeVar

from jaxtyping import Float32, Int8, Int32
import numpy as np

T = TypeVar('T')

# x1, y1, x2, y2; which frame (original or resized pixels, thousandths) is said
# by the name of the variable that holds it.
Box = tuple[float, float, float, float]


# Stands for the index of an image where a view shows none of the example's.
NO_ROOT = -1


class StopReason(enum.StrEnum):
  """Why a trajectory ended."""

  ANSWER = 'answer'  # The policy answered.
  LENGTH = 'length'  # A turn was cut off by its token limit.
  CONTEXT = 'context'  # The next observation would overflow the context.
  TURNS = 'turns'  # The turn limit was reached without an answer.
  FORMAT = 'format'  # A turn held neither a tool call nor an answer.
  ERROR = 'error'  # Infrastructure failed; no turn was sampled.


class ToolStatus(enum.StrEnum):
  """Whose a failure is: only MODEL_ERROR may cost the policy reward."""

  OK = 'ok'
  MODEL_ERROR = 'model_error'  # Bad JSON, unknown tool, bad box.
  INFRA_ERROR = 'infra_error'  # Timeout, HTTP error, backend down.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example:
  """One question about one or more images.

  Attributes:
    id: Unique within its data set.
    images: Encoded image files (PNG or JPEG), in the order shown.
    question: Plain text; untrusted, never parsed for special tokens.
    answers: Every accepted form; the first is the canonical one.
    source: The data set it comes from.
    scope: Which world or corpus its searches run in.
    search_required: Whether the answer needs a search, where known.
    gold_regions: Boxes in original pixels of image 0, where known.
    hops: How many searches the shortest solution needs, where known.
    image_places: Where in the question each image stands, in characters; all
      before it if empty.
  """

  id: str
  images: tuple[bytes, ...]
  question: str
  answers: tuple[str, ...]
  source: str
  scope: str
  search_required: bool | None = None
  gold_regions: tuple[Box, ...] = ()
  hops: int | None = None
  image_places: tuple[int, ...] = ()

  def in_place(self, images: Sequence[T]) -> list[T | str]:
    """The question with something for each of its images where that stands."""
    parts, start = list[T | str](), 0
    for place, image in zip(self.image_places, images, strict=True):
      parts += [self.question[start:place], image]
      start = place
    return [part for part in (*parts, self.question[start:]) if part != '']


@dataclasses.dataclass(frozen=True, kw_only=True)
class View:
  """An image as a conversation holds it: a root image or a region of one.

  Attributes:
    data: The encoded image file (PNG or JPEG; crops are PNG, lossless).
    root: Index of the example's image that it shows; NO_ROOT for an image that
      a user's tool made, and for crops of one.
    box: The region it shows, in original pixels of the root image, or of the
      tool's.
  """

  data: bytes
  root: int
  box: Box


@dataclasses.dataclass(frozen=True, kw_only=True)
class Placement:
  """Where an image's tokens stand.

  Attributes:
    start: Index of its first image token.
    image: Index into the images of the chunk or trajectory that holds it.
    grid: (t, h, w) in patches, before merging.
    n_tokens: t * h * w / merge_size ** 2.
  """

  start: int
  image: int
  grid: tuple[int, int, int]
  n_tokens: int

  def moved(self, *, n_tokens: int, n_images: int) -> Placement:
    """Where it stands once so many tokens and images more come first."""
    return dataclasses.replace(
        self, start=self.start + n_tokens, image=self.image + n_images
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenChunk:
  """Tokens with their images: a prompt, an observation, a conversation.

  `placements[i].start` counts from the chunk's first token. Each image has one
  placement, in the same order.
  """

  token_ids: tuple[int, ...]
  images: tuple[View, ...] = ()
  placements: tuple[Placement, ...] = ()

  @property
  def n_patches(self) -> int:
    """Of all its images, before merging."""
    return sum(math.prod(placement.grid) for placement in self.placements)

  def after(self, start: int) -> TokenChunk:
    """What comes from token `start` on, before which whole images end."""
    later = [p for p in self.placements if p.start >= start]
    n_images = len(self.images) - len(later)
    return TokenChunk(
        token_ids=self.token_ids[start:],
        images=self.images[n_images:],
        placements=tuple(
            placement.moved(n_tokens=-start, n_images=-n_images)
            for placement in later
        ),
    )

  def __add__(self, other: TokenChunk) -> TokenChunk:
    """One chunk after another, as one."""
    n_tokens, n_images = len(self.token_ids), len(self.images)
    return TokenChunk(
        token_ids=self.token_ids + other.token_ids,
        images=self.images + other.images,
        placements=self.placements
        + tuple(
            placement.moved(n_tokens=n_tokens, n_images=n_images)
            for placement in other.placements
        ),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToolCall:
  """A call as the policy wrote it; `error` says why it cannot be executed."""

  name: str
  arguments: Mapping[str, Any]
  error: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hit:
  """One search result, untrusted.

  Attributes:
    title: Of a document or picture.
    text: What the policy reads of it.
    score: The higher, the better.
    image: An encoded image file, for reports.
    document: What its backend knows of it besides, such as an id and a link,
      in JSON's types. For servers: no trajectory or cache keeps it.
  """

  title: str
  text: str
  score: float
  image: bytes | None = None
  document: Mapping[str, Any] = dataclasses.field(
      default_factory=dict, compare=False, metadata={'stored': False}
  )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToolResult:
  """What a call brought back. A search backend sets `hits`, and may set `raw`.

  Attributes:
    status: ok, the policy's error, or the infrastructure's.
    hits: What the search found, best first.
    view: The crop that a gaze adds to the conversation.
    parts: What a user's tool returned: untrusted text, and images.
    error: One line, empty when status is ok; shown to the policy.
    n_searches: Executed sub-queries, counted honestly.
    latency_s: Wall time in seconds; of a recorded call, the time it took then.
    price: US dollars for all attempts; 0 for a cached answer, but a recording
      keeps what it cost then.
    raw: The response as it came over the wire, if it did; kept by recordings
      and caches alone.
    time: When the call ended, ISO 8601 in UTC; likewise.
  """

  status: ToolStatus = ToolStatus.OK
  hits: tuple[Hit, ...] = ()
  view: View | None = None
  parts: tuple[str | View, ...] = ()
  error: str = ''
  n_searches: int = 0
  latency_s: float = 0.0
  price: float = 0.0
  raw: str | None = dataclasses.field(default=None, metadata={'stored': False})
  time: str = dataclasses.field(default='', metadata={'stored': False})

  @property
  def text(self) -> str:
    """The text that a user's tool returned."""
    return '\n'.join(part for part in self.parts if isinstance(part, str))

  @property
  def images(self) -> tuple[View, ...]:
    """The images that a user's tool returned."""
    return tuple(part for part in self.parts if isinstance(part, View))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ParsedTurn:
  """A policy message, read.

  Attributes:
    text: The message verbatim, without the closing `<|im_end|>`.
    thought: What stands inside `<think>`, stripped.
    calls: Tool calls in order, malformed ones included.
    answer: What stands inside `<answer>`, stripped; None without one.
    format_error: None when the message obeys the format, else why not.
  """

  text: str
  thought: str = ''
  calls: tuple[ToolCall, ...] = ()
  answer: str | None = None
  format_error: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Turn:
  """A policy message and the results its calls brought back, in call order.

  There are no results where the calls were not made: the last turn allowed.
  """

  parsed: ParsedTurn
  results: tuple[ToolResult, ...] = ()
  n_sampled: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
  """A judge's word on an answer.

  Attributes:
    right: Whether it is; None where infrastructure failed and there is no
      verdict.
    by: 'match', 'empty' or 'too_long' where no judge had to be asked,
      else the judge's version.
    error: One line, empty where `right` is known.
  """

  right: bool | None
  by: str
  error: str = ''


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Trajectory:
  """The record of one rollout, token by token.

  Attributes:
    example_id: Whose rollout it is.
    sample: Which member of its group, from 0.
    token_ids: Prompt, sampled turns and observations.
    loss_mask: 1 exactly where the policy sampled the token. Aligned with
      token_ids; only batching shifts.
    sampler_logprobs: 0 where loss_mask is 0.
    images: Every image the policy saw, in order of appearance.
    placements: Where each stands in token_ids.
    turns: The same conversation, read.
    stop_reason: Why it ended.
    answer: The answer given, if any.
    error: One line, empty unless stop_reason is error: why no turn was
      sampled.
    seconds: Wall time by part, e.g. {'sample': 0.2, 'tools': 0.1}.
    reward: Set by rewards; None while unscored.
    reward_parts: The terms of the reward by name, and what else is measured
      of the answer.
    verdict: Where a judge has to say what is right: its word.
    masked: Why the reward is unknown, if it is: the part that had no value.
    usage: What a remote policy's endpoint says it took: 'prompt_tokens',
      'completion_tokens', 'price' (US dollars). Empty for our own, whose tokens
      are all above.
  """

  example_id: str
  sample: int
  token_ids: Int32[np.ndarray, ' T']
  loss_mask: Int8[np.ndarray, ' T']
  sampler_logprobs: Float32[np.ndarray, ' T']
  images: tuple[View, ...]
  placements: tuple[Placement, ...]
  turns: tuple[Turn, ...]
  stop_reason: StopReason
  answer: str | None = None
  seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)
  reward: float | None = None
  reward_parts: Mapping[str, float] = dataclasses.field(default_factory=dict)
  verdict: Verdict | None = None
  masked: str = ''
  usage: Mapping[str, float] = dataclasses.field(default_factory=dict)
  error: str = ''

  def __post_init__(self):
    arrays = (self.token_ids, self.loss_mask, self.sampler_logprobs)
    if len(set(map(np.shape, arrays))) > 1:
      raise ValueError(
          'token_ids, loss_mask and sampler_logprobs differ in size'
      )

  @property
  def calls(self) -> list[tuple[ToolCall, ToolResult]]:
    """Every call that was made, in order, with what it brought back."""
    return [
        made
        for turn in self.turns
        for made in zip(turn.parsed.calls, turn.results)
    ]

  @property
  def price(self) -> float:
    """US dollars for its searches and, where it has one, its endpoint."""
    searches = sum(result.price for _, result in self.calls)
    return self.usage.get('price', 0.0) + searches

  @property
  def spoilt(self) -> bool:
    """Whether the policy's endpoint or a tool failed."""
    return self.stop_reason == StopReason.ERROR or any(
        result.status == ToolStatus.INFRA_ERROR for _, result in self.calls
    )

  @property
  def unjudged(self) -> bool:
    """Whether all went well, but a judge or a reward part did not know."""
    verdict = self.verdict
    unknown = self.masked or (verdict and verdict.right is None)
    return bool(unknown) and not self.spoilt

  @property
  def valid(self) -> bool:
    """False where the infrastructure failed or the reward is unknown."""
    return not (self.spoilt or self.unjudged)
