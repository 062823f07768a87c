"""The rollout loop: a policy and the tool executor make trajectories.

Sampling runs in a worker thread while tools run on the event loop, so that a
slow search of one conversation hides behind the decoding of the others. The
slot of a finished conversation is refilled before the next turn is sampled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
import dataclasses
import time
from typing import Any

from gog_jax import interrupt
from gog_jax.chat import Chat
from gog_jax.errors import UserError
from gog_jax.rollout.limits import calls_within
from gog_jax.rollout.limits import ConversationLimits
from gog_jax.rollout.policy import Conversation
from gog_jax.rollout.policy import Policy
from gog_jax.rollout.policy import Request
from gog_jax.rollout.policy import SampledTurn
from gog_jax.tools.base import ToolContext
from gog_jax.tools.executor import ToolExecutor
from gog_jax.types import Example
from gog_jax.types import ParsedTurn
from gog_jax.types import StopReason
from gog_jax.types import TokenChunk
from gog_jax.types import Trajectory
from gog_jax.types import Turn

# How long a round waits for the slowest search before it decodes without it.
_GRACE_S = 0.05
# How often signals are checked while all conversations are searching.
_POLL_S = 0.5


@dataclasses.dataclass(kw_only=True)
class Loop:
  """Rolls out requests: one trajectory each.

  Attributes:
    policy: Samples turns, of at most `policy.capacity` conversations at once.
    executor: Runs tool calls; its failures come back as data.
    chat: Encodes prompts and observations, reads what was sampled.
    limits: Turns, tokens and calls.
    on_finished: Called as each one finishes, with the number of the request,
      from 0, the request and the trajectory.
    on_turn: Called as soon as a turn is sampled and parsed, and again once the
      results of its calls are in, if it made any.
    free: Slots that no conversation has.
    active: Conversations under way, by the number of the request.
    searching: Those numbers whose calls are running.
    prompted: The example that came last, and its prompt: an example's samples
      follow one another.
  """

  policy: Policy
  executor: ToolExecutor
  chat: Chat
  limits: ConversationLimits
  on_finished: Callable[[int, Request, Trajectory], None]
  on_turn: Callable[[Request, Turn], None] = lambda request, turn: None

  def __post_init__(self):
    self.free = list(range(self.policy.capacity))[::-1]
    self.active: dict[int, Conversation] = {}
    self.searching: dict[asyncio.Task, int] = {}
    self.prompted: tuple[Any, Any] = (None, None)

  def run(self, requests: Iterable[Request]) -> None:
    """Rolls out all requests.

    A request is taken when a slot is free, and nothing is kept of finished
    ones, so there may be more requests than fit in memory.

    Raises:
      Interrupted: After a signal, while nothing is being sampled.
      UserError: An image cannot be read, or a prompt leaves no room for a turn;
        or no call may be made any more (RunStopped).
    """
    asyncio.run(self._run(requests))

  async def _run(self, requests: Iterable[Request]) -> None:
    numbered = enumerate(requests)
    waiting = next(numbered, None)
    try:
      while waiting or self.active:
        interrupt.check()
        while waiting and self.free:
          self._start(*waiting)
          waiting = next(numbered, None)
        await self._sample()
        all_search = len(self.searching) == len(self.active)
        can_start = waiting and self.free
        await self._observe(wait=all_search and not can_start)
    finally:
      for task in self.searching:
        task.cancel()
      await asyncio.gather(*self.searching, return_exceptions=True)
      await self.executor.close()

  def _start(self, number: int, request: Request) -> None:
    example = request.example
    if self.prompted[0] is not example:
      self.prompted = example, prompt_of(example, self.chat, self.limits)
    conversation = Conversation(request=request, slot=self.free.pop())
    conversation.append(self.prompted[1])
    self.active[number] = conversation

  async def _sample(self) -> None:
    """Samples the next turn of all that are not searching; starts its calls."""
    ready = sorted(set(self.active) - set(self.searching.values()))
    if not ready:  # All are searching, since one has just ended.
      return
    started = time.perf_counter()
    sampled_turns = await asyncio.to_thread(
        self.policy.sample, [self.active[number] for number in ready]
    )
    seconds = (time.perf_counter() - started) / len(ready)
    for number, sampled in zip(ready, sampled_turns, strict=True):
      conversation = self.active[number]
      conversation.seconds['sample'] += seconds  # An equal share each.
      for name, value in sampled.usage.items():
        conversation.usage[name] = conversation.usage.get(name, 0) + value
      if sampled.error:
        self._finish(number, StopReason.ERROR, sampled.error)
        continue
      room = self.limits.max_context - len(conversation.chunk.token_ids)
      if len(sampled.token_ids) > room:  # Not every policy knows the limit.
        sampled = dataclasses.replace(
            sampled,
            token_ids=sampled.token_ids[:room],
            logprobs=sampled.logprobs[:room],
            truncated=True,
        )
      parsed = self.chat.parse(sampled.token_ids, truncated=sampled.truncated)
      if sampled.untagged and parsed.answer is None and not (
          sampled.truncated or parsed.calls
      ):
        parsed = dataclasses.replace(
            parsed,
            answer=sampled.untagged,
            format_error=f'the answer has no tags; {parsed.format_error}',
        )
      conversation.append(
          TokenChunk(token_ids=sampled.token_ids),
          target=True,
          logprobs=sampled.logprobs,
      )
      turn = Turn(parsed=parsed, n_sampled=len(sampled.token_ids))
      conversation.turns.append(turn)
      self.on_turn(conversation.request, turn)
      last = len(conversation.turns) == self.limits.max_turns
      if stop_reason := _stop_reason(parsed, sampled, last=last):
        self._finish(number, stop_reason)
        continue
      calls = calls_within(self.limits.max_calls, conversation.turns)
      running = self.executor.run_turn(calls, _tool_context(conversation))
      self.searching[asyncio.create_task(running)] = number

  async def _observe(self, *, wait: bool) -> None:
    """Appends the results of finished calls; awaits at least one if `wait`.

    An observation that leaves no room for another turn, or has more images than
    training can pack, is dropped whole (text, images and positions) and ends
    the conversation. The results stay in the record.
    """
    for task in await _some_of(self.searching, wait=wait):
      number, results = self.searching.pop(task), task.result()
      conversation = self.active[number]
      turn = dataclasses.replace(conversation.turns[-1], results=results)
      conversation.turns[-1] = turn
      conversation.seconds['tools'] += max(r.latency_s for r in results)
      observation = self.chat.observation(
          turn.parsed.calls,
          results,
          question=conversation.request.example.question,
      )
      self.on_turn(conversation.request, turn)
      if self.limits.leave_room(conversation.chunk + observation):
        conversation.append(observation)
      else:
        self._finish(number, StopReason.CONTEXT)

  def _finish(
      self, number: int, stop_reason: StopReason, error: str = ''
  ) -> None:
    conversation = self.active.pop(number)
    self.free.append(conversation.slot)
    request = conversation.request
    trajectory = conversation.trajectory(
        request.example.id,
        stop_reason,
        sample=request.sample,
        seconds=conversation.seconds,
        usage=conversation.usage,
        error=error,
    )
    self.on_finished(number, request, trajectory)


def prompt_of(
    example: Example, chat: Chat, limits: ConversationLimits
) -> TokenChunk:
  """What a conversation begins with.

  Raises:
    UserError: An image cannot be read, or there is no room for a turn.
  """
  prompt = chat.prompt(example)
  # A turn without room would overflow the KV cache.
  if len(prompt.token_ids) + limits.min_turn_tokens > limits.max_context:
    raise UserError(
        f'the prompt of {example.id} takes {len(prompt.token_ids)} tokens: '
        f'with a turn of {limits.min_turn_tokens} that is more than '
        f'--config.rollout.max_context={limits.max_context}; raise it or '
        'lower --config.model.max_image_tokens'
    )
  if prompt.n_patches > limits.max_patches:
    raise UserError(
        f'the images of {example.id} take {prompt.n_patches} patches, but a '
        f'packed row holds --config.batch.row_patches={limits.max_patches}; '
        'raise it or lower --config.model.max_image_tokens'
    )
  return prompt


def refusal_of(
    example: Example, chat: Chat, limits: ConversationLimits
) -> str:
  """Why no conversation can begin with an example; '' where one can."""
  try:
    prompt_of(example, chat, limits)
  except UserError as error:
    return str(error)
  return ''


def _tool_context(conversation: Conversation) -> ToolContext:
  """The part of the conversation that its latest calls may look at."""
  r = conversation.request
  # The same whenever this rollout is repeated.
  caller = f'{r.origin}/{r.example.id}/{r.seed}/{len(conversation.turns) - 1}'
  return ToolContext(
      scope=r.example.scope, views=conversation.chunk.images, caller=caller
  )


def _stop_reason(
    parsed: ParsedTurn, sampled: SampledTurn, *, last: bool
) -> StopReason | None:
  """Why the conversation ends with this turn; None if its calls are due."""
  if sampled.truncated:
    return StopReason.LENGTH
  if parsed.answer is not None:
    return StopReason.ANSWER
  if not parsed.calls:
    return StopReason.FORMAT
  # Nobody would read the results of the last turn's calls, so none are made.
  return StopReason.TURNS if last else None


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
