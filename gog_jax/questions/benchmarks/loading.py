"""Opens a benchmark: reads it, chooses its items and labels them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import hashlib
import os
from typing import Any

from etils import epath

from gog_jax import images as image_files
from gog_jax.config.evaluation import BenchmarkConfig
from gog_jax.errors import UserError
from gog_jax.models import folders
from gog_jax.questions import checked
from gog_jax.questions import questions as q
from gog_jax.questions import sources
from gog_jax.questions.benchmarks import choice
from gog_jax.questions.benchmarks import registry
from gog_jax.questions.benchmarks.registry import Spec
from gog_jax.questions.fetched import Fetched
from gog_jax.storage import files
from gog_jax.storage.records import Drop
from gog_jax.storage.records import sift
from gog_jax.storage.records import Unusable
from gog_jax.types import Example


@dataclasses.dataclass(frozen=True, kw_only=True)
class Benchmark:
  """The questions of a benchmark, and how they relate to the paper's.

  Attributes:
    name: In configs and tables.
    title: For people.
    examples: Their images are read on access.
    expected_n: How many the paper has; 0 if it is not in the paper.
    drops: Unusable records.
    digest: Changes with ids, questions, answers and images; empty for the
      embedded world, whose data stage has a manifest.
    label: '' if these are the paper's items, as far as is known; else why not.
    notes: Other remarks, a line each.
    date: The version, if there are several.
  """

  name: str
  title: str
  examples: Sequence[Example]
  expected_n: int = 0
  drops: tuple[Drop, ...] = ()
  digest: str = ''
  label: str = ''
  notes: tuple[str, ...] = ()
  date: str = ''

  @property
  def n(self) -> int:
    return len(self.examples)

  @property
  def facts(self) -> dict[str, Any]:
    """For manifests and reports."""
    facts = {'name': self.name, 'label': self.label, 'n': self.n}
    if not self.digest:
      return facts
    return facts | {
        'digest': self.digest,
        'expected_n': self.expected_n,
        'left_out': len(self.drops),
        'date': self.date,
    }


def open(
    c: BenchmarkConfig,
    *,
    workdir: epath.PathLike = '',
    n_world: int | None = None,
    fetched: Fetched | None = None,
) -> Benchmark:
  """Opens a benchmark; of a published set, only image headers are decoded.

  Args:
    c: The config's section; its name is a key of `registry.BENCHMARKS` or names
      a user's function.
    workdir: Where hashes and fetched images are kept; '' keeps neither. Holds
      the data of the embedded world.
    n_world: The number of questions of the embedded world.
    fetched: Images that it links to; by default those in `workdir`.

  Raises:
    UserError: It does not exist, has unknown columns, or has changed since it
      was first opened.
  """
  spec = registry.find(c.name, field='config.benchmark.name')
  if spec.split:
    if n_world is None:
      raise UserError(
          'the embedded world is no published set: config.eval.benchmark '
          'chooses its split'
      )
    held = sources.open((sources.WORLD,), split=spec.split, workdir=workdir)
    return of_questions(c.name, spec, held, n_world)
  folder = f'{workdir}/benchmarks' if str(workdir) else ''
  fetched = fetched or Fetched(
      f'{folder}/images' if folder else '',
      c.fetch,
      allowed=c.fetch_images,
      section='benchmark',
  )
  if spec.read is None:
    return _users(c.name, spec, fetched, n=c.n, seed=c.seed)
  section = dataclasses.replace(c, path=_local_path(spec, c.path))
  reading = spec.read(section, fetched)
  questions = reading.found.items
  why, notes = list(reading.why), list(reading.notes)
  key = f'date={reading.date} options={c.options}'
  if c.ids:
    wanted = choice.read_ids(c.ids)
    questions = tuple(one for one in questions if one.id in set(wanted))
    notes.append(f'{len(questions)} of the {len(wanted)} ids of {c.ids}')
    if n_absent := len(wanted) - len(questions):
      why.append(f'{n_absent} ids of {c.ids} are not in it')
    key += f' ids={hashlib.sha256(repr(wanted).encode()).hexdigest()[:16]}'
  elif spec.drawn and not reading.published:
    how = f' ({spec.n} of {len(questions)} drawn with seed {c.seed})'
    why.append(
        f'which {spec.n} it has is not published'
        + (how if spec.n < len(questions) else '')
    )
    questions = choice.draw(questions, n=spec.n, seed=c.seed)
    key += f' seed={c.seed}'
  if 0 < c.n < len(questions):
    why.append(f'{c.n} of {len(questions)}, drawn with seed {c.seed}')
    questions = choice.draw(questions, n=c.n, seed=c.seed)
    key += f' n={c.n} seed={c.seed}'
  checked = sift(
      c.path,
      ((one.where, one) for one in questions),
      lambda one: (one, _hash_of(one)),
      drops=reading.found.drops,
  ).required()
  questions = [one for one, _ in checked.items]
  hashes = {one.id: digest for one, digest in checked.items}
  if len(questions) != spec.n:
    why.append(f'{len(questions)} items, the paper has {spec.n}')
  digest = hashlib.sha256(
      files.dumps(list(hashes.items())).encode()
  ).hexdigest()
  if folder:
    tag = hashlib.sha256(key.encode()).hexdigest()[:8]
    _check_unchanged(
        epath.Path(folder) / f'{c.name}-{tag}.json',
        _Seen(digest=digest, path=c.path, key=key, items=hashes),
    )
  return Benchmark(
      name=c.name,
      title=spec.title,
      examples=q.examples(questions, source=c.name, scope=c.scope),
      expected_n=spec.n,
      drops=checked.drops,
      digest=digest,
      label=f"not the paper's: {'; '.join(why)}" if why else '',
      notes=tuple(notes),
      date=reading.date,
  )


def of_questions(
    name: str, spec: Spec, held: checked.Questions, n: int
) -> Benchmark:
  """The first `n` questions of a config's sources."""
  return Benchmark(
      name=name,
      title=spec.title,
      examples=held.part(0, n),
      drops=held.drops,
      digest=held.digest,
      label=spec.label,
  )


def _users(
    name: str, spec: Spec, fetched: Fetched, *, n: int, seed: int
) -> Benchmark:
  """What a user's function returns."""
  held = sources.open((name,), split='test', workdir='', fetched=fetched)
  whole = of_questions(name, spec, held, len(held))
  if not 0 < n < len(held):
    return whole
  return dataclasses.replace(
      whole,
      examples=choice.draw(held, n=n, seed=seed),
      label=f'{spec.label}; {n} of {len(held)}, drawn with seed {seed}',
      digest=f'{held.digest} n={n} seed={seed}',
  )


def _local_path(spec: Spec, path: str) -> str:
  """The folder or file on this machine, fetched from the hub if need be."""
  if path and os.path.exists(path):
    return path
  where = f' or to its id on the hub, {spec.hub_id}' if spec.hub_id else ''
  wanted = f'set config.benchmark.path to a folder that holds it{where}'
  if not path:
    raise UserError(f'{spec.title} is not part of this package: {wanted}')
  fetched = folders.fetch(
      path,
      repo_type='dataset',
      patterns=spec.patterns,
      field='--config.benchmark.path',
  )
  if fetched is None:
    raise UserError(f'{path} does not exist: {wanted}')
  return str(fetched)


def _hash_of(question: q.Question) -> str:
  """Changes with any part of a question.

  Raises:
    Unusable: The header of an image is not valid.
  """
  shown = []
  try:
    for read in question.images:
      data = read()
      image_files.size_of(data)  # Of its header.
      shown.append(hashlib.sha256(data).hexdigest())
  except UserError as error:
    raise Unusable(q.NOT_AN_IMAGE, str(error)) from error
  parts = files.dumps(
      [question.id, question.question, list(question.answers), shown]
  )
  return hashlib.sha256(parts.encode()).hexdigest()[:16]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Seen:
  """What a benchmark held when it was loaded.

  Attributes:
    digest: Of the whole.
    path: Where it was read.
    key: How its items were chosen.
    items: A hash of each, by id.
  """

  digest: str
  path: str
  key: str
  items: Mapping[str, str]


def _check_unchanged(record: epath.Path, found: _Seen) -> None:
  """Records what was found, or compares it with the record.

  Raises:
    UserError: It is not what it was.
  """
  if not record.exists():
    files.write_json(record, vars(found))
    return
  known = files.read_json(
      record, _Seen, advice='delete it to have it made again'
  )
  if known.digest == found.digest:
    return
  before, now = known.items, found.items
  changed = [id for id in now if id in before and before[id] != now[id]]
  new = [id for id in now if id not in before]
  gone = [id for id in before if id not in now]
  said = [
      f'{len(ids)} {what} (first {ids[0]!r})'
      for ids, what in ((changed, 'changed'), (new, 'new'), (gone, 'gone'))
      if ids
  ] or ['the order changed']
  raise UserError(
      f'{found.path} is not what it was when it was first loaded from '
      f'{known.path}: {", ".join(said)}; numbers over both do not compare. '
      f'Put it back, or delete {record} to go on with this one'
  )
