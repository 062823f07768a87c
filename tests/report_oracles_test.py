"""Policies whose behaviour is known, through the real loop: metrics by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from gog_jax.boxes import BoxSpec
from gog_jax.remote.ledger import Ledger
from gog_jax.report import measures
from gog_jax.report.results import Evaluated
from gog_jax.rewards import behaviour
from gog_jax.rewards import score as rewards
from gog_jax.rollout.policy import Request
from gog_jax.tools import gaze as gaze_lib
from gog_jax.tools.search import image_search
from gog_jax.tools.search import text_search
from gog_jax.types import Placement
from gog_jax.types import ToolCall
from gog_jax.types import ToolStatus
from gog_jax.types import Verdict
from tests import chat_helpers
from tests import helpers
from tests import loop_helpers
from tests import report_helpers
from tests import search_helpers

pytestmark = pytest.mark.quick

# The model sees half as many pixels as there are: gold is what HIT shows.
GOLD = (24.0, 6.0, 80.0, 168.0)


def gaze(*box):
  return ToolCall(name='gaze', arguments={'bbox_2d': list(box)})


def text(query='beldak year'):
  return ToolCall(name='text_search', arguments={'query': query})


HIT, MISS = gaze(12, 3, 40, 84), gaze(48, 3, 76, 40)
ALMOST_MISS = gaze(48, 3, 76, 41)  # IoU with MISS 37 / 38.
GLANCE = ToolCall(name='image_search', arguments={})
RIGHT, WRONG = '132', '231'

# Right on exactly 7 of 10. First gazes: wrong on 5, of which 3 hit later.
TEN = {
    'q0': [RIGHT],
    'q1': [RIGHT],
    'q2': [WRONG],
    'q3': [text(), RIGHT],
    'q4': [HIT, RIGHT],
    'q5': [MISS, HIT, RIGHT],
    'q6': [MISS, HIT, text(), RIGHT],
    'q7': [MISS, WRONG],
    'q8': [MISS, text(), text('Beldak  year'), WRONG],
    'q9': [MISS, ALMOST_MISS, HIT, RIGHT],
}
REQUIRED = {'q0': False, 'q1': False, 'q2': False, 'q3': None, 'q9': False}


class Backend(loop_helpers.Backend):
  """Down for one query."""

  async def search_text(self, query, *, scope, top_k):
    if query == 'star':
      raise ConnectionError('down')
    return await super().search_text(query, scope=scope, top_k=top_k)


def play(plays, *, price=0.0, ledger=None) -> Evaluated:
  """What the report is given when a policy plays these."""
  backend = Backend()
  executor = search_helpers.make_executor(
      text_search(backend, top_k=1),
      image_search(backend, top_k=1),
      gaze_lib.gaze(
          backend,
          top_k=1,
          box_spec=BoxSpec(kind='resized_pixels', min_side=16),
          seen_size=loop_helpers.processor().seen_size,
      ),
      backend=backend,
      price=price,
      ledger=ledger,
  )
  chat = loop_helpers.make_chat(executor)

  def script(request, turns):
    said = plays[request.example.id][len(turns)]
    if isinstance(said, str):
      return chat.encode_turn(thought='found', answer=said)
    return chat.encode_turn(thought='look', calls=(said,))

  examples = {
      name: dataclasses.replace(
          chat_helpers.EXAMPLE,
          id=name,
          gold_regions=(GOLD,),
          search_required=REQUIRED.get(name, True),
      )
      for name in plays
  }
  trajectories = loop_helpers.rollout(
      # One at a time: two that ask the same at once would share an answer.
      loop_helpers.Player(script, chat.stop_ids, capacity=1),
      executor,
      chat,
      [Request(example=e, sample=0, seed=0) for e in examples.values()],
      limits=loop_helpers.limits(),
  )
  config = helpers.REWARD
  return Evaluated(
      policy='rl',
      examples=examples,
      trajectories=[
          rewards.score(examples[t.example_id], t, config=config)
          for t in trajectories
      ],
  )


@pytest.fixture(scope='module')
def ten(tmp_path_factory):
  ledger = Ledger(tmp_path_factory.mktemp('spent') / 'spent.jsonl', cap=1.0)
  return play(TEN, price=0.01, ledger=ledger)


def test_answers_and_behaviour_by_hand(ten):
  found = measures.describe(ten, seed=0)
  assert (found['n'], found['infra_errors'], found['unjudged']) == (10, 0, 0)
  for measure in ('accuracy', 'exact_match', 'f1'):
    assert found['answers'][measure]['mean'] == pytest.approx(0.7)
    assert found['answers'][measure]['n'] == 10
  assert found['answers']['judge'] is None
  assert found['behaviour'] == pytest.approx({
      'no_search': 0.3,
      'one_kind': 0.5,  # q3 q4 q5 q7 q9
      'hybrid': 0.2,  # q6 q8
      'searches': 1.4,
      'gazes': 0.6,
      'gazes_per_query': 1.0,  # 1 2 2 1 1 3
      'gaze_hit': 0.4,
      'recovery': 0.6,  # q5 q6 q9
      'reflection': 5 / 6,  # All but q7's; q9 misses twice.
      'redundant_crops': 0.1,  # q9's second.
      'redundant_searches': 0.25,  # q8's second.
      'turns': 2.4,
  })
  assert found['stop_reasons'] == {'answer': 10}


def test_calibration_by_hand(ten):
  found = measures.describe(ten, seed=0)['calibration']
  none = {'n': 0, 'accuracy': None}
  assert found == {
      'required': {
          'searched': {'n': 5, 'accuracy': pytest.approx(3 / 5)},
          'not_searched': none,
      },
      'free': {
          'searched': {'n': 1, 'accuracy': 1.0},
          'not_searched': {'n': 3, 'accuracy': pytest.approx(2 / 3)},
      },
      'unknown': {
          'searched': {'n': 1, 'accuracy': 1.0},
          'not_searched': none,
      },
  }


def test_costs_by_hand(ten):
  found = measures.describe(ten, seed=0)
  cost = found['cost']
  assert cost['searches'] == {'all': 1.4, 'gaze': 1.0, 'text_search': 0.4}
  assert cost['price'] == pytest.approx({'per_query': 0.014, 'total': 0.14})
  assert cost['billed'] == {'prompt': None, 'completion': None, 'n': 0}
  parts = cost['seconds']
  assert set(parts) == {'sample', 'tools', 'all'}
  assert 0 < parts['all']['p50'] <= parts['all']['p95']
  total = sum(len(t.token_ids) for t in ten.trajectories)
  assert sum(cost['tokens'].values()) == pytest.approx(total / 10)
  sampled = sum(turn.n_sampled for t in ten.trajectories for turn in t.turns)
  assert cost['tokens']['completion'] == pytest.approx(sampled / 10)
  assert found['calls']['all'] == {
      'ok': 14, 'model_error': 0, 'infra_error': 0
  }  # fmt: skip


def test_accuracy_against_budget_by_hand(ten):
  found = measures.describe(ten, seed=0)['budget']
  # Searches: 0 0 0 1 1 2 3 1 3 3.
  accuracies, within = [0.2, 0.4, 0.5, 0.7], [0.3, 0.6, 0.7, 1.0]
  for name, unit in (('searches', 1), ('dollars', 0.01)):
    for i, point in enumerate(found[name]):
      assert point == pytest.approx({
          'budget': i * unit, 'accuracy': accuracies[i], 'within': within[i]
      })  # fmt: skip
    assert len(found[name]) == 4
  assert found['tokens'][-1]['accuracy'] == pytest.approx(0.7)
  assert found['tokens'][-1]['within'] == 1
  budgets = [point['budget'] for point in found['tokens']]
  assert budgets == sorted(set(budgets))


def test_a_policy_that_never_searches():
  found = measures.describe(
      play({f'q{i}': [RIGHT if i < 3 else WRONG] for i in range(4)}), seed=0
  )
  assert found['answers']['accuracy']['mean'] == 0.75
  shares = found['behaviour']
  assert shares['no_search'] == 1 and shares['gazes'] == 0
  for undefined in (
      'gaze_hit', 'recovery', 'reflection', 'redundant_crops',
      'redundant_searches',
  ):  # fmt: skip
    assert shares[undefined] is None
  assert found['cost']['searches'] == {'all': 0}
  assert found['budget']['searches'] == [
      {'budget': 0, 'accuracy': 0.75, 'within': 1.0}
  ]
  assert found['budget']['dollars'] == []  # Nothing costs any.


def test_a_policy_that_searches_text_only():
  found = measures.describe(
      play({'a': [text(), RIGHT], 'b': [text(), text('star red'), WRONG]}),
      seed=0,
  )
  shares = found['behaviour']
  assert (shares['one_kind'], shares['hybrid']) == (1, 0)
  assert shares['gazes'] == 0
  assert found['cost']['searches'] == {'all': 1.5, 'text_search': 1.5}


def test_whole_image_after_a_miss_is_reflection_but_no_recovery():
  found = measures.describe(
      play({'a': [MISS, GLANCE, RIGHT], 'b': [MISS, ALMOST_MISS, WRONG]}),
      seed=0,
  )
  shares = found['behaviour']
  assert shares['reflection'] == pytest.approx(1 / 3)
  assert shares['recovery'] == 0
  assert shares['one_kind'] == 1  # An image is searched with, whole or not.


def test_what_is_called_beside_a_miss_is_no_reflection_on_it():
  look, search = report_helpers.gaze(report_helpers.MISS), report_helpers.text()
  example = report_helpers.example('a')
  for turns, reflected in (
      (((look, search),), [False]),
      (((look,), (search,)), [True]),
      (((look,), (look,)), [False, False]),
  ):
    trajectory = report_helpers.trajectory('a', *turns)
    assert behaviour.reflections(example, trajectory) == reflected


def test_infra_errors_on_two_of_ten_are_counted_apart():
  plays = dict(TEN, q1=[text('star'), RIGHT], q2=[HIT, text('star'), WRONG])
  found = measures.describe(play(plays), seed=0)
  assert (found['n'], found['infra_errors'], found['unjudged']) == (8, 2, 0)
  assert found['answers']['accuracy']['mean'] == pytest.approx(6 / 8)
  assert found['answers']['accuracy']['n'] == 8
  assert found['behaviour']['gazes_per_query'] == pytest.approx(10 / 8)
  # Calls are all calls': who fails is asked of them, too.
  assert found['calls']['text_search'] == {
      'ok': 4, 'model_error': 0, 'infra_error': 2
  }  # fmt: skip
  assert found['calls']['all'] == {
      'ok': 15, 'model_error': 0, 'infra_error': 2
  }  # fmt: skip
  assert found['budget']['searches'][-1]['within'] == 1


def test_mistakes_are_the_policys_and_invented_tools_are_one():
  found = measures.describe(
      play({
          'a': [gaze(40, 84, 12, 3), RIGHT],
          'b': [ToolCall(name='red', arguments={}), RIGHT],
          'c': [ToolCall(name='star', arguments={}), text(), RIGHT],
      }),
      seed=0,
  )
  assert found['calls'] == {
      'all': {'ok': 1, 'model_error': 3, 'infra_error': 0},
      'gaze': {'ok': 0, 'model_error': 1, 'infra_error': 0},
      'text_search': {'ok': 1, 'model_error': 0, 'infra_error': 0},
      'unknown': {'ok': 0, 'model_error': 2, 'infra_error': 0},
  }
  assert found['behaviour']['no_search'] == pytest.approx(2 / 3)
  assert found['cost']['searches'] == pytest.approx(
      {'all': 1 / 3, 'text_search': 1 / 3}
  )


def judged(trajectory, right):
  return dataclasses.replace(
      trajectory, verdict=Verdict(right=right, by='judge/1')
  )


def test_the_unjudged_are_counted_apart_from_what_failed():
  one = report_helpers.trajectory
  trajectories = [
      judged(one('a'), True),
      judged(one('b', right=False, answer='wrong'), False),
      judged(one('c'), None),
      one('d', answer='kelo star'),
  ]
  found = measures.describe(
      Evaluated(
          policy='rl',
          examples={n: report_helpers.example(n) for n in 'abcd'},
          trajectories=trajectories,
      ),
      seed=0,
  )
  assert (found['n'], found['infra_errors'], found['unjudged']) == (3, 0, 1)
  assert found['answers']['judge']['mean'] == 0.5
  assert found['answers']['judge']['n'] == 2
  # 'kelo' is right, 'kelo star' half so.
  assert found['answers']['exact_match']['mean'] == pytest.approx(1 / 3)
  assert found['answers']['f1']['mean'] == pytest.approx((1 + 0 + 2 / 3) / 3)


def test_what_failed_is_not_unjudged_too():
  """A user's part that knows nothing masks what a tool has failed as well."""
  down = report_helpers.text(status=ToolStatus.INFRA_ERROR)
  failed = dataclasses.replace(
      report_helpers.trajectory('a', (down,)), masked='mine.py:f'
  )
  unknown = dataclasses.replace(report_helpers.trajectory('b'), masked='f')
  found = measures.describe(
      Evaluated(
          policy='rl',
          examples={n: report_helpers.example(n) for n in 'ab'},
          trajectories=[failed, unknown],
      ),
      seed=0,
  )
  assert (found['n'], found['infra_errors'], found['unjudged']) == (0, 1, 1)


def test_tokens_and_bills_by_hand():
  own = dataclasses.replace(
      report_helpers.trajectory('a', (report_helpers.text(),)),
      token_ids=np.arange(20, dtype=np.int32),
      loss_mask=np.array([0] * 14 + [1] * 6, np.int8),
      sampler_logprobs=np.zeros(20, np.float32),
      placements=(
          Placement(start=2, image=0, grid=(1, 4, 6), n_tokens=6),
          Placement(start=9, image=1, grid=(1, 2, 4), n_tokens=2),
      ),
      seconds={'sample': 1.0, 'tools': 3.0},
  )
  remote = dataclasses.replace(
      report_helpers.trajectory('b', right=False),
      usage={'prompt_tokens': 900, 'completion_tokens': 30, 'price': 0.5},
      seconds={'sample': 2.0},
  )
  both = [own, remote]
  found = measures.costs(both, both)
  # Of the second's four tokens two are its own.
  assert found['tokens'] == {'prompt': 4.0, 'vision': 4.0, 'completion': 4.0}
  assert found['billed'] == {'prompt': 900, 'completion': 30, 'n': 1}
  assert found['price'] == {'per_query': 0.25, 'total': 0.5}
  assert found['seconds']['tools'] == pytest.approx(
      {'mean': 1.5, 'p50': 1.5, 'p95': 2.85}
  )
  assert found['seconds']['all']['mean'] == 3.0
  assert [measures.n_tokens(t) for t in both] == [20, 930]
  assert measures.curves(both)['tokens'] == [
      {'budget': 20.0, 'accuracy': 0.5, 'within': 0.5},
      {'budget': 930.0, 'accuracy': 0.5, 'within': 1.0},
  ]
