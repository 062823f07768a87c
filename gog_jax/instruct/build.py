"""From questions to a data set, chunk by chunk.

    WORKDIR/instruct/manifest.json  what it was made from, and what came of it
    WORKDIR/instruct/chunks/        the committed work, see chunks.py
    WORKDIR/instruct/set/           the TFDS set with its data card
    WORKDIR/instruct/drops.jsonl    what is not in it, and why
    WORKDIR/instruct/review.html    for people, see review.py

A start with a larger target or another mixture goes on from the chunks that
there are; no more of them are made than the set takes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import hashlib
import json
import math
from typing import Any

from etils import epath

from gog_jax.conversations import tfds_set
from gog_jax.conversations.tfds_set import Record
from gog_jax.errors import UserError
from gog_jax.instruct import card
from gog_jax.instruct import mixture
from gog_jax.instruct import review
from gog_jax.instruct import settings
from gog_jax.instruct.chunks import Chunks
from gog_jax.instruct.chunks import Row
from gog_jax.instruct.review import Review
from gog_jax.instruct.teachers import Teacher
from gog_jax.questions import sources
from gog_jax.run import Run
from gog_jax.storage import files
from gog_jax.storage import metrics
from gog_jax.storage.manifest import Manifest
from gog_jax.storage.records import Lazy

NAME = 'gog_instruct'
REJECTED = 'rejected by review'
TOO_EASY = 'too easy'
SURPLUS = 'more of its kind than the mixture takes'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
  """A question that was asked.

  Attributes:
    index: Of the question.
    chunk: Number of its chunk.
    row: What became of it.
  """

  index: int
  chunk: int
  row: Row


def folder_of(run: Run) -> epath.Path:
  return run.workdir / 'instruct'


def queries_of(run: Run) -> sources.Questions:
  """The questions that a build may ask: whole chunks of them."""
  c = run.config.instruct
  return sources.open(
      c.sources,
      split='train',
      workdir=run.workdir,
      n=math.ceil(c.n_queries / c.chunk) * c.chunk,
      field='config.instruct.sources',
  )


def build(run: Run, inputs: Mapping[str, str]) -> Mapping[str, Any]:
  """Makes the set, or what is missing of it; returns its facts.

  Args:
    run: Of configs/instruct.py.
    inputs: Fingerprints of the stages that it reads, by name.

  Raises:
    Interrupted: After a signal; what is committed stays.
    UserError: The folder holds another build, names the fields; the sources,
      the teacher or the review cannot be used; or too few samples pass.
  """
  folder, c = folder_of(run), run.config.instruct
  manifest = Manifest(
      stage='instruct',
      config=settings.identity(run.config),
      inputs={
          'model_folder': run.model_digest,
          'searched': run.toolbox.version,
          **inputs,
          **({} if run.judge is None else {'judge': run.judge.identity}),
      },
  )
  manifest.is_complete(folder)  # Or it says what differs.
  if not (folder / 'manifest.json').exists():
    manifest.write(folder, complete=False)
  reviewed = Review()
  if c.review:
    reviewed = review.read(c.review, fingerprint=manifest.fingerprint())
  queries = queries_of(run)
  chunks = Chunks(folder, Teacher(run))
  entries = _ask(chunks, queries, c, reviewed)
  passed = [e for e in entries if _passed(e, c)]
  reviewed.check({e.row.example_id for e in passed})
  taken = [e for e in passed if e.row.example_id not in reviewed.rejected]
  chosen = _mix(taken, c)
  samples = Samples(chunks, queries, chosen, reviewed, run.config)
  drops = list(_drops(entries, chosen, queries, reviewed, c))
  facts = card.facts(samples, entries, drops)
  text = card.write(run, facts, reviewed)
  fingerprint = hashlib.sha256(
      files.dumps([
          manifest.fingerprint(), text, drops, c.n_review,
          [samples.facts(i) | {'id': e.row.example_id}
           for i, e in enumerate(chosen)],
      ]).encode()
  ).hexdigest()[:16]  # fmt: skip
  if _made(folder) == fingerprint:
    metrics.say(f'instruct: complete in {folder}, unchanged')
    return facts
  manifest.write(folder, complete=False)
  tfds_set.write(
      folder / 'set',
      samples,
      name=NAME,
      description=card.DESCRIPTION,
      card=text,
  )
  files.write_jsonl(folder / 'drops.jsonl', drops)
  shown = review.sample(passed, n=c.n_review, seed=run.config.seed)
  review.write(
      folder / 'review.html',
      Samples(chunks, queries, shown, reviewed, run.config),
      fingerprint=manifest.fingerprint(),
      teacher=settings.teacher_name(run.config),
  )
  manifest.write(folder, complete=True, facts=facts, made=fingerprint)
  return facts


def shown(run: Run, facts: Mapping[str, Any]) -> str:
  """A build in a few lines for the terminal."""
  folder = folder_of(run)

  def counts(values: Mapping[str, int]) -> str:
    return ', '.join(f'{n} {name}' for name, n in values.items()) or 'none'

  return '\n'.join([
      f'{facts["n"]} samples ({counts(facts["by_kind"])}) of '
      f'{facts["asked"]} questions, in {folder / "set" / NAME}',
      f'questions left out: {counts(facts["dropped"]["question"])}',
      f'tries that failed: {counts(facts["dropped"]["try"])}',
      f'to review: {folder / "review.html"}',
  ])


class Samples(Lazy[Record]):
  """Records of the set, read one at a time."""

  def __init__(
      self,
      chunks: Chunks,
      queries: sources.Questions,
      entries: Sequence[Entry],
      reviewed: Review,
      config: Any,
  ):
    self._chunks = chunks
    self._queries = queries
    self._reviewed = reviewed
    self._teacher = settings.teacher_name(config)
    self.entries = entries

  def __len__(self) -> int:
    return len(self.entries)

  def item(self, index: int) -> Record:
    entry = self.entries[index]
    assert entry.row.place is not None
    return Record(
        example=self._queries[entry.index],
        trajectory=self._chunks.trajectory(entry.chunk, entry.row.place),
        facts=self.facts(index),
    )

  def facts(self, index: int) -> dict[str, Any]:
    """What is known of a sample beside its conversation."""
    row = self.entries[index].row
    return {
        'kind': row.kind,
        'teacher': self._teacher,
        'direct_answers': row.n_direct,
        'direct_answers_right': row.n_right,
        'too_easy': row.easy,
        'tries_before': len(row.failures),
        'review': self._reviewed.verdict(row.example_id),
        'note': self._reviewed.notes.get(row.example_id, ''),
    }


def _ask(
    chunks: Chunks, queries: sources.Questions, c: Any, reviewed: Review
) -> list[Entry]:
  """Chunk after chunk, until there are enough samples or no more questions."""
  entries: list[Entry] = []
  needed = mixture.sizes(c.n, c.no_search)
  n_spoilt = 0
  with metrics.Progress('instruct', total=len(queries)) as progress:
    for first in range(0, len(queries), c.chunk):
      number = first // c.chunk
      rows = chunks.rows(number, queries[first : first + c.chunk])
      entries += [
          Entry(index=first + i, chunk=number, row=row)
          for i, row in enumerate(rows)
      ]
      n_spoilt += sum(row.n_spoilt for row in rows)
      kinds = [
          e.row.kind
          for e in entries
          if _passed(e, c) and e.row.example_id not in reviewed.rejected
      ]
      held = {kind: kinds.count(kind) for kind in needed}
      progress.advance(len(rows), **held)
      if all(held[kind] >= n for kind, n in needed.items()):
        break
  if n_spoilt:
    metrics.say(
        f'instruct: {n_spoilt} conversations failed for the infrastructure\'s '
        'part and were begun anew'
    )
  return entries


def _passed(entry: Entry, c: Any) -> bool:
  dropped = entry.row.easy and c.easy == 'drop'
  return entry.row.kind is not None and not dropped


def _mix(taken: Sequence[Entry], c: Any) -> list[Entry]:
  """The samples of the set.

  Raises:
    UserError: There are too few of a kind, if that matters.
  """
  kinds = [str(e.row.kind) for e in taken]
  n = mixture.most(kinds, n=c.n, no_search=c.no_search)
  if n < c.n and not (c.fewer and n):
    short = ' and '.join(
        f'{kinds.count(kind)} {kind} ({needed} are needed)'
        for kind, needed in mixture.sizes(c.n, c.no_search).items()
    )
    fewer = f'; --config.instruct.fewer=True makes a set of {n}' if n else ''
    raise UserError(
        f'the samples that passed are {short}: raise '
        f'--config.instruct.n_queries or give it more sources{fewer}'
    )
  if n < c.n:
    metrics.say(f'instruct: a set of {n}, not {c.n}: too few of a kind')
  return [
      taken[i]
      for i in mixture.choose(kinds, n=n, no_search=c.no_search)
  ]


def _drops(
    entries: Sequence[Entry],
    chosen: Sequence[Entry],
    queries: sources.Questions,
    reviewed: Review,
    c: Any,
):
  """Records, tries and questions that are not in the set, each with why."""
  for drop in queries.drops:
    yield {'of': 'record', **dataclasses.asdict(drop)}
  kept = {entry.index for entry in chosen}
  for entry in entries:
    row = entry.row
    for number, failure in enumerate(row.failures, start=1):
      yield {
          'of': 'try',
          'where': f'{row.example_id}, try {number}',
          **dataclasses.asdict(failure),
      }
    if entry.index in kept:
      continue
    detail = ''
    if row.easy and c.easy == 'drop':
      reason = TOO_EASY
      detail = f'{row.n_right} of {row.n_direct} direct answers are right'
    elif row.kind is None:
      reason, detail = row.failures[-1].reason, row.failures[-1].detail
    elif row.example_id in reviewed.rejected:
      reason, detail = REJECTED, reviewed.notes.get(row.example_id, '')
    else:
      reason = SURPLUS
    yield {
        'of': 'question',
        'where': row.example_id,
        'reason': reason,
        'detail': detail,
    }


def _made(folder: epath.Path) -> str | None:
  """Of the complete set that is there; None without one."""
  written = ('manifest.json', 'drops.jsonl', 'review.html', f'set/{NAME}')
  if not all((folder / name).exists() for name in written):
    return None
  saved = json.loads((folder / 'manifest.json').read_text())
  return saved.get('made') if saved['complete'] else None
