"""A stage for the rollout loop: a policy that keeps books, and small tools.

The chat, the executor and the toy's tokenizer are the real ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import functools
from typing import Any

from gog_jax.boxes import BoxSpec
from gog_jax.chat import Chat
from gog_jax.chat import load_dialect
from gog_jax.config.tools import IMAGE
from gog_jax.config.tools import TEXT
from gog_jax.images import ImageProcessor
from gog_jax.rollout import loop
from gog_jax.rollout.policy import Conversation
from gog_jax.rollout.policy import Policy
from gog_jax.rollout.policy import Request
from gog_jax.rollout.policy import SampledTurn
from gog_jax.rollout.scripted import ScriptedPolicy
from gog_jax.tools.base import describe
from gog_jax.tools.base import SearchBackend
from gog_jax.tools.executor import ToolExecutor
from gog_jax.tools.gaze import gaze
from gog_jax.tools.search import text_search
from gog_jax.types import Example
from gog_jax.types import Hit
from gog_jax.types import ToolCall
from gog_jax.types import ToolResult
from gog_jax.types import Trajectory
from gog_jax.types import Turn
from tests import chat_helpers
from tests import search_helpers
from tests.search_helpers import Fake

GAZE = ToolCall(name='gaze', arguments={'bbox_2d': [12, 3, 40, 84]})
SEARCH = ToolCall(name='text_search', arguments={'query': 'beldak year'})
MAX_TURN_TOKENS = 40


class Backend:
  """Finds the same star, and the same year, whatever is asked."""

  version = 'fixed/1'
  kinds = (TEXT, IMAGE)

  async def search_text(self, query, *, scope, top_k):
    del query, scope, top_k
    hit = Hit(title='beldak', text='beldak year 132', score=1.0)
    return ToolResult(hits=(hit,))

  async def search_image(self, data, *, scope, top_k):
    del data, scope, top_k
    hit = Hit(title='beldak', text='beldak red star strong', score=1.0)
    return ToolResult(hits=(hit,))

  async def close(self):
    pass


def fake(x: int) -> ToolCall:
  return ToolCall(name='fake', arguments={'x': x})


def make_executor(
    *fakes: Fake,
    backend: SearchBackend | None = None,
    timeout_s: float = 30.0,
) -> ToolExecutor:
  """Both searching tools of the toy, and the fakes."""
  backend = backend or Backend()
  return search_helpers.make_executor(
      text_search(backend, top_k=1),
      gaze(
          backend,
          top_k=1,
          box_spec=BoxSpec(kind='resized_pixels', min_side=16),
          seen_size=processor().seen_size,
      ),
      *fakes,
      backend=backend,
      timeout_s=timeout_s,
      max_concurrency=16,
  )


def make_chat(executor: ToolExecutor) -> Chat:
  return Chat(
      chat_helpers.TOY,
      dialect=load_dialect('gog_toy'),
      processor=processor(),
      tools=[describe(tool) for tool in executor.tools.values()],
  )


@functools.cache
def processor() -> ImageProcessor:
  return ImageProcessor.from_folder(chat_helpers.TOY)


class Player(ScriptedPolicy):
  """Plays a script and checks that the loop keeps the policy's contract.

  A message without a closing token counts as truncated.

  Attributes:
    heard: Per sample, every token the policy was given or sampled.
    rounds: The samples of who took part in each round.
  """

  def __init__(self, script, stop_ids, *, capacity=4):
    super().__init__(script, capacity)
    self._stop_ids = stop_ids
    self._heard: dict[Conversation, tuple[int, ...]] = {}
    self._holders: dict[int, Conversation] = {}
    self.rounds: list[list[int]] = []

  @property
  def heard(self) -> dict[int, list[int]]:
    return {c.request.sample: list(ids) for c, ids in self._heard.items()}

  def sample(self, conversations: Sequence[Conversation]) -> list[SampledTurn]:
    assert conversations, 'an empty round'
    self.rounds.append([c.request.sample for c in conversations])
    slots = [c.slot for c in conversations]
    assert len(set(slots)) == len(slots)
    assert set(slots) <= set(range(self.capacity))
    for conversation in conversations:
      if conversation in self._heard:
        assert self._holders[conversation.slot] is conversation
        known = self._heard[conversation]
        tokens = conversation.chunk.token_ids
        assert tokens[: len(known)] == known
        assert len(tokens) > len(known), 'nothing answers the last turn'
      self._holders[conversation.slot] = conversation
    turns = super().sample(conversations)
    for conversation, turn in zip(conversations, turns, strict=True):
      self._heard[conversation] = (
          conversation.chunk.token_ids + turn.token_ids
      )
    return [
        SampledTurn(
            token_ids=turn.token_ids,
            logprobs=[-1.0 - i for i in range(len(turn.token_ids))],
            truncated=turn.token_ids[-1] not in self._stop_ids,
        )
        for turn in turns
    ]


def rollout(
    policy: Policy,
    executor: ToolExecutor,
    chat: Chat,
    requests: Sequence[Request],
    *,
    on_trajectory: Callable[[Trajectory], None] = lambda _: None,
    **kwargs: Any,
) -> list[Trajectory]:
  """The trajectories of all requests, in their order."""
  done: dict[int, Trajectory] = {}

  def finished(number, request, trajectory):
    assert trajectory.example_id == request.example.id
    done[number] = trajectory
    on_trajectory(trajectory)

  loop.Loop(
      policy=policy,
      executor=executor,
      chat=chat,
      on_finished=finished,
      **kwargs,
  ).run(requests)
  return [done[number] for number in range(len(requests))]


def limits(**changed: Any) -> loop.ConversationLimits:
  values: dict[str, Any] = {
      'max_turns': 5,
      'max_turn_tokens': MAX_TURN_TOKENS,
      'min_turn_tokens': MAX_TURN_TOKENS,
      'max_context': 2048,
      'max_patches': 2048,
  }
  return loop.ConversationLimits(**(values | changed))


def requests(n: int, example: Example = chat_helpers.EXAMPLE) -> list[Request]:
  return [Request(example=example, sample=i, seed=i) for i in range(n)]


def play(
    script: Callable[[Chat, Request, int], Sequence[int]],
    *fakes: Fake,
    n: int = 1,
    capacity: int = 4,
    on_trajectory: Callable[[Trajectory], None] = lambda _: None,
    on_turn: Callable[[Request, Turn], None] = lambda request, turn: None,
    timeout_s: float = 30.0,
    **changed: Any,
) -> tuple[list[Trajectory], Player, ToolExecutor]:
  """Rolls out `n` requests; a script is told how many turns there were."""
  executor = make_executor(*fakes, timeout_s=timeout_s)
  chat = make_chat(executor)
  policy = Player(
      lambda request, turns: script(chat, request, len(turns)),
      chat.stop_ids,
      capacity=capacity,
  )
  trajectories = rollout(
      policy,
      executor,
      chat,
      requests(n),
      limits=limits(**changed),
      on_trajectory=on_trajectory,
      on_turn=on_turn,
  )
  for trajectory in trajectories:
    # Token-in, token-out: the record is what the policy heard and said.
    heard = policy.heard[trajectory.sample][: limits(**changed).max_context]
    assert trajectory.token_ids.tolist() == heard
  return trajectories, policy, executor


def three_turns(chat: Chat, request: Request | None, n_turns: int):
  """A script: gaze, text search, answer."""
  del request
  return [
      chat.encode_turn(thought='find red star', calls=(GAZE,)),
      chat.encode_turn(thought='need year', calls=(SEARCH,)),
      chat.encode_turn(thought='found', answer='132'),
  ][n_turns]
