"""Estimates what a build takes at most, before it asks anything."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import math
import statistics

from gog_jax.evaluation import estimate as of_rollouts
from gog_jax.evaluation import policies
from gog_jax.instruct import build
from gog_jax.instruct.answers import outcome_of
from gog_jax.instruct.teachers import InstructRun
from gog_jax.storage import rollouts

_PROBED = 8  # Prompts that are encoded for the estimate.
_CHARACTERS = 4  # Of a token, roughly.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
  """Upper bounds; a build ends as soon as it has its samples.

  Attributes:
    queries: Questions that may be asked.
    done: Of these, with nothing left to ask.
    direct: Direct answers, a message each.
    conversations: Conversations with tools.
    most: As in evaluation/estimate.py: the teacher's messages are 'turns', with
      a call each; its 'prompt_tokens', by our tokenizer, are each message's
      anew.
  """

  queries: int
  done: int
  direct: int
  conversations: int
  most: Mapping[str, float]


def estimate(run: InstructRun) -> Estimate:
  """Counts what is left to ask.

  Raises:
    UserError: The sources cannot be read.
  """
  c, rollout = run.config.instruct, run.config.rollout
  remote = run.config.remote
  questions = build.questions_of(run)
  folder = build.folder_of(run.workdir)
  answers, tries = (
      rollouts.items(folder / name) for name in ('direct', 'tries')
  )
  done = sum(
      outcome_of(index, answers, tries, c) is not None
      for index in range(len(questions))
  )
  left = len(questions) - done
  direct, conversations = left * c.n_direct, left * c.samples
  turns = rollout.max_turns
  n_calls = conversations * (turns - 1)
  most = {
      'turns': direct + conversations * turns,
      'calls': n_calls,
      'judged': (direct + conversations) * run.config.reward.asks_judge,
      'price': n_calls * of_rollouts.price_of_call(run) if n_calls else 0.0,
  }
  if c.teacher == policies.REMOTE and left:
    prompt = statistics.fmean(
        len(run.chat.prompt(example).token_ids)
        for example in questions[:_PROBED]
    )
    said = min(rollout.max_turn_tokens, remote.max_tokens or math.inf)
    found = run.config.tools.top_k * run.config.tools.hit_characters
    # Message k of a conversation is asked with all that came before it.
    asked = sum(
        min(prompt + k * (said + found / _CHARACTERS), rollout.max_context)
        for k in range(turns)
    )
    most['prompt_tokens'] = round(direct * prompt + conversations * asked)
    most['completion_tokens'] = most['turns'] * said
    most['price'] += of_rollouts.price_of(
        remote, most['prompt_tokens'], most['completion_tokens']
    )
  return Estimate(
      queries=len(questions),
      done=done,
      direct=direct,
      conversations=conversations,
      most=most,
  )


def describe(e: Estimate) -> list[str]:
  """For a terminal, two lines."""
  return [
      f'{e.queries:,} questions, {e.done:,} done: {e.direct:,} direct answers '
      f'and {e.conversations:,} conversations at most, what fails not counted',
      f'at most   {of_rollouts.line(e.most)}',
  ]
