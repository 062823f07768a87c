"""Policy <-> tool executor: the act that makes trajectories.

Sampling runs in a worker thread while tools run on the event loop, so that a
slow search of one conversation hides behind the decoding of the others; a
finished conversation's slot is refilled before the next turn is sampled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
import dataclasses
import math
import time

import numpy as np

from gog_jax import interrupt
from gog_jax.chat import Chat
from gog_jax.errors import UserError
from gog_jax.rollout.limits import calls_within
from gog_jax.rollout.limits import RolloutConfig
from gog_jax.rollout.policy import Policy
from gog_jax.rollout.policy import Request
from gog_jax.rollout.policy import SampledTurn
from gog_jax.tools.base import ToolContext
from gog_jax.tools.executor import ToolExecutor
from gog_jax.types import ParsedTurn
from gog_jax.types import Placement
from gog_jax.types import StopReason
from gog_jax.types import TokenChunk
from gog_jax.types import ToolResult
from gog_jax.types import Trajectory
from gog_jax.types import Turn
from gog_jax.types import View

# How long a round waits for the slowest search before it decodes without it.
_GRACE_S = 0.05
# How often a round that can only wait for searches looks for a signal.
_POLL_S = 0.5


class _Conversation:
  """A trajectory in the making."""

  def __init__(self, request: Request, slot: int):
    self.request = request
    self.slot = slot
    self.token_ids: list[int] = []
    self.loss_mask: list[int] = []
    self.logprobs: list[float] = []
    self.images: list[View] = []
    self.placements: list[Placement] = []
    self.turns: list[Turn] = []
    self.seconds = {'sample': 0.0, 'tools': 0.0}
    self.usage: dict[str, float] = {}

  def append_chunk(self, chunk: TokenChunk) -> None:
    n_tokens, n_images = len(self.token_ids), len(self.images)
    self.token_ids.extend(chunk.token_ids)
    self.loss_mask.extend([0] * len(chunk.token_ids))
    self.logprobs.extend([0.0] * len(chunk.token_ids))
    self.images.extend(chunk.images)
    self.placements.extend(
        placement.after(n_tokens=n_tokens, n_images=n_images)
        for placement in chunk.placements
    )

  def append_sampled(self, sampled: SampledTurn) -> None:
    self.token_ids.extend(sampled.token_ids.tolist())
    self.loss_mask.extend([1] * len(sampled.token_ids))
    self.logprobs.extend(sampled.logprobs.tolist())

  def add_usage(self, usage: Mapping[str, float]) -> None:
    for name, value in usage.items():
      self.usage[name] = self.usage.get(name, 0) + value

  def append_turn(self, parsed: ParsedTurn, n_sampled: int) -> None:
    self.turns.append(Turn(parsed=parsed, n_sampled=n_sampled))

  @property
  def name_of_turn(self) -> str:
    """Of its latest, the same whenever the same rollout is made."""
    r = self.request
    return f'{r.origin}/{r.example.id}/{r.seed}/{len(self.turns) - 1}'

  def finish(self, stop_reason: StopReason, error: str) -> Trajectory:
    return Trajectory(
        example_id=self.request.example.id,
        sample=self.request.sample,
        token_ids=np.array(self.token_ids, np.int32),
        loss_mask=np.array(self.loss_mask, np.int8),
        sampler_logprobs=np.array(self.logprobs, np.float32),
        images=tuple(self.images),
        placements=tuple(self.placements),
        turns=tuple(self.turns),
        stop_reason=stop_reason,
        answer=self.turns[-1].parsed.answer if self.turns else None,
        seconds=dict(self.seconds),
        usage=self.usage,
        error=error,
    )


def rollout(
    policy: Policy,
    executor: ToolExecutor,
    chat: Chat,
    requests: Sequence[Request],
    *,
    limits: RolloutConfig,
    on_trajectory: Callable[[Trajectory], None] | None = None,
    on_turn: Callable[[Request, Turn], None] | None = None,
) -> list[Trajectory]:
  """Makes one trajectory per request, in the order of the requests.

  Args:
    policy: Samples turns; owns at most `policy.capacity` conversations.
    executor: Runs tool calls; its failures come back as data.
    chat: Encodes prompts and observations, reads what was sampled.
    requests: What to roll out.
    limits: Turns, tokens and calls.
    on_trajectory: Called as each one finishes, in the order they finish.
    on_turn: Called as soon as a turn is sampled and read, and again when its
      calls, if any were made, have brought back their results.

  Raises:
    Interrupted: After a signal, while nothing is being sampled; no
      conversation is left in the policy.
    UserError: An image cannot be read, or a prompt leaves no room for a turn;
      or no call may be made any more (RunStopped).
    ValueError: The policy holds fewer tokens than `limits` allow.
  """
  done: dict[int, Trajectory] = {}

  def keep(index: int, unused_request: Request, trajectory: Trajectory) -> None:
    done[index] = trajectory
    if on_trajectory is not None:
      on_trajectory(trajectory)

  rollout_each(
      policy,
      executor,
      chat,
      requests,
      keep,
      limits=limits,
      on_turn=on_turn,
  )
  return [done[index] for index in range(len(requests))]


def rollout_each(
    policy: Policy,
    executor: ToolExecutor,
    chat: Chat,
    requests: Iterable[Request],
    on_finished: Callable[[int, Request, Trajectory], None],
    *,
    limits: RolloutConfig,
    on_turn: Callable[[Request, Turn], None] | None = None,
) -> None:
  """As `rollout`, for more requests than memory may hold.

  A request is taken when a slot is about to be free, and nothing is kept of
  what is finished.

  Args:
    policy: As `rollout`, which is also about the others.
    executor: Likewise.
    chat: Likewise.
    requests: What to roll out, made as it is asked for.
    on_finished: Called with a request's number from 0, itself and its
      trajectory as each one finishes.
    limits: Turns and tokens.
    on_turn: As above.
  """
  if limits.max_context > policy.max_context:
    raise ValueError(
        f'conversations of {limits.max_context} tokens, but the policy holds '
        f'{policy.max_context}'
    )
  asyncio.run(
      _rollout(policy, executor, chat, requests, limits, on_finished, on_turn)
  )


class _Waiting:
  """Requests with their numbers; knows whether there is another."""

  def __init__(self, requests: Iterable[Request]):
    self._requests = enumerate(requests)
    self._next = next(self._requests, None)

  def __bool__(self) -> bool:
    return self._next is not None

  def pop(self) -> tuple[int, Request]:
    taken = self._next
    assert taken is not None
    self._next = next(self._requests, None)
    return taken


async def _rollout(
    policy, executor, chat, requests, limits, on_finished, on_turn
) -> None:
  waiting = _Waiting(requests)
  free = list(range(policy.capacity))[::-1]
  active: dict[int, _Conversation] = {}  # By request index.
  searching: dict[asyncio.Task, int] = {}

  def tell(conversation: _Conversation) -> None:
    if on_turn is not None:
      on_turn(conversation.request, conversation.turns[-1])

  def finish(index: int, stop_reason: StopReason, error: str = '') -> None:
    conversation = active.pop(index)
    policy.release(conversation.slot)
    free.append(conversation.slot)
    trajectory = conversation.finish(stop_reason, error)
    on_finished(index, conversation.request, trajectory)

  try:
    while waiting or active:
      interrupt.check()
      while waiting and free:
        index, request = waiting.pop()
        active[index] = _start(policy, chat, request, free.pop(), limits)
      ready = sorted(set(active) - set(searching.values()))
      sampled_turns = await _sample(policy, [active[i] for i in ready])
      for index, sampled in zip(ready, sampled_turns, strict=True):
        conversation = active[index]
        conversation.add_usage(sampled.usage)
        if sampled.error:
          finish(index, StopReason.ERROR, sampled.error)
          continue
        conversation.append_sampled(sampled)
        parsed = chat.parse(sampled.token_ids, truncated=sampled.truncated)
        conversation.append_turn(parsed, len(sampled.token_ids))
        tell(conversation)
        stop_reason = _stop_reason(
            parsed, sampled, last=len(conversation.turns) == limits.max_turns
        )
        if stop_reason is not None:
          finish(index, stop_reason)
          continue
        context = ToolContext(
            scope=conversation.request.example.scope,
            views=tuple(conversation.images),
            caller=conversation.name_of_turn,
        )
        calls = calls_within(limits.max_calls, conversation.turns)
        task = asyncio.create_task(executor.run_turn(calls, context))
        searching[task] = index
      can_refill = waiting and free
      nobody_can_decode = len(searching) == len(active) and not can_refill
      for task in await _some_of(searching, wait=nobody_can_decode):
        index = searching.pop(task)
        stop_reason = _observe(
            policy, chat, active[index], task.result(), limits
        )
        tell(active[index])
        if stop_reason is not None:
          finish(index, stop_reason)
  finally:
    # First what a second signal, which does not wait, must not leave behind.
    for conversation in active.values():
      policy.release(conversation.slot)
    for task in searching:
      task.cancel()
    await asyncio.gather(*searching, return_exceptions=True)
    await executor.close()


def _start(
    policy: Policy,
    chat: Chat,
    request: Request,
    slot: int,
    limits: RolloutConfig,
) -> _Conversation:
  conversation = _Conversation(request, slot)
  prompt = chat.prompt(request.example)
  # A turn without room would push its own tokens out of the KV cache.
  if len(prompt.token_ids) + limits.max_turn_tokens > limits.max_context:
    raise UserError(
        f'the prompt of {request.example.id} takes {len(prompt.token_ids)} '
        f'tokens: with a turn of {limits.max_turn_tokens} that is more than '
        f'--config.rollout.max_context={limits.max_context}; raise it or '
        'lower --config.model.max_image_tokens'
    )
  if (n_patches := _n_patches(prompt.placements)) > limits.max_patches:
    raise UserError(
        f'the images of {request.example.id} take {n_patches} patches, but a '
        f'packed row holds --config.batch.row_patches={limits.max_patches}; '
        'raise it or lower --config.model.max_image_tokens'
    )
  conversation.append_chunk(prompt)
  policy.start(slot, request, prompt)
  return conversation


def _n_patches(placements: Sequence[Placement]) -> int:
  return sum(math.prod(placement.grid) for placement in placements)


async def _sample(
    policy: Policy, conversations: Sequence[_Conversation]
) -> list[SampledTurn]:
  """Everyone's next turn; each is charged an equal share of the time."""
  if not conversations:  # All are searching, and one has just ended.
    return []
  started = time.perf_counter()
  sampled_turns = await asyncio.to_thread(
      policy.sample, [conversation.slot for conversation in conversations]
  )
  seconds = (time.perf_counter() - started) / len(conversations)
  for conversation in conversations:
    conversation.seconds['sample'] += seconds
  return sampled_turns


def _stop_reason(
    parsed: ParsedTurn, sampled: SampledTurn, *, last: bool
) -> StopReason | None:
  """Why the conversation ends with this turn; None when its calls are due."""
  if sampled.truncated:
    return StopReason.LENGTH
  if parsed.answer is not None:
    return StopReason.ANSWER
  if not parsed.calls:
    return StopReason.FORMAT
  # Nobody would read what the last turn's calls bring back: none is made.
  return StopReason.TURNS if last else None


def _observe(
    policy: Policy,
    chat: Chat,
    conversation: _Conversation,
    results: tuple[ToolResult, ...],
    limits: RolloutConfig,
) -> StopReason | None:
  """Appends what the calls brought back, unless the conversation must end.

  An observation that would leave no room for a turn, or has more images than
  training could pack, is dropped whole: text, images and positions. The
  results stay in the record.
  """
  turn = dataclasses.replace(conversation.turns[-1], results=results)
  conversation.turns[-1] = turn
  conversation.seconds['tools'] += max(result.latency_s for result in results)
  observation = chat.observation(
      turn.parsed.calls,
      results,
      question=conversation.request.example.question,
  )
  length = len(conversation.token_ids) + len(observation.token_ids)
  n_patches = _n_patches((*conversation.placements, *observation.placements))
  if (
      length + limits.max_turn_tokens > limits.max_context
      or n_patches > limits.max_patches
  ):
    return StopReason.CONTEXT
  conversation.append_chunk(observation)
  policy.extend(conversation.slot, observation, turn)
  return None


async def _some_of(tasks, *, wait: bool) -> list[asyncio.Task]:
  """Finished tasks, oldest first; at least one of them if `wait`."""
  if not tasks:
    return []
  finished, _ = await asyncio.wait(tasks, timeout=_GRACE_S)
  while not finished and wait:
    interrupt.check()
    finished, _ = await asyncio.wait(
        tasks, timeout=_POLL_S, return_when=asyncio.FIRST_COMPLETED
    )
  return [task for task in tasks if task in finished]
