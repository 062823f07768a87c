"""Opens a benchmark: reads it, chooses its items, and says what they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import hashlib
import json
import os
import re
from typing import Any

from etils import epath

from gog_jax import images as image_files
from gog_jax.errors import UserError
from gog_jax.models import hub
from gog_jax.questions import questions as q
from gog_jax.questions import sources
from gog_jax.questions.benchmarks import choice
from gog_jax.questions.benchmarks import registry
from gog_jax.questions.benchmarks.registry import Spec
from gog_jax.storage import files
from gog_jax.storage.records import Drop
from gog_jax.storage.records import Part
from gog_jax.storage.records import Unusable
from gog_jax.types import Example


@dataclasses.dataclass(frozen=True, kw_only=True)
class Benchmark:
  """Questions of a benchmark, and how they stand to the paper's.

  Attributes:
    name: The registry's.
    title: The registry's.
    examples: Random access; each reads its images when it is asked for.
    expected_n: How many the paper has; 0 where it has none.
    drops: Records that are of no use, with reasons.
    digest: Changes with ids, questions, answers and image files; empty for the
      embedded world, which the data stage has made.
    label: '' for the paper's items as far as is known; else why they are not.
    notes: What else there is to say, a line each.
    date: Of the version that was read, where there are several.
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
    name: str,
    path: str = '',
    *,
    n_world: int | None = None,
    ids: str = '',
    images: str = '',
    n: int = 0,
    seed: int = 0,
    fetch_images: bool = False,
    options: bool = False,
    scope: str = '',
    date: str = '',
    workdir: epath.PathLike = '',
) -> Benchmark:
  """Opens a benchmark; of a published set only headers of images are decoded.

  Args:
    name: One of `registry.BENCHMARKS`, or a user's.
    path: A folder, a file of one, or a data set's id on the hub.
    n_world: Of the embedded world, whose data is in `workdir`, these many.
    ids: A file of the ids that are wanted: one a line, or a JSON list.
    images: A folder of images that the set names or links to.
    n: Of others than the world, these many, drawn; 0 is all.
    seed: Chooses where some are to be chosen.
    fetch_images: Whether images are fetched that are only linked to.
    options: Whether LiveVQA's options are shown with the question.
    scope: The world or corpus that searches run in, for a published set.
    date: The version to read where there are several; '' is the paper's.
    workdir: Holds what was found the first time, and fetched images; '' keeps
      neither.

  Raises:
    UserError: There is nothing of the kind, its columns are not those known,
      or it is not what it was when it was first opened.
  """
  spec = registry.find(name, field='config.benchmark.name')
  if n < 0:
    raise UserError(f'config.benchmark.n = {n}; give 0 for all, or more')
  if spec.split:
    return _world(spec, workdir=workdir, n=n_world)
  if spec.read is None:
    return _users(spec, n=n, seed=seed)
  folder = f'{workdir}/benchmarks' if str(workdir) else ''
  local = '://' not in folder  # Images are looked for on this machine alone.
  reading = spec.read(
      registry.Request(
          spec=spec,
          path=_local_path(spec, path),
          images=images,
          fetched=f'{folder}/images' if folder and local else '',
          fetch=fetch_images,
          options=options,
          date=date,
      )
  )
  questions = reading.found.items.questions
  why, notes = list(reading.why), list(reading.notes)
  key = f'date={reading.date} options={options}'
  if ids:
    wanted = choice.read_ids(ids)
    questions = tuple(one for one in questions if one.id in set(wanted))
    notes.append(f'{len(questions)} of the {len(wanted)} ids of {ids}')
    if n_absent := len(wanted) - len(questions):
      why.append(f'{n_absent} ids of {ids} are not in it')
    key += f' ids={hashlib.sha256(repr(wanted).encode()).hexdigest()[:16]}'
  elif spec.drawn and not reading.published:
    drawn = _draw(questions, n=spec.n, seed=seed)
    how = f' ({spec.n} of {len(questions)} drawn with seed {seed})'
    why.append(
        f'which {spec.n} it has is not published'
        + (how if len(drawn) < len(questions) else '')
    )
    questions = drawn
    key += f' seed={seed}'
  if n and n < len(questions):
    why.append(f'{n} of {len(questions)}, drawn with seed {seed}')
    questions = _draw(questions, n=n, seed=seed)
    key += f' n={n} seed={seed}'
  questions, hashes, drops = _with_images(questions)
  if not questions:
    raise UserError(f'{spec.title}, {path}: none of its images can be read')
  if len(questions) != spec.n:
    why.append(f'{len(questions)} items, the paper has {spec.n}')
  digest = hashlib.sha256(
      files.dumps(list(hashes.items())).encode()
  ).hexdigest()
  if folder:
    _check_unchanged(
        folder, name=name, key=key, path=path, digest=digest, hashes=hashes
    )
  return Benchmark(
      name=name,
      title=spec.title,
      examples=q.Examples(questions, source=name, scope=scope),
      expected_n=spec.n,
      drops=reading.found.drops + tuple(drops),
      digest=digest,
      label=f"not the paper's: {'; '.join(why)}" if why else '',
      notes=tuple(notes),
      date=reading.date,
  )


def _world(spec: Spec, *, workdir: epath.PathLike, n: int | None) -> Benchmark:
  if not str(workdir) or n is None:
    raise UserError(
        'the embedded world is no published set: config.eval.benchmark chooses '
        'its split'
    )
  questions = sources.open(('world',), split=spec.split, workdir=workdir)
  return Benchmark(
      name=spec.name,
      title=spec.title,
      examples=questions.part(0, n),
      label=spec.label,
  )


def _users(spec: Spec, *, n: int, seed: int) -> Benchmark:
  questions = sources.open((spec.name,), split='test', workdir='')
  digest, label, examples = questions.digest, spec.label, questions
  if n and n < len(questions):
    names = [example.id for example in questions]
    examples = Part(questions, choice.draw(names, n=n, seed=seed))
    label += f'; {n} of {len(questions)}, drawn with seed {seed}'
    digest += f' n={n} seed={seed}'
  return Benchmark(
      name=spec.name,
      title=spec.title,
      examples=examples,
      drops=questions.drops,
      digest=digest,
      label=label,
  )


def _draw(
    questions: Sequence[q.Question], *, n: int, seed: int
) -> tuple[q.Question, ...]:
  drawn = choice.draw([one.id for one in questions], n=n, seed=seed)
  return tuple(questions[i] for i in drawn)


def _local_path(spec: Spec, path: str) -> str:
  """A folder or file on this machine, fetched from the hub if need be."""
  if path and os.path.exists(path):
    return path
  where = f' or to its id on the hub, {spec.hub_id}' if spec.hub_id else ''
  wanted = f'set config.benchmark.path to a folder that holds it{where}'
  if not path:
    raise UserError(f'{spec.title} is not part of this package: {wanted}')
  fetched = hub.fetch(
      path,
      repo_type='dataset',
      patterns=spec.patterns,
      field='--config.benchmark.path',
  )
  if fetched is None:
    raise UserError(f'{path} does not exist: {wanted}')
  return str(fetched)


def _with_images(
    questions: Sequence[q.Question],
) -> tuple[tuple[q.Question, ...], dict[str, str], list[Drop]]:
  """Questions whose images have an image's header, with hashes by id."""
  kept, hashes, drops = [], {}, []
  for question in questions:
    shown = []
    try:
      for image in question.images:
        data = image.read()
        image_files.size_of(data)  # Of its header.
        shown.append(hashlib.sha256(data).hexdigest())
    except (UserError, Unusable) as error:
      drops.append(
          Drop(where=question.where, reason=q.NOT_AN_IMAGE, detail=str(error))
      )
      continue
    kept.append(question)
    parts = files.dumps(
        [question.id, question.text, list(question.answers), shown]
    )
    hashes[question.id] = hashlib.sha256(parts.encode()).hexdigest()[:16]
  return tuple(kept), hashes, drops


def _check_unchanged(
    folder: str,
    *,
    name: str,
    key: str,
    path: str,
    digest: str,
    hashes: Mapping[str, str],
) -> None:
  """Writes down what was found; the next time, compares.

  Args:
    folder: Of such records.
    name: The benchmark's.
    key: How its items were chosen; each choice has a record of its own.
    path: Where it was read.
    digest: Of the whole.
    hashes: By id, of each item.

  Raises:
    UserError: It is not what it was.
  """
  tag = hashlib.sha256(key.encode()).hexdigest()[:8]
  record = epath.Path(folder) / f'{name}-{tag}.json'
  if not record.exists():
    found = {'digest': digest, 'path': path, 'key': key, 'items': dict(hashes)}
    files.write_atomic(record, json.dumps(found, indent=1) + '\n')
    return
  try:
    known = json.loads(record.read_text())
    before, was, then = known['items'], known['digest'], known['path']
    if not re.fullmatch('[0-9a-f]{64}', was) or not isinstance(before, dict):
      raise ValueError
  except (ValueError, KeyError, TypeError) as error:
    raise UserError(
        f'{record} is no record of a benchmark; delete it to have it made again'
    ) from error
  if was == digest:
    return
  changed = [id for id in hashes if id in before and before[id] != hashes[id]]
  new = [id for id in hashes if id not in before]
  gone = [id for id in before if id not in hashes]
  said = [
      f'{len(ids)} {what} (first {ids[0]!r})'
      for ids, what in ((changed, 'changed'), (new, 'new'), (gone, 'gone'))
      if ids
  ] or ['the order changed']
  raise UserError(
      f'{name} in {path} is not what it was when it was first loaded from '
      f'{then}: {", ".join(said)}; numbers over both do not compare. Put it '
      f'back, or delete {record} to go on with this one'
  )
