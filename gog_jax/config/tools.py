"""Sections about what is asked over the network: searches, models, a judge."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

from immutabledict import immutabledict

from gog_jax.storage import typed

# What to type where the embedded world is no help.
YOURS = (
    'pass --config.tools.backend=index --config.tools.index=FOLDER, or '
    '--config.tools.backend=retriever --config.tools.url=URL'
)

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

_NO_CACHE = ' (for no cache, leave config.tools.cache empty)'
Offered = Annotated[
    str,
    typed.Bound(
        f'one of {", ".join(SEARCHES)} (tools of your own are named in '
        'config.tools.extra)',
        SEARCHES.__contains__,
    ),
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToolLimits:
  """One tool's own limits; 0 inherits those of `tools`."""

  timeout_s: typed.Amount  # Per call, over all attempts.
  max_concurrency: typed.Count  # Calls at a time.
  price: typed.Amount  # US dollars per attempt.


INHERITED = ToolLimits(timeout_s=0.0, max_concurrency=0, price=0.0)


# Of ToolsConfig, what a policy may have of its own.
_OWN = (
    'offered', 'extra', 'top_k', 'hit_characters', 'timeout_s',
    'max_attempts', 'backoff_s', 'max_concurrency', 'drain_s',
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToolsConfig:
  """What the policy may call, and what is searched."""

  # A policy's paradigm may leave out more, and so does a backend that cannot
  # serve one.
  offered: tuple[Offered, ...]
  # A user's own, FILE.py:NAME: see tools/functions.py.
  extra: Annotated[tuple[str, ...], typed.DIFFERENT]
  # What is searched: 'world'; 'index', an index of one's own documents and
  # images (configs/index.py); 'retriever', a server (configs/retrieve.py);
  # FILE.py:NAME, what makes a SearchBackend (tools/base.py); or '', nothing.
  backend: str
  # With words alone, and with images; as `backend` where they are not set.
  text: str
  image: str
  index: str  # The index's folder.
  encoder: str  # The folder of weights that the index was built with.
  url: str  # The retriever's, e.g. http://127.0.0.1:8000
  version: str  # Of what the retriever holds, where it does not say so itself.
  top_k: typed.Positive
  # Of a document, shown to the policy.
  hit_characters: Annotated[int, typed.at_least(50)]
  timeout_s: typed.Seconds  # Per call, over all attempts.
  max_attempts: typed.Positive  # Where a failure may be transient.
  # The most before the second attempt; it doubles with each.
  backoff_s: typed.Amount
  max_concurrency: typed.Positive  # Calls of one tool at a time.
  limits: immutabledict[str, ToolLimits]  # By the name of a search.
  # US dollars, over all the starts of the run; needed if there are prices.
  max_spend: typed.Amount
  ledger: str  # A file of what was spent; '' is WORKDIR/spent.jsonl.
  # Failed attempts in a row that open the breaker, and seconds before a probe.
  rest_after: typed.Positive
  rest_s: typed.Seconds
  # 'record' keeps every search in the folder `recording`; 'replay' searches
  # nothing and takes all answers from there.
  mode: Literal['live', 'record', 'replay']
  recording: str  # '' is WORKDIR/recording.
  cache: str  # A file of answers, for this and other runs; '' is none.
  cache_days: Annotated[float, typed.above(0, _NO_CACHE)]
  cache_gb: Annotated[float, typed.above(0, _NO_CACHE)]
  # Seconds to wait at the end for searches that may have been paid for.
  drain_s: typed.Amount

  @property
  def shared(self) -> dict[str, object]:
    """What a run's policies have in common: all but how each of them calls."""
    fields = vars(self)
    return {name: fields[name] for name in fields if name not in _OWN}

  @property
  def searches_world(self) -> bool:
    """Whether the embedded world is searched; a replay searches nothing."""
    return 'world' in (self.text, self.image) and self.mode != 'replay'


@dataclasses.dataclass(frozen=True, kw_only=True)
class EndpointConfig:
  """A model behind an OpenAI-compatible endpoint, see remote/endpoint.py."""

  url: str  # Up to and including its version: http://127.0.0.1:8080/v1.
  model: str  # Its name at the endpoint.
  key_variable: str  # The environment variable that holds its key.
  timeout_s: typed.Seconds  # Per message, over all attempts.
  max_attempts: typed.Positive  # Where a failure may be transient.
  temperature: typed.Finite  # Negative leaves it to the endpoint.
  max_tokens: typed.Count  # Of a message; 0 leaves it to the endpoint.
  concurrency: typed.Positive  # Requests at a time.
  price_in: typed.Amount  # US dollars per million tokens that it reads
  price_out: typed.Amount  # and writes.
  # US dollars, over all the starts of the run; needed if there are prices.
  max_spend: typed.Amount
  ledger: str  # A file of what was spent; '' is in the workdir.

  def __post_init__(self):
    if (self.price_in or self.price_out) and not self.max_spend:
      raise typed.FieldError(
          'max_spend is 0, but messages have a price: say how much the run may '
          'spend on them'
      )

  def check(self, section: str) -> None:
    """Refuses an endpoint that cannot be asked; `section` is its own name."""
    for field in ('url', 'model'):
      if not getattr(self, field):
        raise typed.FieldError(
            f'{section}.{field} is empty: pass --config.{section}.url=, e.g. '
            f'http://127.0.0.1:8080/v1, and --config.{section}.model=NAME, as '
            'the endpoint calls it'
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class RemoteConfig(EndpointConfig):
  """The policy `remote`."""

  seeded: bool  # Send each conversation's own seed along.


@dataclasses.dataclass(frozen=True, kw_only=True)
class JudgeConfig(EndpointConfig):
  """A judge of answers, asked where reward.accuracy is 'judge'."""

  prompt: str  # A file; '' is judge/prompt.txt.
  cache: str  # A file of verdicts; '' is WORKDIR/verdicts.sqlite.
  # Share of the answers asked about that must get a verdict, or the run stops.
  min_success: typed.Share
  # Longer answers are wrong: no lists of guesses.
  max_answer_characters: typed.Positive

  def __post_init__(self):
    super().__post_init__()
    if (self.price_in or self.price_out) and not self.max_tokens:
      raise typed.FieldError(
          'max_tokens=0 sets no bound to what a verdict costs: give one, or no '
          'config.judge.price_in and price_out'
      )
