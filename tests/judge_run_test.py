"""A run whose reward is a judge's: its failures are counted, never scored."""

from __future__ import annotations

import json
import time

from aiohttp import web
import numpy as np
import pytest

from gog_jax.app import stages
from gog_jax.errors import RunStopped
from gog_jax.errors import UserError
from gog_jax.evaluation import evaluate
from gog_jax.evaluation import policies
from gog_jax.report import measures
from gog_jax.report import results
from gog_jax.rewards import answers
from gog_jax.storage import rollouts
from gog_jax.storage import trajectories as store
from gog_jax.train import advantages
from gog_jax.train import groups
from gog_jax.types import Example
from gog_jax.types import Trajectory
from tests import endpoints
from tests import judge_helpers
from tests import mini
from tests import report_helpers as helpers


def odd(question: str) -> bool:
  return sum(map(ord, question)) % 2 == 1


def generous_or_broken(body):
  """Calls every answer right, but breaks on some questions."""
  if odd(judge_helpers.question_in(body)):
    return web.Response(status=400, text='filtered')
  return endpoints.says(judge_helpers.verdict(body, 'correct'))


def make_run(workdir, server, **more):
  fields = {
      'eval__policies': ('expert',),
      'eval__n_examples': 32,
      'data__n_test': 32,
      'reward__accuracy': 'judge',
      'judge__url': server.url,
      'judge__model': 'm',
      'judge__max_attempts': 1,
  }
  return mini.make_run(workdir, 'eval', **fields | more)


def test_an_evaluation_counts_verdicts_that_failed_apart(tmp_path, capsys):
  with endpoints.serve(generous_or_broken) as server:
    run = make_run(tmp_path, server, judge__min_success=0.0)
    mini.make_stages(run, 'data', 'eval')
    n_asked = len(server.heard)
  folder = tmp_path / 'eval'
  path = folder / 'expert' / 'trajectories.jsonl'
  trajectories = store.read(path, Trajectory)
  examples = {
      example.id: example
      for example in store.read(folder / 'expert' / 'examples.jsonl', Example)
  }
  exact = [
      answers.match(t.answer or '', examples[t.example_id].answers)
      for t in trajectories
  ]
  broken = [
      not right and odd(examples[t.example_id].question)
      for right, t in zip(exact, trajectories, strict=True)
  ]
  # The run has all three: exact matches, generosity and failures.
  n_broken = sum(broken)
  assert n_broken and any(exact) and sum(exact) + n_broken < 32
  for t, right, failed in zip(trajectories, exact, broken, strict=True):
    assert t.verdict is not None and t.valid is not failed
    assert t.verdict.right is (None if failed else True)
    assert t.verdict.by == ('match' if right else run.judge.version)
    assert t.reward_parts['accuracy'] == (not failed)
    assert t.reward_parts['exact_match'] == right
  facts = evaluate.facts(folder / 'expert')
  assert facts['judge_errors'] == facts['infra_errors'] == n_broken
  assert (facts['n'], facts['accuracy']) == (32 - n_broken, 1.0)
  row = measures.describe(
      results.Evaluated(
          policy='expert', examples=examples, trajectories=trajectories
      ),
      seed=0,
  )
  assert (row['n'], row['answers']['accuracy']['mean']) == (32 - n_broken, 1.0)
  assert (row['infra_errors'], row['unjudged']) == (0, n_broken)
  manifest = json.loads((folder / 'expert' / 'manifest.json').read_text())
  counted = manifest['judge']
  assert manifest['inputs']['judge'] == run.judge.identity
  assert counted['version'] == run.judge.version and counted['model'] == 'm'
  assert counted['asked'] == n_asked == counted['requests']
  assert counted['match'] == sum(exact)
  assert counted['asked'] + counted.get('same', 0) == 32 - sum(exact)
  assert counted['failures'] == {'filtered or refused': counted['failed']}
  assert 'eval expert: judge:' in capsys.readouterr().err
  # Another judge would have said something else.
  for field, value in (('model', 'n'), ('max_answer_characters', 9)):
    other = make_run(tmp_path, server, **{f'judge__{field}': value})
    with pytest.raises(UserError, match='made from another judge than there'):
      stages.manifest_of(other, 'eval expert').is_complete(
          folder / 'expert'
      )
  stages.manifest_of(other, 'data').is_complete(tmp_path / 'data')


def test_a_run_stops_where_too_many_fail_and_goes_on(tmp_path):
  with endpoints.serve(lambda _: web.Response(status=500)) as server:
    run = make_run(tmp_path, server)
    mini.make_stages(run, 'data')
    with pytest.raises(RunStopped, match='--config.judge.min_success=0.95'):
      mini.make_stages(run, 'eval')
  folder = tmp_path / 'eval' / 'expert'
  assert not evaluate.is_done(run, folder)
  # What was rolled out by then is kept, and waits for a verdict.
  kept, _ = rollouts.read(folder)
  waiting = {t.example_id: t for t in kept if not t.valid}
  assert len(waiting) >= 2
  assert evaluate.progress_of(folder)['judge_errors'] == len(waiting)
  with endpoints.serve(judge_helpers.right_if()) as server:
    run = make_run(tmp_path, server)
    mini.make_stages(run, 'eval')
  facts = evaluate.facts(folder)
  assert facts['judge_errors'] == 0 and 0 < facts['accuracy'] < 1
  final, _ = rollouts.read(folder)
  assert len(final) == 32
  for t in final:
    if t.example_id in waiting:  # The clock tells a rollout from another.
      assert t.seconds == waiting[t.example_id].seconds
      assert t.verdict.right is not None


def test_one_judge_for_all_that_belongs_together(tmp_path):
  with endpoints.serve(judge_helpers.right_if()) as server:
    run = make_run(tmp_path, server, seeds=(3, 4))
    judge = run.judge
    direct = policies.config_of(run.config, 'direct')
    for own in (run.config.of_seed(4), direct):
      assert run.with_config(own).judge is judge
    assert (tmp_path / 'verdicts.sqlite').exists()
    run = mini.make_run(tmp_path, 'eval')
    assert run.judge is None
    name = f'eval {run.config.eval.policies[0]}'
    assert 'judge' not in stages.manifest_of(run, name).inputs


def test_a_step_of_rl_asks_once_about_identical_answers(tmp_path):
  """At once, and not again after a restart; what fails is masked."""
  said = ['the iron lady', 'louvre', 'louvre', 'broken']
  asked = [helpers.example('0'), helpers.example('1')]
  group = [e for e in asked for _ in said]
  rolled = [helpers.trajectory(e.id, answer=a) for e in asked for a in said]
  at_once, most = 0, 0

  def script(body):
    nonlocal at_once, most
    at_once += 1
    most = max(most, at_once)
    time.sleep(0.2)
    at_once -= 1
    answer = judge_helpers.answer_in(body)
    if answer == 'broken':
      return web.Response(status=400, text='filtered')
    word = 'correct' if answer == 'the iron lady' else 'incorrect'
    return endpoints.says(judge_helpers.verdict(body, word))

  parts = {'reward__extra': ('token_f1=0.5',), 'judge__min_success': 0.0}
  with endpoints.serve(script) as server:
    run = make_run(tmp_path, server, **parts)
    scored = run.scored(group, rolled)
    assert len(server.heard) == 6 and most > 1  # Of 8 answers.
    again = make_run(tmp_path, server, **parts).scored(group, rolled)
    assert len(server.heard) == 8  # A failure is no verdict.
  values, valid, _ = groups.scores_of(run, [scored[:4], scored[4:]])
  assert valid.tolist() == [[True, True, True, False]] * 2
  # 0.9 of what is right, 0.1 of the format, half of F1: of 'kelo the great'
  # and the like 'the iron lady' shares no word that counts.
  np.testing.assert_allclose(values[:, :3], [[1.0, 0.1, 0.1]] * 2)
  found = advantages.group_advantages(
      values, valid, np.ones_like(values), eps=1e-4, divide_by_std=False
  )
  np.testing.assert_allclose(
      found.advantages, [[0.6, -0.3, -0.3, 0.0]] * 2, atol=1e-6
  )
  assert [t.reward for t in again] == [t.reward for t in scored]
