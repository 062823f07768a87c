"""Builds a GoG-Instruct set.

    WORKDIR/instruct/manifest.json    what it was made from, and what came of it
    WORKDIR/instruct/direct/, tries/  what was answered, see answers.py
    WORKDIR/instruct/set/             the TFDS set with its data card
    WORKDIR/instruct/drops.jsonl      what is not in it, and why
    WORKDIR/instruct/review.html      for people, see review.py

A build with a larger target or another mixture reuses all answers; no more
questions are asked than the set needs, or than `instruct.n_queries`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
import dataclasses
import hashlib
from typing import Any

from etils import epath

from gog_jax.config import paradigms
from gog_jax.config import settings
from gog_jax.conversations import tfds_set
from gog_jax.conversations.decode import decode
from gog_jax.conversations.messages import Conversation
from gog_jax.conversations.record import Record
from gog_jax.errors import UserError
from gog_jax.instruct import card
from gog_jax.instruct import mixture
from gog_jax.instruct import review
from gog_jax.instruct import teachers
from gog_jax.instruct.answers import Answers
from gog_jax.instruct.answers import opened
from gog_jax.instruct.answers import Outcome
from gog_jax.instruct.review import Review
from gog_jax.instruct.teachers import InstructRun
from gog_jax.instruct.teachers import Teacher
from gog_jax.questions import checked
from gog_jax.questions.benchmarks import choice
from gog_jax.storage import files
from gog_jax.storage import metrics
from gog_jax.storage.manifest import Manifest
from gog_jax.storage.manifest import read as read_manifest
from gog_jax.storage.records import Mapped
from gog_jax.storage.records import Unusable

NAME = 'gog_instruct'
REJECTED = 'rejected by review'
TOO_EASY = 'too easy'
SURPLUS = 'more of its kind than the mixture takes'
_KINDS = mixture.NO_SEARCH, mixture.SEARCH
_SHOWN = 200  # Characters of a failure.

# What is asked, and what becomes of it, hangs on these alone: the others may
# change between two starts, and no teacher is asked again.
_ASKED = (
    'seed', 'model', 'rollout', 'reward', 'batch.row_patches',
    'questions.train', 'tools.offered', 'tools.text', 'tools.image',
    'tools.top_k', 'tools.hit_characters', 'instruct.teacher', 'instruct.chunk',
    'instruct.n_direct', 'instruct.direct_temperature', 'instruct.samples',
    'instruct.gold', 'instruct.gold_iou', 'instruct.evidence',
    'instruct.repeats',
)  # fmt: skip
# Not the address, which may change with every start of a server.
_REMOTE = (
    'remote.model', 'remote.temperature', 'remote.max_tokens', 'remote.seeded',
)  # fmt: skip


def folder_of(workdir: epath.Path) -> epath.Path:
  return workdir / 'instruct'


def set_of(workdir: epath.Path) -> epath.Path:
  """The TFDS set that a build in the workdir makes."""
  return folder_of(workdir) / 'set'


def questions_of(run: InstructRun) -> checked.Questions:
  """The questions that a build may ask."""
  return run.questions('train', n=run.config.instruct.n_queries)


def build(run: InstructRun, inputs: Mapping[str, str]) -> Mapping[str, Any]:
  """Makes the set, or what is missing; returns facts about it.

  Args:
    run: Of configs/instruct.py.
    inputs: Fingerprints of the stages it reads, by name.

  Raises:
    Interrupted: After a signal; answers are kept.
    UserError: The folder holds another build (names the fields that differ);
      the sources, the teacher or the review cannot be used; or too few samples
      pass.
  """
  folder, c = folder_of(run.workdir), run.config.instruct
  is_remote = c.teacher == paradigms.REMOTE
  fields = (*_ASKED, *_REMOTE) if is_remote else _ASKED
  inputs = {**run.inputs(run.config, _ASKED), **inputs}
  if not run.config.questions.only_world('train'):
    inputs['leaks'] = run.config.questions.leaks
  manifest = Manifest(
      stage='instruct',
      config=run.config.picked(fields, without=()),
      inputs=inputs,
  )
  manifest.is_complete(folder)  # Or it says what differs.
  if not (folder / 'manifest.json').exists():
    manifest.write(folder, complete=False)
  settings.remember(run.workdir, run.config)
  reviewed = Review()
  if c.review:
    reviewed = review.read(c.review, fingerprint=manifest.fingerprint())
  questions = questions_of(run)
  with opened(folder, Teacher(run), questions) as answers:
    rejected = reviewed.with_verdict('reject')
    asked = _ask(answers, len(questions), c, rejected)
    passed = [one for one in asked if _passed(one, c)]
    reviewed.check({one.example_id for one in passed})
    taken = [one for one in passed if one.example_id not in rejected]
    kinds = [str(one.kind) for one in taken]
    chosen = [
        taken[i] for i in mixture.choose(kinds, n=c.n, no_search=c.no_search)
    ]
    drops = list(_drops(asked, chosen, questions, reviewed, c))
    files.write_jsonl(folder / 'drops.jsonl', drops)
    facts = card.facts(chosen, asked, questions, drops)
    ended = _exhausted(questions, len(asked), run)
    _check_size(kinds, facts, drops, c, ended=ended)

    teacher = teachers.name_of(run.config)

    def record(one: Outcome) -> Record:
      return answers.record(one, _facts(one, reviewed, teacher))

    def told(one: Outcome) -> Conversation:
      try:
        return decode(record(one), run.chat, run.box_spec)
      except Unusable as error:  # It has seen another version's prompt.
        raise UserError(
            f'{folder}, {one.example_id}: {error}; or delete {folder}'
        ) from error

    text = card.write(run, manifest.config, facts, reviewed)
    known = [
        _facts(one, reviewed, teacher) | {'id': one.example_id}
        for one in chosen
    ]
    content = [manifest.fingerprint(), text, drops, c.n_review, known]
    content.append(tfds_set.VERSION)
    fingerprint = hashlib.sha256(files.dumps(content).encode()).hexdigest()[:16]
    if _made(folder) == fingerprint:
      metrics.say(f'instruct: complete in {folder}, unchanged')
      return facts
    manifest.write(folder, complete=False)
    tfds_set.write(
        set_of(run.workdir),
        Mapped(chosen, told),
        name=NAME,
        description=card.DESCRIPTION,
        card=text,
    )
    drawn = choice.draw(
        passed,
        n=c.n_review,
        seed=run.config.seed,
        id_of=lambda one: one.example_id,
    )
    page = review.render(
        [record(one) for one in drawn],
        fingerprint=manifest.fingerprint(),
        teacher=teacher,
    )
    files.write_atomic(folder / 'review.html', page)
    manifest.write(folder, complete=True, facts=facts, made=fingerprint)
    return facts


def shown(run: InstructRun, facts: Mapping[str, Any]) -> str:
  """A summary for the terminal."""
  folder = folder_of(run.workdir)
  return '\n'.join([
      f'{facts["n"]} samples ({_counts(facts["by_kind"])}) of '
      f'{facts["asked"]} questions, in {set_of(run.workdir) / NAME}',
      *_left_out(facts),
      f'to review: {folder / "review.html"}',
  ])


def _left_out(facts: Mapping[str, Any]) -> list[str]:
  """Why questions are not in the set, and tries failed: commonest first."""
  return [
      f'questions left out: {_counts(facts["dropped"]["question"])}',
      f'tries that failed: {_counts(facts["dropped"]["try"])}',
  ]


def _counts(values: Mapping[str, int]) -> str:
  return ', '.join(f'{n} {name}' for name, n in values.items()) or 'none'


def _facts(one: Outcome, reviewed: Review, teacher: str) -> dict[str, Any]:
  """What is known of a sample beside its conversation."""
  said = reviewed.of(one.example_id)
  return {
      'kind': one.kind,
      'teacher': teacher,
      'direct_answers': one.n_direct,
      'direct_answers_right': one.n_right,
      'too_easy': one.easy,
      'tries_before': len(one.failures),
      'review': said.verdict,
      'note': said.note,
  }


def _ask(
    answers: Answers, n: int, c: Any, rejected: Collection[str]
) -> list[Outcome]:
  """Asks until there are enough samples, or all `n` questions were asked."""
  asked: list[Outcome] = []
  with metrics.Progress('instruct', total=n) as progress:
    for first in range(0, n, c.chunk):
      found = answers.outcomes(range(first, min(first + c.chunk, n)))
      asked += found
      kinds = [
          str(one.kind)
          for one in asked
          if _passed(one, c) and one.example_id not in rejected
      ]
      held = {kind: kinds.count(kind) for kind in _KINDS}
      progress.advance(len(found), **held)
      if len(mixture.choose(kinds, n=c.n, no_search=c.no_search)) == c.n:
        break
  if answers.n_retried:
    metrics.say(
        f'instruct: {answers.n_retried} conversations failed because of the '
        'infrastructure and were begun anew'
    )
  return asked


def _passed(outcome: Outcome, c: Any) -> bool:
  dropped = outcome.easy and c.easy == 'drop'
  return outcome.kind is not None and not dropped


def _exhausted(
    questions: checked.Questions, n_asked: int, run: InstructRun
) -> bool:
  """Says which sources have no more questions; whether none has.

  Questions are those of each source in turn.
  """
  c, places = run.config, questions.places
  if n_asked == len(places) < c.instruct.n_queries:
    metrics.say(
        f'instruct: all {n_asked} questions of config.questions.train were '
        'asked'
    )
    return True
  if not c.questions.n:  # A draw is no beginning of its sources.
    source, record = places[n_asked - 1]
    for number, one in enumerate(questions.sources):
      if (len(one.items) - 1, number) <= (record, source):
        n = sum(source == number for source, _ in places[:n_asked])
        metrics.say(f'instruct: {one.name} is exhausted: {n} questions')
  return False


def _check_size(
    kinds: Sequence[str],
    facts: Mapping[str, Any],
    drops: Sequence[Mapping[str, Any]],
    c: Any,
    *,
    ended: bool,
) -> None:
  """Refuses a set that is too small, unless the config takes it.

  Args:
    kinds: Of the samples that passed.
    facts: What `card.facts` gives.
    drops: See `_drops`.
    c: `config.instruct`.
    ended: Whether there are no more questions.

  Raises:
    UserError: There are too few, or too few of a kind.
  """
  n = facts['n']
  if n == c.n:
    return
  if c.fewer and n:
    metrics.say(f'instruct: a set of {n}, not {c.n}: too few have passed')
    return
  for line in _left_out(facts):
    metrics.say(f'instruct: {line}')
  short = ' and '.join(
      f'{kinds.count(kind)} {kind} ({needed} are needed)'
      for kind, needed in mixture.sizes(c.n, c.no_search).items()
  )
  more = 'give --config.questions.train more sources'
  if not ended:
    more = f'raise --config.instruct.n_queries or {more}'
  fewer = f'; --config.instruct.fewer=True makes a set of {n}' if n else ''
  tries, why = facts['dropped']['try'], ''
  if tries:  # The commonest first.
    reason = next(iter(tries))
    detail = next(d['detail'] for d in drops if d['reason'] == reason)
    why = f'; most tries that failed, {tries[reason]} of {sum(tries.values())}'
    why += f', did by {reason}, such as: {" ".join(detail.split())[:_SHOWN]}'
  raise UserError(
      f'the samples that passed are {short or f"{n} ({c.n} are needed)"}: '
      f'{more}{fewer}{why}'
  )


def _drops(
    asked: Sequence[Outcome],
    chosen: Sequence[Outcome],
    questions: checked.Questions,
    reviewed: Review,
    c: Any,
):
  """Records, tries and questions that are not in the set, and why."""
  for drop in questions.drops:
    yield {'of': 'record', **dataclasses.asdict(drop)}
  kept = {one.index for one in chosen}
  for one in asked:
    for number, failure in enumerate(one.failures, start=1):
      yield {
          'of': 'try',
          'where': f'{one.example_id}, try {number}',
          **dataclasses.asdict(failure),
      }
    if one.index in kept:
      continue
    detail = ''
    if one.easy and c.easy == 'drop':
      reason = TOO_EASY
      detail = f'{one.n_right} of {one.n_direct} direct answers are right'
    elif one.kind is None:
      reason, detail = one.failures[-1].reason, one.failures[-1].detail
    elif reviewed.of(one.example_id).verdict == 'reject':
      reason, detail = REJECTED, reviewed.of(one.example_id).note
    else:
      reason = SURPLUS
    yield {
        'of': 'question',
        'where': one.example_id,
        'reason': reason,
        'detail': detail,
    }


def _made(folder: epath.Path) -> str | None:
  """The fingerprint of the complete set in a folder; None if there is none."""
  written = ('manifest.json', 'drops.jsonl', 'review.html', f'set/{NAME}')
  if not all((folder / name).exists() for name in written):
    return None
  saved = read_manifest(folder)
  return saved.get('made') if saved.get('complete') else None
