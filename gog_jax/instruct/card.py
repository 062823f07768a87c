"""The data card: what is in the set, what is not, and where it came from."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping, Sequence
import json
from typing import Any

import gog_jax
from gog_jax.instruct import teachers
from gog_jax.instruct.answers import Outcome
from gog_jax.instruct.review import Review
from gog_jax.instruct.teachers import InstructRun
from gog_jax.storage import markdown
from gog_jax.types import Example

DESCRIPTION = (
    'Glance-or-Gaze conversations for supervised fine-tuning: a teacher '
    'answers questions about images with text search, image search and gaze '
    '(crop and search), checked automatically and, in part, by people.'
)
_LICENCE = (
    'Questions, answers and images keep the licences of their sources, search '
    'results those of the pages they come from; what a remote teacher wrote '
    'falls under its vendor\'s terms. Nothing of this was cleared here.'
)
_LIMITS = (
    'An answer is right where the judge named above says so; an answer in '
    'other words, or one that has changed since, counts as wrong.',
    'Evidence is an accepted answer found word for word in the results: it may '
    'stand there by chance, and evidence in other words is not seen.',
    'Whether a gaze was sensible is known only where gold regions are.',
    'What a search finds changes with time: see the dates, and record the '
    'searches (`tools.mode=record`) to have them again.',
    'Thoughts are the teacher\'s words; nobody checked that they are why it '
    'did what it did.',
)


def facts(
    chosen: Sequence[Outcome],
    asked: Sequence[Outcome],
    questions: Sequence[Example],
    drops: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
  """All counts, for the card and the manifest.

  Args:
    chosen: The outcomes that are in the set.
    asked: All outcomes.
    questions: The questions, by the outcomes' indices.
    drops: The lines of drops.jsonl.
  """
  dates = sorted({one.date for one in chosen})
  return {
      'n': len(chosen),
      'asked': len(asked),
      'by_kind': _count(one.kind for one in chosen),
      'by_source': _count(
          questions[one.index].source or 'unknown' for one in chosen
      ),
      'too_easy_kept': sum(one.easy for one in chosen),
      'by_direct_answers_right': _count(
          f'{one.n_right} of {one.n_direct}' for one in asked
      ),
      'dropped': {
          what: _count(drop['reason'] for drop in drops if drop['of'] == what)
          for what in ('record', 'question', 'try')
      },
      'searched': dates[:1] + dates[-1:],
  }


def write(
    run: InstructRun,
    identity: Mapping[str, Any],
    found: Mapping[str, Any],
    reviewed: Review,
) -> str:
  """The card as Markdown.

  Args:
    run: With the judge and the tools.
    identity: The config fields on which the set depends.
    found: What `facts` gives.
    reviewed: What people said.
  """
  config, c = run.config, run.config.instruct
  judge = config.reward.accuracy
  if run.judge is not None:
    judge += f' ({run.judge.identity})'
  n = found['n']
  no_search = found['by_kind'].get('no_search', 0)
  first, last = found['searched']
  accepted = len(reviewed.with_verdict('accept'))
  rejected = len(reviewed.with_verdict('reject'))
  notes = {n: one.note for n, one in reviewed.samples.items() if one.note}
  blocks = [
      '# GoG-Instruct',
      DESCRIPTION,
      f'{n} samples, of which {no_search} ({100 * no_search / n:.1f} %) do not '
      f'search; {found["asked"]} questions were asked.',
      '## How it was made',
      _list([
          f'teacher: {teachers.name_of(config)}',
          f'judge: {judge}',
          f'searched: {run.toolbox.version}, from {first} to {last} (UTC)',
          f'made with: gog_jax {gog_jax.__version__}',
          f'sources: {", ".join(config.questions.train)}',
          f'uncertainty filter: {c.n_direct} direct answers; where all are '
          f'right: {c.easy}',
          f'review: {accepted} accepted, {rejected} rejected by people',
      ]),
      '## What is in it',
      _table('source', found['by_source']),
      _table('kind', found['by_kind']),
      f'{found["too_easy_kept"]} of these answer at once what the teacher '
      f'always answers right.',
      '## Right among the direct answers, of all questions asked',
      _table('right', found['by_direct_answers_right']),
      '## What is not in it',
      'Questions, each by one reason:',
      _table('reason', found['dropped']['question']),
      'Tries, also of questions that a later try has answered:',
      _table('reason', found['dropped']['try']),
      'Records of the sources that hold no question of use:',
      _table('reason', found['dropped']['record']),
  ]
  if notes:
    said = (
        f'{markdown.inline(name)}: {markdown.inline(note)}'
        for name, note in sorted(notes.items())
    )
    blocks += ['## Notes of the review', _list(said)]
  settled = json.dumps(identity, indent=2, sort_keys=True)
  blocks += [
      '## Licence',
      c.licence or _LICENCE,
      '## Known limits',
      _list(_LIMITS),
      '## Config',
      f'```json\n{settled}\n```',
  ]
  return '\n\n'.join(blocks) + '\n'


def _list(entries: Iterable[str]) -> str:
  return '\n'.join(f'- {entry}' for entry in entries)


def _table(name: str, counts: Mapping[str, int]) -> str:
  rows = [(markdown.inline(key), n) for key, n in counts.items()]
  return markdown.table((name, 'n'), rows) if rows else 'none'


def _count(values: Any) -> dict[str, int]:
  """How often each value occurs, the commonest first, then by name."""
  counts = collections.Counter(values)
  return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
