"""Estimates what a build takes at most, before it asks anything."""

from __future__ import annotations

import dataclasses
import statistics

from gog_jax.evaluation import policies
from gog_jax.instruct import build
from gog_jax.instruct.answers import outcome_of
from gog_jax.instruct.teachers import InstructRun
from gog_jax.remote import ledger
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
    messages: All messages of the teacher.
    tool_calls: At one call a message.
    tokens_in: Of prompts, by our tokenizer, each message's anew.
    tokens_out: Of messages.
    dollars: At the given prices; None without any.
  """

  queries: int
  done: int
  direct: int
  conversations: int
  messages: int
  tool_calls: int
  tokens_in: int
  tokens_out: int
  dollars: float | None


def estimate(run: InstructRun) -> Estimate:
  """Counts what is left to ask.

  Raises:
    UserError: The sources cannot be read.
  """
  c, rollout = run.config.instruct, run.config.rollout
  questions = build.questions_of(run)
  folder = build.folder_of(run)
  answers, tries = (
      rollouts.items(folder / name) for name in ('direct', 'tries')
  )
  done = sum(
      outcome_of(index, answers, tries, c) is not None
      for index in range(len(questions))
  )
  left = len(questions) - done
  direct, conversations = left * c.n_direct, left * c.samples
  prompt = statistics.fmean(
      len(run.chat.prompt(example).token_ids)
      for example in questions[:_PROBED]
  )
  said = rollout.max_turn_tokens
  if c.teacher == policies.REMOTE and run.config.remote.max_tokens:
    said = min(said, run.config.remote.max_tokens)
  found = run.config.tools.top_k * run.config.tools.hit_characters
  turn = said + found / _CHARACTERS
  turns = rollout.max_turns
  # Message k of a conversation is asked with all that came before it.
  asked = sum(
      min(prompt + k * turn, rollout.max_context) for k in range(turns)
  )
  tokens_in = round(direct * prompt + conversations * asked)
  tokens_out = (direct + conversations * turns) * said
  dollars = None
  prices = run.config.remote
  if c.teacher == policies.REMOTE and (prices.price_in or prices.price_out):
    dollars = ledger.dollars(prices, tokens_in, tokens_out)
  return Estimate(
      queries=len(questions),
      done=done,
      direct=direct,
      conversations=conversations,
      messages=direct + conversations * turns,
      tool_calls=conversations * (turns - 1),
      tokens_in=tokens_in,
      tokens_out=tokens_out,
      dollars=dollars,
  )


def table(run: InstructRun) -> str:
  """The same for people."""
  e = estimate(run)
  c = run.config
  price = 'nothing'
  if e.dollars is not None:
    price = f'${e.dollars:,.2f}, and no more than ${c.remote.max_spend:,.2f}'
  elif c.instruct.teacher == policies.REMOTE:
    price = 'unknown: give --config.remote.price_in and price_out'
  rows = (
      ('questions', f'{e.queries:,}, of which {e.done:,} are done'),
      ('direct answers', f'{e.direct:,}'),
      ('conversations', f'{e.conversations:,}'),
      ('messages of the teacher', f'{e.messages:,}'),
      ('tool calls', f'{e.tool_calls:,}'),
      ('tokens read', f'{e.tokens_in:,}'),
      ('tokens written', f'{e.tokens_out:,}'),
      ('price of the teacher', price),
  )
  width = max(len(name) for name, _ in rows)
  lines = [f'{name:<{width}}  {value}' for name, value in rows]
  return '\n'.join(['At most, and not counting what fails:', *lines])
