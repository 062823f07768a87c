"""The questions of a split: its sources, without what it must not have.

A split's sources are its own, or a share of training's: of 'train:5%', each
image is on one side or the other by a hash of its bytes, with all questions
about it; a question whose images are on two sides is left out of both.

Left out of training are questions that are evaluated, too (leaks.py): those of
`validation`, `test` and the benchmark evaluated; out of validation the latter
two; out of what SFT imitates, all of them. The embedded world's splits are not
compared: none of its scenes is in two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
import dataclasses
import functools
import math

from etils import epath

from gog_jax.config import Config
from gog_jax.config.evaluation import BenchmarkConfig
from gog_jax.config.evaluation import QuestionsConfig
from gog_jax.errors import UserError
from gog_jax.questions import benchmarks
from gog_jax.questions import checked
from gog_jax.questions import leaks
from gog_jax.questions import sources
from gog_jax.questions.benchmarks import choice
from gog_jax.questions.fetched import Fetched
from gog_jax.storage import heartbeat
from gog_jax.storage import metrics
from gog_jax.storage.records import Unusable
from gog_jax.types import Example

EXCLUDED = 'excluded image'
STRADDLES = 'images on both sides of a share'


def check(c: QuestionsConfig) -> None:
  """Refuses unknown sources, without reading any; see `sources.check`."""
  for split in ('train', 'validation', 'test'):
    sources.check(c.sources(split), field=f'config.questions.{split}')
  if c.exclude:
    sources.check(c.exclude, field='config.questions.exclude')


def open(
    config: Config,
    split: str,
    *,
    workdir: epath.PathLike,
    n: int | None = None,
) -> checked.Questions:
  """Opens a split's questions and says how many were left out.

  Those of files are opened once a process.

  Args:
    config: The run's.
    split: 'train', 'validation' or 'test'.
    workdir: Holds the embedded world, and hashes of published sets.
    n: The number at which to stop reading; None takes all.

  Raises:
    UserError: A source cannot be read, or there are no usable questions.
  """
  c = config.questions
  # The world's data set may be made anew.
  opened = _open.__wrapped__ if c.has_world(split) else _open
  with heartbeat.doing(f'reading questions.{split}'):
    return opened(c, split, str(workdir), config.seed, config.foreign, n)


@functools.lru_cache(maxsize=8)  # They are read whole to be checked.
def _open(
    c: QuestionsConfig,
    split: str,
    workdir: str,
    seed: int,
    benchmark: BenchmarkConfig | None = None,
    n: int | None = None,
) -> checked.Questions:
  names, field = c.sources(split), f'config.questions.{split}'
  fetched = Fetched(
      f'{workdir}/fetched' if workdir else '',
      c.fetch,
      allowed=c.fetch_images,
      section='questions',
  )

  if names == (sources.WORLD,):
    return sources.open(names, split=split, workdir=workdir, n=n, field=field)
  excluded = None
  if c.exclude and split != 'test':
    others = sources.open(
        c.exclude,
        split=split,
        workdir=workdir,
        images=c.images,
        fetched=fetched,
    )
    excluded = leaks.Held([others], any_question=True)

  def accept(example: Example) -> bool:
    if excluded is not None and (one := excluded.find(example)):
      raise Unusable(EXCLUDED, f'its image is that of {one.id!r}, excluded')
    if not c.shares or split not in ('train', *c.shares):
      return True
    sides = sorted({_side(c, image) for image in example.images})
    if len(sides) > 1:
      raise Unusable(STRADDLES, f'its images are in {" and ".join(sides)}')
    return sides == [split]

  try:
    opened = sources.open(
        names,
        split='train' if split in c.shares else split,
        workdir=workdir,
        n=None if c.n or c.weights else n,
        field=field,
        images=c.images,
        fetched=fetched,
        accept=accept,
        leaked=_leaked(c, split, workdir, seed, benchmark),
    )
  except UserError as error:
    if split not in c.shares:
      raise
    error.args = (f'{field}={getattr(c, split)}: {error}',)
    raise
  if split == 'train' and c.weights:
    drawn = _by_weight(opened, c, names, seed)
    opened = opened.only(drawn[:n], why=f'{c.train} n={c.n} seed={seed}')
  elif split == 'train' and c.n:  # A smaller draw is part of a larger one.
    most, ids = min(c.n, n or c.n), opened.ids
    drawn = choice.draw(
        range(len(ids)), n=most, seed=seed, id_of=ids.__getitem__
    )
    opened = opened.only(drawn, why=f'n={most} seed={seed}')
  if opened.drops:
    metrics.say(
        f'questions.{split}: {len(opened)}, left out: {opened.left_out}'
    )
  return opened


def leaked(
    config: Config, *, workdir: epath.PathLike
) -> Callable[[Example], str]:
  """Says why a question may not be trained on; '' of one that may.

  Raises:
    UserError: What is evaluated cannot be read.
  """
  c = config.questions
  return _leaked(c, 'train', str(workdir), config.seed, config.foreign)


@functools.lru_cache(maxsize=2)  # All is read that is evaluated.
def _leaked(
    c: QuestionsConfig,
    split: str,
    workdir: str,
    seed: int,
    benchmark: BenchmarkConfig | None,
) -> Callable[[Example], str]:
  if c.leaks == 'keep' or split == 'test':
    return lambda example: ''

  def evaluated() -> Iterator[Sequence[Example]]:
    """What the split must not repeat; of the world nothing."""
    for other in ('validation', 'test')[split == 'validation' :]:
      if own := tuple(n for n in getattr(c, other) if n != sources.WORLD):
        as_it_is = {other: own, 'leaks': 'keep', 'exclude': ()}
        yield _open(dataclasses.replace(c, **as_it_is), other, workdir, seed)
    if benchmark is not None:
      yield benchmarks.open(benchmark, workdir=workdir).examples

  held = leaks.Held(evaluated())

  def why(example: Example) -> str:
    if (one := held.find(example)) is None:
      return ''
    return (
        f'{example.id!r} is {one.id!r} of what is evaluated '
        '(--config.questions.leaks=keep keeps such)'
    )

  return why


def _by_weight(
    opened: checked.Questions,
    c: QuestionsConfig,
    names: Sequence[str],
    seed: int,
) -> list[int]:
  """Draws from each source as its weight says, until one has no more.

  The sources take turns, each time the one that its weight owes most: at no
  point is one ahead of its share by a whole question.

  Returns:
    Indices of at most `questions.n` questions; of each source, in its order.

  Raises:
    UserError: A source has no question.
  """
  held = [list[int]() for _ in names]
  for index, (source, _) in enumerate(opened.places):
    held[source].append(index)
  if not all(held):
    raise UserError(
        f'config.questions.train={c.train}: no question of '
        f'{names[held.index([])]} is of use, so none can be taken by weight'
    )
  scale = math.lcm(*(weight.denominator for weight in c.weights))
  weights = [int(weight * scale) for weight in c.weights]
  counts, turns = [0] * len(names), list[int]()
  while not c.n or len(turns) < c.n:
    owed = [
        weight * (len(turns) + 1) - count * sum(weights)
        for weight, count in zip(weights, counts, strict=True)
    ]
    source = owed.index(max(owed))
    if counts[source] == len(held[source]):
      break
    counts[source] += 1
    turns.append(source)
  drawn = [
      iter(choice.draw(one, n=n, seed=seed, id_of=opened.ids.__getitem__))
      for one, n in zip(held, counts, strict=True)
  ]
  said = (f'{n} of {name}' for n, name in zip(counts, names, strict=True))
  metrics.say(f'questions.train by weight: {", ".join(said)}')
  return [next(drawn[source]) for source in turns]


def _side(c: QuestionsConfig, image: bytes) -> str:
  """The split that an image of training's sources belongs to."""
  key, end = leaks.image_key(image), 0.0
  for split, share in c.shares.items():
    end += share
    if key < end:
      return split
  return 'train'
