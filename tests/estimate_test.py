"""What an evaluation would take: numbers worked out by hand."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

from gog_jax.app import dry_run
from gog_jax.errors import UserError
from gog_jax.evaluation import estimate
from gog_jax.models.folders import TOY_BASE
from gog_jax.storage import files
from tests import endpoints
from tests import main_test
from tests import mini


def make_run(workdir, *names, **more):
  return mini.make_run(
      workdir, 'eval', eval__policies=names, eval__n_examples=10, **more
  )


def item(index, **values):
  fields = dict(
      index=index, valid=True, unjudged=False, accuracy=1.0, format=1.0,
      turns=3, calls=2, searches=2, prompt_tokens=1000, completion_tokens=50,
      price=0.01, seconds=9.0,
  )  # fmt: skip
  return {'version': 1, 'item': fields | values}


def write(folder, *items, complete=False):
  folder.mkdir(parents=True)
  # Version and item first, as rollouts.py writes them.
  lines = [json.dumps(row, separators=(',', ':')) + '\n' for row in items]
  (folder / 'trajectories.jsonl').write_text(''.join(lines))
  found = {'complete': complete, 'n_items': 10, 'infra_errors': 0}
  files.write_atomic(folder / 'progress.json', json.dumps(found))


REMOTE = {
    'remote__url': 'http://127.0.0.1:1/v1',
    'remote__model': 'm',
    'remote__price_in': 2.0,
    'remote__price_out': 10.0,
    'remote__max_spend': 9.0,
    'remote__max_tokens': 100,
    'general__rollout__max_turns': 4,
    'general__rollout__max_context': 5000,
    'tools__limits__text_search__price': 0.5,
    'tools__limits__gaze__price': 2.0,
    'tools__max_spend': 1.0,
}


@pytest.mark.parametrize(
    ('name', 'turns', 'calls', 'asked', 'dearest'),
    [
        ('direct@remote', 1, 0, 1, 0),
        ('full_search@remote', 3, 2, 1, 0.5),
        ('gog@remote', 4, 3, 4, 2.0),
        ('no_gaze@remote', 4, 3, 4, 0.5),
        ('mmsearch_r1@remote', 3, 2, 3, 0.5),
    ],
)
def test_bounds_follow_from_the_config(
    name, turns, calls, asked, dearest, tmp_path
):
  one = estimate.estimate(make_run(tmp_path, name, **REMOTE), name)
  assert (one.items, one.done, one.parameters) == (10, 0, 0)
  assert one.expected == {} and one.told_by == ''
  tokens = {
      'prompt_tokens': 10 * asked * 5000,
      'completion_tokens': 10 * asked * 100,
  }
  dollars = (
      2e-6 * tokens['prompt_tokens'] + 10e-6 * tokens['completion_tokens']
  )
  assert one.most == {
      'turns': 10 * turns,
      'calls': 10 * calls,
      'judged': 0,
      **tokens,
      'price': pytest.approx(dollars + 10 * calls * dearest),
  }


@pytest.mark.parametrize('priced', [True, False])
def test_a_price_that_is_not_given_is_unknown(tmp_path, priced, capsys):
  judge = dict(model='j', price_in=2.0 * priced, max_spend=7.0)
  remote = dict(model='m', price_in=2.0 * priced, max_spend=9.0)
  names = 'gog@remote', 'direct@remote'
  with endpoints.serve(lambda _: endpoints.says('')) as server:
    config = mini.make_config(
        'eval', eval__policies=names, eval__n_examples=10,
        reward__accuracy='judge', judge__url=server.url,
        remote__url=server.url,
        **{f'judge__{name}': value for name, value in judge.items()},
        **{f'remote__{name}': value for name, value in remote.items()},
    )  # fmt: skip
    dry_run.dry_run(config, tmp_path / 'run')
  assert server.heard == []
  assert not (tmp_path / 'run').exists()
  out = capsys.readouterr().out
  assert 'judge:\n  j: answers' in out and 'remote:\n  m: answers' in out
  run = mini.run_of(config, tmp_path)
  price = sum(estimate.estimate(run, n).most['price'] for n in names)
  if priced:
    assert f'all at most: ${price:,.4f}; the judge: no more than' in out
    assert 'judge.max_spend=$7.00' in out
  else:
    assert 'all at most: price unknown; the judge: price unknown' in out
    assert '$' not in out


def test_what_is_done_tells_what_is_expected(tmp_path):
  name = 'gog@remote'
  run = make_run(tmp_path, name, **REMOTE)
  write(
      tmp_path / 'eval' / name,
      item(0),
      item(1, turns=1, calls=0, prompt_tokens=200, price=0.002),
      item(2, valid=False),  # To be asked again.
      item(3, turns=2, calls=1, prompt_tokens=600, price=0.006, seconds=0.0),
  )
  one = estimate.estimate(run, name)
  assert one.done == 3 and one.told_by == 'what is done'
  # 7 left: turns (3 + 1 + 2) / 3, calls 1, and so on.
  assert one.expected == pytest.approx({
      'turns': 14, 'calls': 7, 'prompt_tokens': 7 * 600,
      'completion_tokens': 7 * 50, 'seconds': 7 * 6, 'price': 7 * 0.006,
      'judged': 0,
  })  # fmt: skip
  assert one.most['turns'] == 7 * 4
  items, _, expected = estimate.describe(one)
  assert items == '10 items, 3 done' and '14 turns, 7 tool calls' in expected
  assert '$0.0420 (by what is done)' in expected


def test_so_does_the_same_policy_on_another_benchmark(tmp_path):
  name = 'gog@remote'
  write(tmp_path / 'eval_world_hard' / name, item(0, calls=4), complete=True)
  write(tmp_path / 'eval_world_validation' / name, item(0, calls=9))
  one = estimate.estimate(make_run(tmp_path, name, **REMOTE), name)
  assert one.told_by == f'eval_world_hard/{name}'
  assert one.expected['calls'] == 40 and one.done == 0


def test_of_a_model_that_is_loaded_its_size_is_told_but_nothing_read(
    tmp_path, monkeypatch
):
  from safetensors import numpy as safetensors

  held = safetensors.load_file(TOY_BASE / 'model.safetensors')
  n = sum(array.size for array in held.values())
  folder = tmp_path / 'model'
  shutil.copytree(TOY_BASE, folder)
  (folder / 'model.safetensors').unlink()
  run = make_run(
      tmp_path / 'run', 'direct', 'gog@base', model__path=str(folder)
  )
  for name in ('direct', 'gog@base'):
    one = estimate.estimate(run, name)
    assert (one.parameters, one.bytes) == (n, 4 * n)


def test_a_dry_run_says_it_and_writes_nothing(tmp_path):
  done = subprocess.run(
      [
          sys.executable, '-m', 'gog_jax.main', '--config=configs/eval.py',
          '--dry_run', f'--workdir={tmp_path}/run',
          '--config.eval.policies=("direct", "expert")',
      ],
      cwd=main_test.ROOT,
      env=main_test.environment(),
      capture_output=True,
      text=True,
      timeout=300,
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  assert 'eval direct:\n  512 items, 0 done; 1.7 million' in done.stdout
  assert '  at most   512 turns, 0 tool calls, $0.0000' in done.stdout
  assert '  at most   2,560 turns, 2,048 tool calls, $0.0000' in done.stdout
  assert 'nothing was run' in done.stdout
  assert not (tmp_path / 'run').exists()


def test_it_is_for_what_takes_time(tmp_path):
  with pytest.raises(UserError, match='--dry_run: nothing to plan for'):
    dry_run.dry_run(mini.make_config('inspect'), tmp_path)
