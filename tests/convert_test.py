"""What survives from one format of training data to another."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from gog_jax.conversations import convert
from gog_jax.conversations import encode
from gog_jax.conversations import json_files
from gog_jax.conversations import layouts
from gog_jax.conversations import reader
from gog_jax.conversations import tfds_set
from gog_jax.conversations.layouts import LAYOUTS
from gog_jax.types import Hit
from tests import conversation_helpers as helpers
from tests import mini
from tests import trajectories_test


@pytest.fixture(scope='module', name='run')
def tiny_run(tmp_path_factory):
  return mini.make_run(tmp_path_factory.mktemp('run'), 'sft')


def rich(run) -> tfds_set.Record:
  """A record of all that a rollout knows."""
  row = layouts.read_row(
      helpers.sharegpt(),
      LAYOUTS['sharegpt'],
      folder=helpers.save(run.workdir / 'x' / 'x.json', []).parent,
      name='',
  )
  record = encode.encode(row, run.chat)
  trajectory = trajectories_test.make_trajectory(2)
  (first, *turns) = record.trajectory.turns
  hit = Hit(title='t', text='\ud800 <image>', score=0.1, image=b'\xff\xd8 x')
  first = dataclasses.replace(
      first, results=(dataclasses.replace(first.results[0], hits=(hit,)),)
  )
  n = len(record.trajectory.token_ids)
  return tfds_set.Record(
      example=dataclasses.replace(
          record.example, answers=('129', 'y'), gold_regions=((1.0, 2.0, 3, 4),)
      ),
      trajectory=dataclasses.replace(
          record.trajectory,
          sample=2,
          turns=(first, *turns),
          sampler_logprobs=np.linspace(-3, 0, n, dtype=np.float32),
          seconds=trajectory.seconds,
          reward=0.1 + 0.2,
          reward_parts={'accuracy': 1.0},
          verdict=trajectory.verdict,
          usage=trajectory.usage,
      ),
      facts={'kind': 'recovered'},
  )


@pytest.mark.parametrize('layout', LAYOUTS)
def test_ours_goes_out_in_words_and_is_encoded_anew(run, tmp_path, layout):
  """Words and images survive, also through the other layout and back."""
  want = rich(run)
  path = tmp_path / 'data.jsonl'
  json_files.write(path, [convert.export(want, run.chat)], LAYOUTS[layout])
  other = {'swift': 'sharegpt', 'sharegpt': 'swift'}[layout]
  convert.convert(path, tmp_path / 'b.json', form=other, chat=lambda: run.chat)
  for file in (path, tmp_path / 'b.json'):
    (got,) = reader.read(file, chat=lambda: run.chat).items
    assert got.example.id == 'q#2' and got.facts == {}
    assert got.example.question == want.example.question
    assert got.example.images == want.example.images
    assert got.example.answers == ('129',)
    a, b = got.trajectory, want.trajectory
    np.testing.assert_array_equal(a.token_ids, b.token_ids)
    np.testing.assert_array_equal(a.loss_mask, b.loss_mask)
    assert [v.data for v in a.images] == [v.data for v in b.images]
    assert a.placements == b.placements
    assert [t.parsed for t in a.turns] == [t.parsed for t in b.turns]
    assert a.reward is None and not a.sampler_logprobs.any()
  (row,) = helpers.rows_of(path)
  assert 'gog_jax' not in row
  said = row[LAYOUTS[layout].columns['messages']]
  content = LAYOUTS[layout].tags['content_tag']
  assert said[-1][content].endswith('<answer>129</answer>')
  said[-1][content] = '130'
  path.write_text(json.dumps(row) + '\n')
  (got,) = reader.read(path, chat=lambda: run.chat).items
  assert got.trajectory.answer == '130'


@pytest.mark.parametrize('form', ['trajectories', 'tfds'])
def test_our_own_formats_hold_all_of_a_record(run, tmp_path, form):
  want = rich(run)
  tfds_set.write(tmp_path / 'set', [want], description='')
  convert.convert(
      tmp_path / 'set', tmp_path / 'out', form=form, chat=lambda: run.chat
  )
  (got,) = reader.read(tmp_path / 'out', chat=lambda: run.chat).items
  assert (got.example, got.facts) == (want.example, want.facts)
  trajectories_test.assert_same(got.trajectory, want.trajectory)
