"""What a build is made from, refuses, and makes of the embedded world."""

from __future__ import annotations

import pytest

from gog_jax import boxes
from gog_jax.app import commands
from gog_jax.conversations import sft_data
from gog_jax.conversations import tfds_set
from gog_jax.errors import UserError
from gog_jax.instruct import build
from gog_jax.questions import sources
from tests import instruct_helpers as helpers
from tests import mini


@pytest.mark.parametrize(
    ('field', 'value', 'message'),
    [
        ('instruct.teacher', 'human', 'teacher is .human., not one of'),
        ('questions.train', (), 'train must be one or more names'),
        ('questions.train', ('csv:x',), 'there are world, jsonl:PATH, verl'),
        ('questions.train', ('examples:',), 'there are world, jsonl:PATH'),
        ('questions.train', ('examples:x', 'examples:x'), 'twice'),
        ('remote.url', '', 'remote.url is empty'),
        ('remote.price_in', 1.0, 'config.remote.max_spend is 0'),
        ('instruct.direct_temperature', 0.0, 'the same answer every time'),
        ('tools.backend', 'world', 'knows nothing about your questions'),
        ('instruct.teacher', 'expert', 'knows the questions of the embedded'),
    ],
)
def test_builds_that_would_stop_late(field, value, message):
  fields = {
      'instruct__teacher': 'remote',
      'questions__train': ('examples:x',),
      'remote__url': 'http://127.0.0.1:1/v1',
      'remote__model': 'm',
      'tools__backend': 'index',
  }
  mini.make_config('instruct', **fields)
  fields[field.replace('.', '__')] = value
  with pytest.raises(UserError, match=message):
    names = mini.make_config('instruct', **fields).questions.train
    sources.check(names, field='config.questions.train')


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
  commands.do(run.config, tmp_path)
  said = capsys.readouterr().out
  assert said.startswith('12 samples (')
  told = tfds_set.load(tmp_path / 'instruct/set')
  kinds = [one.columns['facts']['kind'] for one in told]
  assert kinds.count('no_search') == 5  # round(0.435 * 12)
  shown, facts = sft_data.read(
      run, tmp_path / 'sft', demos='', path=str(tmp_path / 'instruct/set')
  )
  assert facts == {'n_demos': 12, 'dropped': {}}
  questions = {one.id: one for one in build.questions_of(run)}
  for one, t, kind in zip(told, shown, kinds, strict=True):
    example = questions[one.id]
    assert t.answer in example.answers == tuple(one.columns['answers'])
    if example.gold_regions:
      # What is cut anew is what the expert saw.
      crops = [view for view in t.images if view.box[2:] != (168, 168)]
      assert len(crops) == sum(
          c.name == 'gaze' for x in t.turns for c in x.parsed.calls
      )
      assert all(
          max(boxes.iou(crop.box, gold) for gold in example.gold_regions) >= 0.5
          for crop in crops
      )
    texts = [m.text for m in one.messages if m.role == 'observation']
    if kind == 'search':
      assert any(t.answer in text for text in texts)
    else:
      assert not texts
  before = helpers.tree(tmp_path / 'instruct')
  commands.do(run.config, tmp_path)
  assert capsys.readouterr().out == said
  assert helpers.tree(tmp_path / 'instruct') == before
