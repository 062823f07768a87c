"""What survives from one format of training data to another: all of it."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from gog_jax.conversations import convert
from gog_jax.conversations import encode
from gog_jax.conversations import reader
from gog_jax.conversations.decode import decode
from gog_jax.conversations.layouts import LAYOUTS
from gog_jax.conversations.record import Record
from gog_jax.errors import UserError
from gog_jax.rollout.scripted import ScriptedPolicy
from gog_jax.storage import trajectories
from gog_jax.toy import dataset
from gog_jax.toy.expert import expert_policy
from gog_jax.types import ToolCall
from tests import conversation_helpers as helpers
from tests import mini


@pytest.fixture(scope='module', name='run')
def tiny_run(tmp_path_factory):
  run = mini.make_run(tmp_path_factory.mktemp('run'), 'sft')
  dataset.prepare(run.workdir / 'data', run.config.data)
  return run


@pytest.fixture(scope='module', name='demos')
def of_the_expert(run):
  """Whole rollouts, as the stage `demos` writes them."""
  examples = list(run.examples('train', n=16))
  groups = run.rollout(expert_policy(run), examples, samples=1, seed=('d',))
  demos = [demo for (demo,) in groups]
  folder = run.workdir / 'demos'
  trajectories.write(folder / 'trajectories.jsonl', demos, examples)
  return folder, examples, demos


def test_a_rollout_goes_out_in_words_and_comes_back_token_by_token(run, demos):
  _, examples, rolled = demos
  n_crops = 0
  for example, want in zip(examples, rolled, strict=True):
    told = decode(
        Record(example=example, trajectory=want), run.chat, run.box_spec
    )
    told.check()
    got = encode.encode(told, run.chat, run.box_spec)
    np.testing.assert_array_equal(got.token_ids, want.token_ids)
    np.testing.assert_array_equal(got.loss_mask, want.loss_mask)
    assert (got.images, got.placements) == (want.images, want.placements)
    assert [t.parsed for t in got.turns] == [t.parsed for t in want.turns]
    n_crops += len(want.images) - 1
  assert n_crops > 5


@pytest.mark.parametrize('form', [*LAYOUTS, 'tfds'])
def test_every_format_holds_all_of_a_set(run, demos, tmp_path, form):
  """Also through another format and back."""
  folder, examples, rolled = demos

  def target(form, name):
    return tmp_path / (f'{name}.jsonl' if form in LAYOUTS else name)

  first = target(form, 'first')
  convert.convert(folder, first, form=form, run=lambda: run)
  forms = {'swift': 'tfds', 'tfds': 'sharegpt', 'sharegpt': 'swift'}
  second = target(forms[form], 'second')
  convert.convert(first, second, form=forms[form], run=None)
  for path in (first, second):
    found = reader.read(path, run=None).items
    for told, example, want in zip(found, examples, rolled, strict=True):
      assert told.id == example.id and told.columns['source'] == example.source
      assert tuple(told.columns['answers']) == example.answers
      assert told.columns['hops'] == example.hops
      got = encode.encode(told, run.chat, run.box_spec)
      np.testing.assert_array_equal(got.token_ids, want.token_ids)
      assert got.images == want.images


def test_what_is_edited_is_what_is_trained_on(run, demos, tmp_path):
  path = tmp_path / 'data.jsonl'
  convert.convert(demos[0], path, form='swift', run=lambda: run)
  row, *_ = helpers.rows_of(path)
  row['messages'][-1]['content'] = '130'
  path.write_text(json.dumps(row) + '\n')
  (told,) = reader.read(path, run=None).items
  assert encode.encode(told, run.chat, run.box_spec).answer == '130'


def test_what_another_model_has_made_is_left_out(run, demos, tmp_path):
  for changed in ({'model__dialect': 'gog'}, {'model__max_image_tokens': 4}):
    other = mini.make_run(tmp_path, 'sft', **changed)
    with pytest.raises(UserError, match='16 dropped.*another model, dialect'):
      reader.read(demos[0], run=lambda: other)  # noqa: B023


def test_turns_that_broke_the_format_are_left_out(run, demos, tmp_path):
  """And calls that failed for their box: none of it is to be imitated."""
  _, (example, *_), _ = demos
  call = ToolCall(name='gaze', arguments={'bbox_2d': [90, 0, 20, 70]})
  said = {
      'a': run.chat.encode_written('no tags at all'),
      'b': run.chat.encode_turn(thought='', calls=[call]),
  }
  examples = [dataclasses.replace(example, id=name) for name in said]
  answer = run.chat.encode_turn(thought='', answer='129')
  policy = ScriptedPolicy(
      lambda request, turns: answer if turns else said[request.example.id], 2
  )
  groups = run.rollout(policy, examples, samples=1, seed=('x',))
  trajectories.write(
      tmp_path / 'trajectories.jsonl', [t for (t,) in groups], examples
  )
  with pytest.raises(UserError, match='2 dropped, first .*begin with one') as e:
    reader.read(tmp_path, run=lambda: run)
  assert '\n' not in str(e.value)
