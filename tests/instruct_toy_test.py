"""What a build is made from, refuses, and makes of the embedded world."""

from __future__ import annotations

import collections

import pytest

from gog_jax.app import commands
from gog_jax.conversations import tfds_set
from gog_jax.errors import UserError
from gog_jax.instruct import settings
from gog_jax.instruct import sources
from gog_jax.questions.records import Drop
from gog_jax.questions.records import Records
from gog_jax.rewards import behaviour
from tests import instruct_helpers as helpers
from tests import mini


def test_records_of_no_use_are_counted_and_sources_taken_in_turn():
  a = [helpers.example(i) for i in range(4)]
  b = [
      helpers.example(0),  # An id that is taken.
      helpers.example(10, images=()),
      helpers.example(11, answers=(' ',)),
      helpers.example(12, images=(b'no image',)),
      helpers.example(13),
  ]
  found = [
      Records(name='a', items=a, drops=(Drop(where='row 9', reason='no image',
                                             detail='it has none'),)),
      Records(name='b', items=b),
  ]  # fmt: skip
  queries = sources.Queries(found, n=100)
  assert [e.id for e in queries] == ['q000', 'q001', 'q002', 'q003', 'q013']
  reasons = collections.Counter(drop.reason for drop in queries.drops)
  assert reasons == {
      'no image': 2, 'duplicate id': 1, 'no answer': 1, 'bad image': 1
  }
  assert queries.drops[0].where == 'a: row 9'
  assert len(sources.Queries(found, n=2)) == 2
  with pytest.raises(UserError, match='no question of use'):
    sources.Queries([Records(name='c', items=b[1:4])], n=5)


@pytest.mark.parametrize(
    ('field', 'value', 'message'),
    [
        ('instruct.teacher', 'human', 'unknown teacher .human.'),
        ('instruct.sources', (), 'sources is empty'),
        ('instruct.sources', ('csv:x',), 'there are world, examples:PATH'),
        ('instruct.sources', ('examples:',), 'there are world, examples:PATH'),
        ('instruct.sources', ('world', 'world'), 'twice'),
        ('remote.url', '', 'needs an endpoint'),
        ('remote.price_in', 1.0, '--config.remote.max_spend=DOLLARS'),
        ('instruct.direct_temperature', 0.0, 'the same answer every time'),
        ('tools.backend', 'world', 'knows nothing about questions of others'),
        ('instruct.teacher', 'expert', 'knows the questions of the embedded'),
    ],
)
def test_builds_that_would_stop_late(field, value, message, tmp_path):
  fields = {
      'instruct__teacher': 'remote',
      'instruct__sources': ('examples:x',),
      'remote__url': 'http://127.0.0.1:1/v1',
      'remote__model': 'm',
      'tools__backend': 'index',
  }
  config = mini.make_run(tmp_path, 'instruct', **fields).config
  settings.check(config)
  config.update_from_flattened_dict({field: value})
  with pytest.raises(UserError, match=message):
    settings.check(config)


def test_the_worlds_expert_teaches_the_toy(tmp_path, capsys):
  """The page as it is launched, but small; then again, which is nothing."""
  fields = {
      'instruct.n': 12,
      'instruct.n_queries': 64,
      'instruct.chunk': 32,
      'instruct.n_direct': 2,
      'instruct.gold': 'each',
  }
  run = mini.make_run(
      tmp_path,
      'instruct',
      **{name.replace('.', '__'): value for name, value in fields.items()},
  )
  commands.do(run)
  said = capsys.readouterr().out
  assert said.startswith('12 samples (')
  records = tfds_set.load(tmp_path / 'instruct/set')
  kinds = [one.facts['kind'] for one in records]
  assert kinds.count('no_search') == 5  # round(0.435 * 12)
  for one in records:
    example, t = one.example, one.trajectory
    assert t.answer in example.answers and t.valid
    looks = behaviour.gazes(example, t)
    if example.gold_regions:
      assert all(look.iou >= 0.5 for look in looks)
    texts = [h.text for x in t.turns for r in x.results for h in r.hits]
    if one.facts['kind'] == 'search':
      assert any(t.answer in text for text in texts)
    else:
      assert not texts
  before = helpers.tree(tmp_path / 'instruct')
  commands.do(run)
  assert capsys.readouterr().out == said
  assert helpers.tree(tmp_path / 'instruct') == before
