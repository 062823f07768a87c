"""Opens a benchmark: reads it, chooses its items, and says what they are."""

from __future__ import annotations

import hashlib
import os

from etils import epath

from gog_jax import images as image_files
from gog_jax.errors import UserError
from gog_jax.models import hub
from gog_jax.questions import choice
from gog_jax.questions import questions as q
from gog_jax.questions.benchmarks import contents
from gog_jax.questions.benchmarks import readers
from gog_jax.questions.benchmarks import registry
from gog_jax.questions.benchmarks.benchmark import Benchmark
from gog_jax.questions.records import Drop


def load(
    name: str,
    path: str,
    *,
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
  """Opens a benchmark; of images, no more is decoded than their headers.

  Args:
    name: One of `NAMES`, but for 'world', which a run loads itself.
    path: A folder, a file of one, or a data set's id on the hub.
    ids: A file of the ids that are wanted: one a line, or a JSON list.
    images: A folder of images that the set names or links to.
    n: Of these so many, for a cheap run; 0 is all.
    seed: Chooses where some are to be chosen.
    fetch_images: Whether images are fetched that are only linked to.
    options: Whether LiveVQA's options are shown with the question.
    scope: The world or corpus that searches run in, for the examples.
    date: The version to read where there are several; '' is the paper's.
    workdir: Holds what was found the first time, and fetched images; '' keeps
      neither.

  Raises:
    UserError: There is nothing of the kind, its columns are not those known,
      or it is not what it was when it was first loaded.
  """
  spec = registry.find(name)
  if name == registry.WORLD:
    raise UserError(
        'the embedded world needs no path and is no file: leave '
        'config.benchmark.name empty, config.eval.benchmark chooses the split'
    )
  if n < 0:
    raise UserError(f'config.benchmark.n = {n}; give 0 for all, or more')
  folder = f'{workdir}/benchmarks' if str(workdir) else ''
  local = '://' not in folder  # Images are looked for on this machine alone.
  reading = readers.READERS[name](
      readers.Request(
          spec=spec,
          path=local_path(spec, path),
          images=images,
          fetched=f'{folder}/images' if folder and local else '',
          fetch=fetch_images,
          options=options,
          date=date,
      )
  )
  questions = reading.questions
  why, notes = list(reading.why), list(reading.notes)
  key = f'date={reading.date} options={options}'
  if ids:
    wanted = choice.read_ids(ids)
    questions, absent = choice.by_ids(questions, wanted)
    notes.append(f'{len(questions)} of the {len(wanted)} ids of {ids}')
    if absent:
      why.append(f'{len(absent)} ids of {ids} are not in it')
    key += f' ids={hashlib.sha256(repr(wanted).encode()).hexdigest()[:16]}'
  elif spec.drawn and not reading.published:
    drawn = choice.draw(questions, n=spec.n, seed=seed)
    how = f' ({spec.n} of {len(questions)} drawn with seed {seed})'
    why.append(
        f'which {spec.n} it has is not published'
        + (how if len(drawn) < len(questions) else '')
    )
    questions = drawn
    key += f' seed={seed}'
  if n and n < len(questions):
    why.append(f'{n} of {len(questions)}, drawn with seed {seed}')
    questions = choice.draw(questions, n=n, seed=seed)
    key += f' n={n} seed={seed}'
  questions, hashes, drops = _looked_at(questions)
  if not questions:
    raise UserError(f'{spec.title}, {path}: none of its images can be read')
  if len(questions) != spec.n:
    why.append(f'{len(questions)} items, the paper has {spec.n}')
  digest = contents.digest(hashes)
  if folder:
    contents.check(
        folder, name=name, key=key, path=path, digest=digest, hashes=hashes
    )
  return Benchmark(
      name=name,
      title=spec.title,
      examples=q.Examples(questions, source=name, scope=scope),
      n=len(questions),
      expected_n=spec.n,
      drops=reading.drops + tuple(drops),
      digest=digest,
      label=f"not the paper's: {'; '.join(why)}" if why else '',
      notes=tuple(notes),
      date=reading.date,
  )


def local_path(spec: registry.Spec, path: str) -> str:
  """A folder or file on this machine, fetched from the hub if need be.

  Raises:
    UserError: There is none.
  """
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


def _looked_at(
    questions: tuple[q.Question, ...],
) -> tuple[tuple[q.Question, ...], dict[str, str], list[Drop]]:
  """Questions whose images have an image's header, with their contents."""
  kept, hashes, drops = [], {}, []
  for question in questions:
    digests = []
    try:
      for image in question.images:
        data = image.read()
        image_files.size_of(data)  # Of its header.
        digests.append(hashlib.sha256(data).hexdigest())
    except UserError as error:
      drops.append(
          Drop(
              where=question.where, reason=q.NOT_AN_IMAGE, detail=str(error)
          )
      )
      continue
    kept.append(question)
    hashes[question.id] = contents.item_hash(
        question.id, question.text, question.answers, digests
    )
  return tuple(kept), hashes, drops
