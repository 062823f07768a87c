"""What the builder does when it is told so, and what it says of it."""

from __future__ import annotations

import collections
import re
from typing import Any

from aiohttp import web
import pytest

from gog_jax.app import commands
from gog_jax.app import dry_run
from gog_jax.errors import UserError
from gog_jax.instruct import build
from gog_jax.storage import files
from tests import endpoints
from tests import instruct_helpers as helpers
from tests import instruct_test
from tests import mini
from tests import remote_helpers

N = 11  # Questions; of these 4 and 9 have no right answer.


@pytest.fixture(scope='module')
def world(tmp_path_factory):
  return helpers.make_world(tmp_path_factory.mktemp('items'), N)


def built(workdir, world, **fields) -> tuple[Any, set[int]]:
  """A build's facts, or why there are none; and the items asked about."""
  with endpoints.serve(helpers.teach) as server:
    run = instruct_test.make_run(workdir, world, server.url, **fields)
    try:
      found = build.build(run, {})
    except UserError as error:
      found = str(error)
  return found, {helpers.item_of(body) for body in server.bodies}


def test_samples_are_taken_as_they_come(world, tmp_path):
  facts, asked = built(
      tmp_path, world, instruct__no_search=-1.0, instruct__n=5,
      instruct__chunk=2,
  )  # fmt: skip
  # Questions 0 to 3 and 5 have right answers; 6 is of their chunk's.
  fates = instruct_test.expected(
      instruct_test.make_run(tmp_path, world)
  )
  kinds = [kind for _, kind, _ in fates.values() if kind]
  n = 1 + [i for i, (_, k, _) in enumerate(fates.values()) if k][4]
  assert asked == set(range(n + n % 2))
  assert facts['n'] == 5
  assert facts['by_kind'] == collections.Counter(kinds[:5])


def test_no_more_is_asked_than_it_was_told_to(world, tmp_path, capsys):
  message, asked = built(
      tmp_path, world, instruct__n_queries=5, instruct__n=10
  )
  assert asked == set(range(5))  # A chunk is 8.
  assert 'raise --config.instruct.n_queries' in message
  assert 'exhausted' not in capsys.readouterr().err


def test_what_is_not_in_a_set_that_is_refused_is_written_and_said(
    world, tmp_path, capsys
):
  message, asked = built(
      tmp_path, world, instruct__no_search=-1.0, instruct__n=12,
      instruct__n_queries=50,
  )  # fmt: skip
  assert asked == set(range(N))
  drops = list(files.read_jsonl(tmp_path / 'instruct' / 'drops.jsonl'))
  lost = [d['where'] for d in drops if d['of'] == 'question']
  assert {'q004', 'q009'} <= {*lost} and len(lost) < N
  err = capsys.readouterr().err
  assert f'all {N} questions of config.questions.train were asked' in err
  reasons = collections.Counter(
      d['reason'] for d in drops if d['of'] == 'question'
  )
  (first, n), *_ = reasons.most_common()
  assert f'instruct: questions left out: {n} {first}' in err
  assert 'tries that failed: ' in err
  # All that there were have been asked: a larger n_queries asks no more.
  assert f'{N - len(lost)} (12 are needed): give' in message
  assert 'n_queries' not in message


def test_a_source_that_is_exhausted_is_named(world, tmp_path, capsys):
  helpers.make_world(tmp_path / 'few', 3)
  (tmp_path / 'more.py').write_text(
      'from tests import instruct_helpers as helpers\n'
      'def questions():\n'
      f'  return [helpers.example(i) for i in range({N}, 30)]\n'
  )
  train = (
      f'examples:{tmp_path}/few/questions', f'{tmp_path}/more.py:questions'
  )
  _, asked = built(
      tmp_path, world, questions__train=train, instruct__n_queries=9,
      instruct__n=20,
  )  # fmt: skip
  # In turn: 0, 11, 1, 12, 2, 13, 14, 15, 16.
  assert asked == {0, 1, 2, *range(11, 17)}
  lines = capsys.readouterr().err.splitlines()
  (line,) = [one for one in lines if 'exhausted' in one]
  assert 'few/questions/examples.jsonl is exhausted: 3 questions' in line


@pytest.mark.parametrize(
    ('status', 'message'),
    [
        (401, 'answers 401: who are you .*the variable OPENAI_API_KEY'),
        (503, 'answers 503: loading after 2 attempts'),
        (307, 'a redirect, which is not followed'),
        (0, 'cannot reach .*is the server running'),
    ],
)
def test_the_endpoint_is_probed_before_anything_is_asked(
    world, tmp_path, status, message
):
  said = {401: 'who are you', 503: 'loading'}.get(status, '')
  models = lambda: web.Response(status=status, text=said)
  with endpoints.serve(helpers.teach, models=models) as server:
    url = server.url if status else 'http://127.0.0.1:1/v1'
    run = instruct_test.make_run(
        tmp_path, world, url, remote__max_attempts=2
    )
    with pytest.raises(UserError, match=message):
      build.build(run, {})
  assert server.heard == []


def test_a_model_that_is_not_listed_is_said(capsys, world, tmp_path):
  models = lambda: web.json_response({'data': [{'id': 'a'}, {'id': 'b'}]})
  with endpoints.serve(helpers.teach, models=models) as server:
    endpoint = remote_helpers.make_endpoint(server.url, model='b')
    assert endpoint.probe() == ''
    run = instruct_test.make_run(
        tmp_path, world, server.url, instruct__n_queries=3, instruct__fewer=True
    )
    build.build(run, {})
  err = capsys.readouterr().err
  assert 'does not list --config.remote.model=m among its models (a, b)' in err


def test_a_dry_run_says_what_a_build_then_takes(world, tmp_path, capsys):
  fields = {name.replace('.', '__'): value for name, value in world.items()}
  fields |= {
      'instruct__n_queries': 5,
      'instruct__n_direct': 2,
      'instruct__fewer': True,
      'remote__price_in': 2.0,
      'remote__max_spend': 9.0,
  }
  with endpoints.serve(helpers.teach) as server:
    config = mini.make_config('instruct', remote__url=server.url, **fields)
    dry_run.dry_run(config, tmp_path / 'run')
    assert server.heard == [] and not (tmp_path / 'run').exists()
    commands.do(config, tmp_path / 'run')
  out = capsys.readouterr().out
  assert 'remote:\n  m: answers' in out
  assert '\n  left out of questions.train: none\n  prompts: 5\n' in out
  # Two direct answers of each question, and two conversations.
  assert '5 questions, 0 done: 10 direct answers and 10 conversations' in out
  most = re.search(r'at most   (\d+) turns', out)
  assert most and len(server.heard) <= int(most[1]) == 10 + 10 * 10
  (told,) = re.findall(r'longest prompt ([\d,]+) tokens', out)
  run = instruct_test.make_run(tmp_path, world)
  prompts = [run.chat.prompt(helpers.example(i)) for i in range(5)]
  longest = max(len(prompt.token_ids) for prompt in prompts)
  assert int(told.replace(',', '')) == longest
