"""Questions in parquet files, in the columns that trainers read.

`verl:` reads verl's alone, as MMSearch-R1 and FVQA publish them: `prompt`,
`images` and `reward_model`. `parquet:` reads those of EasyR1 (images, problem,
answer), TRL (prompt, image or images, solution), ms-swift (messages or query,
images, solution) and the plain ones as well: one column for each role of
`SPELLINGS`.

A question is text, or a list of {role, content} whose last user message counts;
content may be a list of parts. Images are a list of {bytes, path}, bytes,
base64 text or data: URIs, or one of them; a path is that of a file in the
file's folder or in `questions.images`, or an http(s) address. `reward_model`
holds `ground_truth` and `candidate_answers` (a list, or one as JSON text); of a
solution in which <answer> is marked, that is the answer. The id is `data_id` or
`id`, else `extra_info.index`, else the place in the file. `category`, if set,
says whether a search is required; `scope`, `search_required`, `gold_regions`
and `hops` are as in json_lines.py. None of these packages is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
import functools
from typing import Any

from gog_jax.questions import answers
from gog_jax.questions import json_lines
from gog_jax.questions import questions as q
from gog_jax.questions import tables
from gog_jax.questions.local_files import ImageFolder
from gog_jax.storage.records import Loaded

_SEARCH = {'search_required': True, 'search_free': False}
_KNOWN = ('scope', 'search_required', 'gold_regions', 'hops')


def _is_prompt(value: Any) -> bool:
  return isinstance(value, list) and all(
      isinstance(one, dict) and {'role', 'content'} <= one.keys()
      for one in value
  )


_PROMPT = ('a list of {role, content}', _is_prompt)
_ASKED = (
    'text or a list of {role, content}',
    lambda value: isinstance(value, str | list),  # Or of parts.
)
_ANSWER = (
    'text, a number or a list of them',
    lambda value: isinstance(value, str | int | float | list),
)
_REWARD = (
    'a struct with ground_truth',
    lambda value: isinstance(value, dict) and 'ground_truth' in value,
)
_VERL: tables.Roles = {
    'question': {'prompt': _PROMPT},
    'image': {'images': tables.IMAGE},
    'answer': {'reward_model': _REWARD},
}
SPELLINGS: tables.Roles = {
    'question': dict.fromkeys(
        json_lines.QUESTIONS, _ASKED
    ),
    'image': dict.fromkeys(('images', 'image'), tables.IMAGE),
    'answer': {
        **dict.fromkeys(('answer', 'answers', 'solution'), _ANSWER),
        'reward_model': _REWARD,
    },
}


def read(
    path: str,
    *,
    name: str = 'verl',
    roles: tables.Roles = _VERL,
    needed: Sequence[str] = (),
    **options: Any,
) -> Loaded[q.Question]:
  """Reads a file, or the parquet files of a folder; see `tables.read`.

  `needed` names text columns that are required in addition to the roles'.
  """
  return tables.read(
      path,
      name=name,
      needed={**roles, **{column: {column: tables.TEXT} for column in needed}},
      optional=('data_id', 'id', 'extra_info', 'category', *_KNOWN),
      question_of=_question,
      **options,
  )


read_any = functools.partial(read, name='parquet', roles=SPELLINGS)


def _question(row: tables.Row, place: str) -> q.Question:
  extra = row.get('extra_info')
  index = extra.get('index') if isinstance(extra, dict) else None
  ids = (row.get('data_id'), row.get('id'), index, place)
  known = {name: row.get(name) for name in _KNOWN}
  if known['search_required'] is None:
    known['search_required'] = _SEARCH.get(str(row.get('category')))
  known['id'] = next(one for one in ids if one not in (None, ''))
  known['question'] = _of(row, 'question')
  known['answers'] = _accepted(row)
  return json_lines.question_of(known, ImageFolder(), id=place)


def _of(row: tables.Row, role: str) -> Any:
  return next((row[name] for name in SPELLINGS[role] if name in row), None)


def _accepted(row: tables.Row) -> tuple[str, ...]:
  """Every accepted answer."""
  found = _of(row, 'answer')
  if isinstance(found, dict):
    return answers.forms(
        found['ground_truth'], answers.listed(found.get('candidate_answers'))
    )
  if isinstance(found, str) and (marked := answers.MARKED.findall(found)):
    found = marked[-1]
  return answers.forms(found)


