"""Questions in verl's parquet files, as MMSearch-R1 and FVQA publish them.

A row has `prompt` (a list of {role, content}), `images` (a list of {bytes,
path}, or of file names) and `reward_model` with `ground_truth` and
`candidate_answers` (a list, or one as JSON text). Its id is `data_id`, else
`extra_info.index`, else its place in the file. `category`, if set, says whether
a search is required. verl itself is not needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gog_jax.questions import answers
from gog_jax.questions import questions as q
from gog_jax.questions import tables
from gog_jax.storage.records import Loaded

_SEARCH = {'search_required': True, 'search_free': False}


def _is_prompt(value: Any) -> bool:
  return isinstance(value, list) and all(
      isinstance(one, dict) and {'role', 'content'} <= one.keys()
      for one in value
  )


_NEEDED: tables.Columns = {
    'prompt': ('a list of {role, content}', _is_prompt),
    'images': tables.IMAGE,
    'reward_model': (
        'a struct with ground_truth',
        lambda value: isinstance(value, dict) and 'ground_truth' in value,
    ),
}


def read(
    path: str,
    *,
    name: str = 'verl',
    needed: Sequence[str] = (),
    **options: Any,
) -> Loaded[q.Question]:
  """Reads a file, or the parquet files of a folder; see `tables.read`.

  `needed` names text columns that are required in addition to verl's own.
  """
  return tables.read(
      path,
      name=name,
      needed=_NEEDED | dict.fromkeys(needed, tables.TEXT),
      optional=('data_id', 'extra_info', 'category'),
      image='images',
      question_of=_question,
      **options,
  )


def _question(row: tables.Row, place: str) -> q.Question:
  extra = row.get('extra_info')
  index = extra.get('index') if isinstance(extra, dict) else None
  reward = row['reward_model'] or {}
  candidates = answers.listed(
      reward.get('candidate_answers'), column='candidate_answers'
  )
  return q.Question(
      id=str(next(
          name
          for name in (row.get('data_id'), index, place)
          if name not in (None, '')
      )),
      question=_asked(row['prompt']),
      answers=answers.forms(reward.get('ground_truth'), candidates),
      search_required=_SEARCH.get(row.get('category') or ''),
  )


def _asked(prompt: Any) -> str:
  """The last user message, without image placeholders."""
  for message in reversed(prompt or []):
    if message['role'] == 'user':
      return (message['content'] or '').replace('<image>', '').strip()
  return ''
