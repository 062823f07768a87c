"""Lessons of pretraining: conversations about the world, endlessly many."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gog_jax.chat import Chat
from gog_jax.chat.render import whole
from gog_jax.config.pages import PretrainPage
from gog_jax.rollout.transcript import Transcript
from gog_jax.run import RunOf
from gog_jax.toy import grounding
from gog_jax.toy import reading
from gog_jax.toy import scenes
from gog_jax.toy.exchange import Exchange
from gog_jax.toy.expert import to_model_box
from gog_jax.types import Hit
from gog_jax.types import StopReason
from gog_jax.types import TokenChunk
from gog_jax.types import ToolResult
from gog_jax.types import Trajectory

PretrainRun = RunOf[PretrainPage]

# Phases of pretraining in order, each a section of the config.
PHASES = ('read', 'look', 'refer')


class Lessons(Sequence[Trajectory]):
  """Endless lessons, each a function of its index.

  They come in PHASES. Reading comes first: copying is learnt far sooner when
  there is nothing to look at, and pointing builds on it. Then seeing: what is
  where. Last, what 'the left emblem' and the like refer to, which is not learnt
  before the others are (measured: docs/log.md).
  """

  def __init__(self, run: PretrainRun, *, seed: int):
    self._config = c = run.config.pretrain
    self._chat = run.chat
    self._content_ids = np.array(run.chat.content_ids)
    self._to_model_box = to_model_box(run, (scenes.SIZE, scenes.SIZE))
    self._phases = [getattr(c, name) for name in PHASES]
    self._ends = np.cumsum([p.steps * c.batch_size for p in self._phases])
    self._max_tokens = run.config.rollout.max_context
    self._seed = seed

  def __len__(self) -> int:
    return max(int(self._ends[-1]), 1)  # Grain wants one at least.

  def __getitem__(self, index: int) -> Trajectory:
    rng = np.random.default_rng((self._seed, index))
    # A config without steps has one lesson, of the last phase.
    number = np.searchsorted(self._ends[:-1], index, side='right')
    phase = self._phases[int(number)]
    shares = np.array([getattr(phase, kind) for kind in grounding.KINDS])
    scene = None
    transcript = Transcript()
    room = self._max_tokens
    for n in range(self._config.n_exchanges):
      reads, copies = rng.random(2) < (phase.reading, self._config.copying)
      if reads and copies:
        prompt, answer = self._copy_tokens(rng, first=n == 0)
      else:
        if reads:
          exchange = reading.ask(rng)
        else:
          show = scene is None
          scene = scene or grounding.draw_scene(rng, twins=phase.twins)
          kind = str(rng.choice(grounding.KINDS, p=shares / shares.sum()))
          exchange = grounding.ask(
              rng, scene, self._to_model_box, kind=kind, show=show
          )
        prompt, answer = encode(self._chat, exchange, first=n == 0)
      room -= len(prompt.token_ids) + len(answer)
      if n and room < 0:  # The first exchange always fits.
        break
      transcript.append(prompt)
      transcript.append(TokenChunk(token_ids=tuple(answer)), target=True)
    return transcript.trajectory(str(index), StopReason.ANSWER)

  def _copy_tokens(
      self, rng: np.random.Generator, *, first: bool
  ) -> tuple[TokenChunk, list[int]]:
    """The world's request to copy, with random tokens as its text.

    The protocol's tags are among them: every token has to be trained before
    SFT, which trains adapters alone.
    """
    ids = rng.choice(self._content_ids, size=rng.integers(2, 8)).tolist()
    question = reading.COPY.format(text='\0')
    request = self._chat.user([question], first=first)
    marker = self._chat.encode_untrusted('\0')[0]
    at = request.token_ids.index(marker)
    before, after = request.token_ids[:at], request.token_ids[at + 1 :]
    return (
        TokenChunk(token_ids=(*before, *ids, *after)),
        [*ids, self._chat.stop_ids[0]],
    )


def encode(
    chat: Chat, exchange: Exchange, *, first: bool
) -> tuple[TokenChunk, list[int]]:
  """Returns an exchange's prompt, with all that was said before, and answer.

  Args:
    chat: Writes the tokens.
    exchange: What to write.
    first: Whether it opens the conversation.
  """
  if exchange.before is not None:
    assert exchange.thought  # After a call the answer is an agent's, too.
    prompt, called = encode(chat, exchange.before, first=first)
    prompt += TokenChunk(token_ids=tuple(called))
    prompt += chat.observation(exchange.before.calls, [_reply(exchange)])
  else:
    asked = [*whole(exchange.images), exchange.question]
    prompt = chat.user(asked, first=first)
  if not exchange.thought:
    return prompt, [*chat.encode_untrusted(exchange.answer), chat.stop_ids[0]]
  return prompt, chat.encode_turn(
      thought=exchange.thought,
      calls=exchange.calls,
      answer=exchange.answer or None,
  )


def _reply(exchange: Exchange) -> ToolResult:
  """What the call before an exchange brought back."""
  hit = Hit(title='', text=exchange.question, score=0.0)
  crops = whole(exchange.images)  # Where they were cut the model is not told.
  return ToolResult(hits=(hit,), view=crops[0] if crops else None)
