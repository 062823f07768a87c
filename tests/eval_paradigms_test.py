"""Every paradigm end to end, with scripts and with a remote model."""

from __future__ import annotations

import collections
import json
import shutil

from aiohttp import web
import pytest

from gog_jax.app import stages
from gog_jax.app import walk
from gog_jax.chat import load_dialect
from gog_jax.errors import UserError
from gog_jax.evaluation import evaluate
from gog_jax.evaluation import policies
from gog_jax.storage import rollouts
from tests import endpoints
from tests import mini

N = 3
REMOTE = ('direct', 'full_search', 'gog', 'no_gaze', 'mmsearch_r1')


@pytest.fixture(name='workdir', scope='module')
def copied(prepared, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('paradigms')
  shutil.copytree(prepared / 'data', workdir / 'data')
  return workdir


def make_run(workdir, *names, **more):
  return mini.make_run(
      workdir, 'eval', eval__policies=names, eval__n_examples=N, **more
  )


def texts(body):
  return [
      part
      for message in body['messages']
      for part in endpoints.parts_of(message)
      if isinstance(part, str)
  ]


def in_gog(body):
  """Glance-or-Gaze by prompt: gazes if it may, else searches; then answers."""
  text = '\n'.join(texts(body))
  n_said = sum(m['role'] == 'assistant' for m in body['messages'])
  if '<reason>' in text:  # MMSearch-R1's dialect.
    if n_said == 0:
      said = '<reason>look</reason>\n<search><img></search>'
    elif n_said == 1:
      said = '<reason>who</reason>\n<text_search>who is it</text_search>'
    else:
      said = '<reason>so</reason>\n<answer>132</answer>'
  elif n_said == 0 and '"gaze"' in text:
    said = (
        '<think>look</think>\n<tool_call>\n{"name":"gaze","arguments":'
        '{"bbox_2d":[100,100,600,600],"image":1}}\n</tool_call>'
    )
  elif n_said == 0 and '"image_search"' in text:
    said = (
        '<think>look</think>\n<tool_call>\n'
        '{"name":"image_search","arguments":{}}\n</tool_call>'
    )
  else:
    said = '<think>so</think>\n<answer>132</answer>'
  usage = {'prompt_tokens': 100, 'completion_tokens': 10}
  return web.json_response(
      endpoints.completion(endpoints.says(said), usage=usage)
  )


@pytest.fixture(name='remote', scope='module')
def asked(workdir):
  """All paradigms of a remote model, what it heard of each, and the run."""
  heard = {}
  names = [f'{one}@remote' for one in REMOTE]
  with endpoints.serve(in_gog) as server:
    run = make_run(
        workdir,
        *names,
        remote__url=server.url,
        remote__model='m',
        remote__price_in=2.0,
        remote__price_out=10.0,
        remote__max_spend=1.0,
        remote__concurrency=2,
    )
    for name in names:
      before = len(server.heard)
      walk.make(run, f'eval {name}')
      heard[name] = server.bodies[before:]
  return run, heard


def evaluated(run, name):
  trajectories, examples = rollouts.read(run.workdir / 'eval' / name)
  assert len(trajectories) == len(examples) == N
  return list(zip(examples, trajectories, strict=True))


def calls_of(trajectory):
  return [call.name for turn in trajectory.turns for call in turn.parsed.calls]


@pytest.mark.parametrize(
    ('name', 'calls', 'asked'),
    [
        ('direct', [], 1),
        ('full_search', ['image_search', 'text_search'], 1),
        ('gog', ['gaze'], 2),
        ('no_gaze', ['image_search'], 2),
        ('mmsearch_r1', ['image_search', 'text_search'], 3),
    ],
)
def test_a_remote_model_plays_each_paradigm(remote, name, calls, asked):
  run, heard = remote
  bodies = heard[f'{name}@remote']
  assert len(bodies) == asked * N
  for example, t in evaluated(run, f'{name}@remote'):
    assert calls_of(t) == calls
    assert t.answer == '132' and t.reward_parts['format'] == 1
    assert len(t.turns) == len(calls) + 1
    if name == 'full_search':
      assert t.turns[1].parsed.calls[0].arguments == {'query': example.question}
    # What the endpoint said of every message, at 2 and 10 dollars a million.
    assert t.usage['prompt_tokens'] == 100 * asked
    assert t.usage['completion_tokens'] == 10 * asked
    assert t.usage['price'] == pytest.approx(300e-6 * asked)
  progress = evaluate.progress_of(run.workdir / 'eval' / f'{name}@remote')
  assert progress['price'] == pytest.approx(300e-6 * asked * N)


def test_it_is_told_of_the_tools_that_it_has_and_of_no_others(remote):
  _, heard = remote
  told = {
      name: set(
          tool
          for tool in ('gaze', 'text_search', 'image_search')
          if tool in '\n'.join(texts(bodies[0])).lower()
      )
      for name, bodies in heard.items()
  }
  assert told['direct@remote'] == set()
  assert told['gog@remote'] == {'gaze', 'text_search', 'image_search'}
  assert told['no_gaze@remote'] == {'text_search', 'image_search'}
  # It is not told how to call what was called for it; the calls are there.
  system = endpoints.parts_of(heard['full_search@remote'][0]['messages'][0])
  assert system == [load_dialect('gog_remote', 'full_search').system]
  roles = [m['role'] for m in heard['full_search@remote'][0]['messages']]
  assert roles == ['system', 'user'] + ['assistant', 'user'] * 2
  assert '<search><img></search>' in texts(heard['mmsearch_r1@remote'][0])[1]


def test_one_that_will_not_answer_at_once_has_no_other_turn(workdir, tmp_path):
  shutil.copytree(workdir / 'data', tmp_path / 'data')

  def stubborn(body):
    del body
    return endpoints.says(
        '<think>look</think>\n<tool_call>\n'
        '{"name":"image_search","arguments":{}}\n</tool_call>'
    )

  with endpoints.serve(stubborn) as server:
    run = make_run(
        tmp_path, 'direct@remote', 'full_search@remote', 'mmsearch_r1@remote',
        remote__url=server.url, remote__model='m',
    )  # fmt: skip
    for name in run.config.eval.policies[:2]:
      walk.make(run, f'eval {name}')
      for _, t in evaluated(run, name):
        assert t.answer is None and t.reward_parts['accuracy'] == 0
        assert t.turns[-1].results == ()


def test_a_server_may_move_and_its_address_is_not_written_down(tmp_path):
  def manifest_at(url):
    run = make_run(
        tmp_path, 'gog@remote', remote__url=url, remote__model='m'
    )
    return stages.manifest_of(run, 'eval gog@remote')

  one = manifest_at('http://127.0.0.1:1/v1?key=sk-1')
  assert one.fingerprint() == manifest_at('http://[::1]/v1').fingerprint()
  assert 'sk-1' not in str(one) and one.config['remote']['model'] == 'm'


def test_what_the_endpoint_fails_is_counted_and_asked_again(
    workdir, tmp_path
):
  shutil.copytree(workdir / 'data', tmp_path / 'data')
  fail = collections.Counter()

  def down_at_first(body):
    if fail['asked'] < 2:
      fail['asked'] += 1
      return web.Response(status=500)
    return in_gog(body)

  with endpoints.serve(down_at_first) as server:
    run = make_run(
        tmp_path, 'direct@remote', remote__url=server.url, remote__model='m',
        remote__max_attempts=1, remote__concurrency=1,
    )  # fmt: skip
    walk.walk(run)
    folder = tmp_path / 'eval' / 'direct@remote'
    assert evaluate.facts(folder)['infra_errors'] == 2
    n_asked = len(server.heard)
    walk.walk(run)
    assert len(server.heard) == n_asked + 2
  assert evaluate.facts(folder)['infra_errors'] == 0
  summary = json.loads((tmp_path / 'report' / 'summary.json').read_text())
  assert summary['rows'][0]['n'] == N


def test_spending_stops_at_the_cap_and_goes_on_above_it(workdir, tmp_path):
  shutil.copytree(workdir / 'data', tmp_path / 'data')
  with endpoints.serve(in_gog) as server:

    def run_with(cap):
      return make_run(
          tmp_path, 'direct@remote', remote__url=server.url, remote__model='m',
          remote__price_in=2.0, remote__price_out=10.0, remote__concurrency=1,
          remote__max_spend=cap,
      )  # fmt: skip

    # A message costs 300 millionths: the second reaches the cap.
    with pytest.raises(UserError, match='raise it to go on'):
      walk.walk(run_with(500e-6))
    assert len(server.heard) == 2
    spent = (tmp_path / 'remote_spent.jsonl').read_text().splitlines()
    assert [json.loads(line)['price'] for line in spent] == [300e-6] * 2
    with pytest.raises(UserError, match='have cost .0.0006'):
      walk.walk(run_with(550e-6))
    assert len(server.heard) == 2
    walk.walk(run_with(1.0))
    assert len(server.heard) == N


@pytest.mark.parametrize(
    ('name', 'n_said', 'tools'),
    [
        ('direct', 0, set()),
        ('full_search', 2, {'text_search', 'image_search'}),
        ('gog', 0, {'text_search', 'image_search', 'gaze'}),
        ('no_gaze', 0, {'text_search', 'image_search'}),
        ('mmsearch_r1', 0, {'text_search', 'image_search'}),
    ],
)
def test_a_script_plays_each_paradigm(workdir, name, n_said, tools):
  name = f'{name}@script'
  run = make_run(workdir, name, eval__script='tests.eval_plays:silent')
  own = policies.run_of(run, name)
  assert set(own.executor.tools) == tools
  walk.make(run, f'eval {name}')
  for _, t in evaluated(run, name):
    assert len(t.turns) == n_said + 1
    assert calls_of(t) == ['image_search', 'text_search'][:n_said]
    assert t.answer and len(t.answer) == 6


@pytest.mark.slow
def test_the_base_answers_at_once_in_words_without_tools(workdir):
  run = make_run(workdir, 'direct@base')
  walk.make(run, 'eval direct@base')
  for _, t in evaluated(run, 'direct@base'):
    assert len(t.turns) == 1 and not calls_of(t)
    assert t.sampler_logprobs.any()
