"""Sections about what is asked over the network: searches, models, a judge."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import difflib
from typing import Literal

from gog_jax.config.fields import above
from gog_jax.config.fields import at_least
from gog_jax.config.fields import FieldError
from gog_jax.config.fields import Section
from gog_jax.config.fields import share

# What is searched with.
TEXT, IMAGE = 'text', 'image'


@dataclasses.dataclass(frozen=True)
class Search:
  """A search tool of ours: what makes it, as MODULE:NAME; TEXT or IMAGE."""

  place: str
  kind: str


# In the order in which policies are told of them. Searching with a crop and
# with the whole image are one kind of search.
SEARCHES = {
    'text_search': Search('gog_jax.tools.search:text_search', TEXT),
    'image_search': Search('gog_jax.tools.search:image_search', IMAGE),
    'gaze': Search('gog_jax.tools.gaze:gaze', IMAGE),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToolLimits(Section):
  """One tool's own limits; 0 inherits those of `tools`."""

  timeout_s: float = at_least(0)  # Of a call, all attempts together.
  max_concurrency: int = at_least(0)  # Calls at a time.
  price: float = at_least(0)  # US dollars an attempt.


INHERITED = ToolLimits(timeout_s=0.0, max_concurrency=0, price=0.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tools(Section):
  """What the policy may call, and what is searched."""

  # Of SEARCHES; a policy's paradigm may leave out more, and so does a backend
  # that cannot serve one.
  offered: tuple[str, ...]
  extra: tuple[str, ...]  # A user's own, FILE.py:NAME: see tools/functions.py.
  # What is searched: 'world'; 'index', an index of one's own documents and
  # images (configs/index.py); 'retriever', a server (configs/retrieve.py); or
  # FILE.py:NAME, what makes a SearchBackend (tools/base.py).
  backend: str
  index: str  # The index's folder.
  encoder: str  # The folder of weights that the index was built with.
  url: str  # The retriever's, e.g. http://127.0.0.1:8000
  version: str  # Of what the retriever holds, where it does not say so itself.
  top_k: int = at_least(1)
  # Of a document, that the policy is shown.
  hit_characters: int = at_least(50)
  timeout_s: float = above(0, ' seconds')  # Of a call, all attempts together.
  max_attempts: int = at_least(1)  # Where a failure may be gone soon.
  # At most, before the second attempt; then twice as long.
  backoff_s: float = at_least(0)
  max_concurrency: int = at_least(1)  # Calls of one tool at a time.
  limits: Mapping[str, ToolLimits]  # By the name of a search.
  # US dollars, over all the starts of the run; needed if there are prices.
  max_spend: float = at_least(0)
  ledger: str  # A file of what was spent; '' is WORKDIR/spent.jsonl.
  # Failed attempts in a row that open the breaker, and seconds before a probe.
  rest_after: int = at_least(1)
  rest_s: float = above(0, ' seconds')
  # 'record' keeps every search in the folder `recording`; 'replay' searches
  # nothing and takes all answers from there.
  mode: Literal['live', 'record', 'replay']
  recording: str  # '' is WORKDIR/recording.
  cache: str  # A file of answers, for this and other runs; '' is none.
  cache_days: float = above(0, '; leave config.tools.cache empty to have none')
  cache_gb: float = above(0, '; leave config.tools.cache empty to have none')
  # Seconds that the run's end waits for searches that may have been paid for.
  drain_s: float = at_least(0)

  def __post_init__(self):
    super().__post_init__()
    for name in self.offered:
      if name not in SEARCHES:
        (nearest,) = difflib.get_close_matches(name, SEARCHES, n=1, cutoff=0)
        raise FieldError(
            f'offered has {name!r}; the nearest is {nearest!r}, and tools of '
            'your own are named in config.tools.extra'
        )
    if len(set(self.extra)) < len(self.extra):
      raise FieldError(f'extra={self.extra} names a tool twice')
    prices = [limits.price for limits in self.limits.values()]
    if any(prices) and self.mode != 'replay' and not self.max_spend:
      raise FieldError(
          f'max_spend is 0, but searches cost up to ${max(prices):g}: say how '
          'much the run may spend with --config.tools.max_spend=DOLLARS'
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Endpoint(Section):
  """A model behind an OpenAI-compatible endpoint, see remote/endpoint.py."""

  url: str  # Up to and including its version: http://127.0.0.1:8080/v1.
  model: str  # Its name at the endpoint.
  key_variable: str  # The environment variable that holds its key.
  timeout_s: float = above(0, ' seconds')  # Of a message, with all attempts.
  max_attempts: int = at_least(1)  # Where a failure may be gone soon.
  temperature: float  # Negative leaves it to the endpoint.
  max_tokens: int = at_least(0)  # Of a message; 0 leaves it to the endpoint.
  concurrency: int = at_least(1)  # Requests at a time.
  price_in: float = at_least(0)  # US dollars per million tokens that it reads
  price_out: float = at_least(0)  # and writes.
  # US dollars, over all the starts of the run; needed if there are prices.
  max_spend: float = at_least(0)
  ledger: str  # A file of what was spent; '' is in the workdir.

  def __post_init__(self):
    super().__post_init__()
    if (self.price_in or self.price_out) and not self.max_spend:
      raise FieldError(
          'max_spend is 0, but messages have a price: say how much the run may '
          'spend on them'
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Remote(Endpoint):
  """The policy `remote`."""

  seeded: bool  # Send each conversation's own seed along.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judge(Endpoint):
  """A judge of answers, asked where reward.accuracy is 'judge'."""

  prompt: str  # A file; '' is judge/prompt.txt.
  cache: str  # A file of verdicts; '' is WORKDIR/verdicts.sqlite.
  # Share of the answers asked about that must get a verdict: below, the run
  # stops.
  min_success: float = share()
  # Longer answers are wrong: no lists of guesses.
  max_answer_characters: int = at_least(1)

  def __post_init__(self):
    super().__post_init__()
    if (self.price_in or self.price_out) and not self.max_tokens:
      raise FieldError(
          'max_tokens=0 sets no bound to what a verdict costs: give one, or no '
          'config.judge.price_in and price_out'
      )
