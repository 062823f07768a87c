"""SFT on a file of one's own: the same content, the same training."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import shlex
import shutil
import subprocess
import sys

import jax
import numpy as np
from PIL import Image
import pytest

from gog_jax import interrupt
from gog_jax.app import stages
from gog_jax.app import walk
import gog_jax.conversations
from gog_jax.conversations import convert
from gog_jax.conversations import reader
from gog_jax.conversations import sft_data
from gog_jax.conversations import tfds_set
from gog_jax.errors import UserError
from gog_jax.images import encode_png
from gog_jax.rollout.scripted import ScriptedPolicy
from gog_jax.storage import trajectories
from gog_jax.train.batches import to_batches
from gog_jax.train.pipeline import endless_batches
from tests import conversation_helpers as helpers
from tests import mini
from tests.chat_helpers import EXAMPLE
from tests.chat_helpers import SCENE

ROOT = pathlib.Path(__file__).parents[1]
TARGETS = {
    'sharegpt': 'data.json',
    'swift': 'data.jsonl',
    'tfds': 'set',
}


def make_run(workdir, **more):
  return mini.make_run(
      workdir, 'sft', **{'sft__data_box': 'resized_pixels', **more}
  )


@pytest.fixture(scope='module', name='run')
def tiny_run(tmp_path_factory):
  return make_run(tmp_path_factory.mktemp('run'))


@pytest.fixture(scope='module', name='files')
def same_in_all_formats(tmp_path_factory) -> dict[str, pathlib.Path]:
  """Ten conversations of ShareGPT, and what `convert` makes of them.

  Their boxes are in pixels of the image as the toy sees it.
  """
  folder = tmp_path_factory.mktemp('data')
  said = [helpers.sharegpt(f'q{i}') for i in range(10)]
  for i, row in enumerate(said):
    row['conversations'][-1]['value'] = f'<think>it is</think>{100 + i}'
    if i % 2:  # The first three have another length.
      row['conversations'][3:5] = []
  source = helpers.save(folder / 'mine' / 'mine.json', said)
  files = {'mine': source}
  for form, name in TARGETS.items():
    files[form] = folder / form / name
    # Each from the one before: what it loses, all that follow lack.
    convert.convert(list(files.values())[-2], files[form], form=form, run=None)
  return files


def test_every_format_holds_the_same_batches(files, run, tmp_path):
  def batches(path):
    shown, facts = sft_data.read(
        run, tmp_path / path.name, demos='', path=str(path)
    )
    assert facts == {'n_demos': 10, 'dropped': {}}
    lists = endless_batches(
        shown,
        batch_size=4,
        seed=run.seed('sft'),
        transform=lambda some: to_batches(run, some, micro_rows=2),
    )
    return [batch for _ in range(3) for batch in next(lists)]

  want = batches(files['mine'])
  for path in files.values():
    for got, wanted in zip(batches(path), want, strict=True):
      for field in dataclasses.fields(wanted):
        left, right = (getattr(one, field.name) for one in (got, wanted))
        for a, b in zip(*map(jax.tree.leaves, (left, right)), strict=True):
          np.testing.assert_array_equal(a, b)


def test_first_fit_packs_them_into_few_rows(files, run, tmp_path):
  """117 tokens each, or 88, and 60 patches: two to a row of 288 and 160."""
  shown, _ = sft_data.read(run, tmp_path, demos='', path=str(files['mine']))
  assert sorted({len(t.token_ids) for t in shown}) == [88, 117]
  packed = to_batches(run, shown, micro_rows=1)
  assert len(packed) == 5
  lengths = [int((batch.segment_ids > 0).sum()) for batch in packed]
  assert lengths == [117 * 2, 117 * 2, 117 + 88, 88 * 2, 88 * 2]


def test_what_a_run_cannot_train_on_is_dropped_and_said(
    files, run, tmp_path, capfd
):
  said = helpers.rows_of(files['mine'])
  said[1]['conversations'][2]['value'] += ' belwen' * 300
  said[2]['images'][1] = 'gone.png'
  said[3]['id'] = said[0]['id']
  path = helpers.save(tmp_path / 'data.json', said)
  shown, facts = sft_data.read(run, tmp_path, demos='', path=str(path))
  assert len(shown) == facts['n_demos'] == 7
  assert facts['dropped'] == {'no image': 1, 'duplicate id': 1, 'too long': 1}
  lines = capfd.readouterr().err.splitlines()
  assert [line for line in lines if 'data.json, record 3: ' in line]
  assert [line for line in lines if '7 of use; dropped: ' in line]


def test_damaged_records_are_dropped_and_the_rest_is_read(
    files, run, tmp_path
):
  shutil.copytree(files['tfds'], tmp_path / 'set')
  (path,) = (tmp_path / 'set').rglob('*.array_record-*')
  content = bytearray(path.read_bytes())
  content[5000] ^= 0xFF  # Within one record.
  path.write_bytes(content)
  shown, facts = sft_data.read(
      run, tmp_path, demos='', path=str(tmp_path / 'set')
  )
  assert facts == {'n_demos': 9, 'dropped': {'damaged': 1}}
  assert len(list(shown)) == 9


def test_rollouts_of_its_own_are_read_whatever_is_damaged(run, tmp_path):
  """A folder of trajectories, whose last line is cut off."""
  examples, said = [], run.chat.encode_turn(thought='', answer='129')
  for i in range(3):
    examples.append(dataclasses.replace(EXAMPLE, id=f'e{i}'))
  policy = ScriptedPolicy(lambda request, turns: said, 3)
  groups = run.rollout(policy, examples, samples=1, seed=('x',))
  path = tmp_path / 'rolled' / 'trajectories.jsonl'
  trajectories.write(path, [t for (t,) in groups], examples)
  path.write_text(path.read_text()[:-40])
  shown, facts = sft_data.read(
      run, tmp_path, demos='', path=str(path.parent)
  )
  assert facts == {'n_demos': 2, 'dropped': {'damaged': 1}}
  for got, (want,) in zip(shown, groups):
    np.testing.assert_array_equal(got.token_ids, want.token_ids)
    np.testing.assert_array_equal(got.loss_mask, want.loss_mask)


def test_an_image_that_cannot_be_shown_costs_its_own_record(
    files, run, tmp_path
):
  """Its size can be read, and no model sees so thin a strip."""
  said = helpers.rows_of(files['mine'])
  said[4]['images'][0] = 'images/thin.png'
  path = helpers.save(tmp_path / 'data.json', said)
  thin = encode_png(Image.new('RGB', (4000, 4)))
  (tmp_path / 'images' / 'thin.png').write_bytes(thin)
  _, facts = sft_data.read(run, tmp_path, demos='', path=str(path))
  assert facts == {'n_demos': 9, 'dropped': {'damaged': 1}}


def test_boxes_in_an_unknown_frame_stop_the_run(files, run, tmp_path):
  path = str(files['mine'])
  silent = make_run(tmp_path, sft__data_box='')
  with pytest.raises(UserError, match='has boxes: say in what') as e:
    sft_data.read(silent, tmp_path, demos='', path=path)
  assert '\n' not in str(e.value)
  # In pixels of its 40 x 80 crop nothing lies at 56, 56.
  said = helpers.rows_of(files['mine'])
  call = {'name': 'gaze', 'arguments': {'bbox_2d': [0, 0, 56, 56], 'image': 2}}
  said[0]['conversations'][3]['value'] = json.dumps(call)
  path = helpers.save(tmp_path / 'data.json', said)
  own = make_run(tmp_path, sft__data_box='original_pixels')
  _, facts = sft_data.read(own, tmp_path, demos='', path=str(path))
  assert facts == {'n_demos': 9, 'dropped': {'bad box': 1}}


def test_a_set_is_encoded_anew_for_another_dialect(files, tmp_path):
  """Another frame, vocabulary of words and size of images: the same boxes."""
  other = make_run(
      tmp_path,
      model__dialect='gog',
      model__box='thousandths',
      model__box_step=1,
      sft__data_box='original_pixels',
      rollout__max_context=4096,
      batch__row_tokens=4096,
  )
  shown, facts = sft_data.read(
      other, tmp_path, demos='', path=str(files['tfds'])
  )
  assert facts == {'n_demos': 10, 'dropped': {}}
  head = np.array(other.chat.head)
  for one in shown:
    np.testing.assert_array_equal(one.token_ids[: len(head)], head)
    call = one.turns[0].parsed.calls[0]
    # 28 and 56 of 168 pixels.
    assert call.arguments['bbox_2d'] == [167, 167, 333, 333]
    assert '[167,167,333,333]' in other.chat.decode(one.token_ids)


def test_the_stage_needs_no_demos_and_is_bound_to_its_data(files, tmp_path):
  path = tmp_path / 'mine' / 'mine.json'
  helpers.save(path, helpers.rows_of(files['mine']))
  run = mini.make_run(tmp_path, 'sft', sft__data=str(path))
  assert stages.stages_of(run.config)['sft'].needs == ()
  manifest = stages.manifest_of(run, 'sft')
  manifest.write(tmp_path / 'sft', complete=True)
  with_workers = mini.make_run(
      tmp_path, 'sft', sft__data=str(path), sft__data_workers=2
  )
  assert stages.manifest_of(with_workers, 'sft').is_complete(tmp_path / 'sft')
  longer = mini.make_run(
      tmp_path, 'sft', sft__data=str(path), sft__epochs=2.0
  )
  with pytest.raises(UserError, match='sft.epochs is 0, now 2'):
    stages.manifest_of(longer, 'sft').is_complete(tmp_path / 'sft')
  (path.parent / 'images' / 'crop.png').write_bytes(SCENE)
  sft_data.digest.cache_clear()
  with pytest.raises(UserError, match='made from another training data'):
    stages.manifest_of(run, 'sft').is_complete(tmp_path / 'sft')
  rl = mini.make_run(tmp_path, 'rl', sft__data=str(path))
  assert stages.stages_of(rl.config)['grade'].needs == ('data', 'sft')


def test_data_that_was_refused_can_be_put_right(files, tmp_path):
  path = tmp_path / 'mine' / 'mine.json'
  helpers.save(path, helpers.rows_of(files['mine']))
  picture = path.parent / 'images' / 'scene.png'
  picture.rename(path.parent / 'scene.png')
  run = mini.make_run(tmp_path, 'sft', sft__data=str(path))
  with pytest.raises(UserError, match='nothing of use.*no image'):
    walk.make(run, 'sft')
  (path.parent / 'scene.png').rename(picture)
  sft_data.digest.cache_clear()
  assert not stages.manifest_of(run, 'sft').is_complete(tmp_path / 'sft')
  # What has made something keeps what it was made from.
  manifest = stages.manifest_of(run, 'sft')
  manifest.write(tmp_path / 'sft', complete=False)
  (tmp_path / 'sft' / 'metrics.jsonl').write_text('{}')
  with pytest.raises(UserError), manifest.taken_back(tmp_path / 'sft'):
    raise UserError('no')
  assert (tmp_path / 'sft' / 'manifest.json').exists()


def test_validation_still_asks_for_the_world(files, tmp_path):
  run = mini.make_run(
      tmp_path, 'sft', sft__data=str(files['tfds']), sft__n_validation=8
  )
  assert stages.stages_of(run.config)['sft'].needs == ('data',)


def test_a_digest_changes_with_each_format_s_content(files):
  found = {name: reader.digest(path) for name, path in files.items()}
  assert found == {name: reader.digest(path) for name, path in files.items()}
  assert len(set(found.values())) == len(files)


@pytest.mark.parametrize(
    ('source', 'target', 'form', 'words'),
    [
        ('mine', 'x', 'swift', 'written to a .json or .jsonl file'),
        ('mine', 'x.json', 'tfds', 'written to a folder'),
        ('gone', 'x', 'tfds', 'gone does not exist'),
    ],
)
def test_conversions_that_will_not_do(
    files, tmp_path, source, target, form, words
):
  with pytest.raises(UserError, match=words):
    convert.convert(
        files.get(source, tmp_path / source),
        tmp_path / target,
        form=form,
        run=None,
    )


# "Your data in ten lines": the very lines of the package's docstring.


@pytest.fixture(name='typed')
def commands_of_docstring(tmp_path, monkeypatch):
  """Runs its ten lines of Python; the commands that follow them."""
  text = gog_jax.conversations.__doc__ or ''
  blocks = [
      '\n'.join(line[4:] for line in part.splitlines() if line[:4] == '    ')
      for part in text.split('\n\n')
  ]
  code, *typed = [block for block in blocks if block]
  assert len(code.splitlines()) <= 10
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'images').mkdir()
  (tmp_path / 'images' / 'scene.png').write_bytes(SCENE)
  (tmp_path / 'configs').symlink_to(ROOT / 'configs')
  exec(compile(code, 'docstring', 'exec'), {})
  return [shlex.split(block.replace('\\\n', ' ')) for block in typed]


def output_of(command):
  assert command[0] == 'python'
  done = subprocess.run(
      [sys.executable, *command[1:]],
      env=os.environ | {'PYTHONPATH': str(ROOT), 'XLA_FLAGS': ''},
      capture_output=True,
      text=True,
      check=False,
  )
  assert done.returncode == 0, done.stderr
  return done.stdout


def test_the_ten_lines_can_be_converted(typed, tmp_path):
  said = output_of(typed[1])
  assert '1 conversations written to set as tfds, 0 dropped' in said
  (told,) = tfds_set.load(tmp_path / 'set')
  assert told.messages[0].text == '<image>year of the blue circle?'
  assert told.messages[-1].text == '129'


@pytest.mark.slow
def test_the_ten_lines_can_be_trained_on(typed, tmp_path):
  output_of(typed[0])
  made = json.loads((tmp_path / 'runs/mine/sft/manifest.json').read_text())
  assert made['complete'] and made['facts']['n_demos'] == 1
  assert made['facts']['steps'] == 1  # Three times one, of batches of 8.
  assert 'sft_data' in made['inputs']


# Training itself: minutes.


def trained(workdir, path, **more):
  run = make_run(workdir, sft__batch_size=4, sft__data=str(path), **more)
  mini.make_stages(run, 'sft')
  return run


def losses_of(run):
  return [row['loss'] for row in mini.metrics_of(run, 'sft')]


@pytest.mark.slow
def test_two_steps_on_each_format_have_the_same_losses(files, tmp_path):
  losses = {
      name: losses_of(trained(tmp_path / name, path, sft__steps=2))
      for name, path in files.items()
  }
  first, *others = losses.values()
  assert len(first) == 2 and all(other == first for other in others)


@pytest.mark.slow
@pytest.mark.parametrize('workers', [0, 2])
def test_sft_on_a_set_resumes_exactly(files, tmp_path, monkeypatch, workers):
  """Stopped after a step, and whole: with workers, and epochs for steps."""
  more = {
      'sft__epochs': 1.0, 'sft__data_workers': workers,
      'sft__checkpoint_every': 1,
  }  # fmt: skip
  whole = losses_of(
      trained(tmp_path / 'whole', files['tfds'], sft__epochs=1.0)
  )
  assert len(whole) == 3  # Ten, in batches of four.
  with monkeypatch.context() as patch:
    mini.interrupt_at(patch, 10 + 2)  # Each is encoded first.
    with pytest.raises(interrupt.Interrupted):
      trained(tmp_path / 'cut', files['tfds'], **more)
  other = more | {'sft__data_workers': 1}
  with pytest.raises(UserError, match=f'start with data_workers={workers}'):
    trained(tmp_path / 'cut', files['tfds'], **other)
  resumed = trained(tmp_path / 'cut', files['tfds'], **more)
  assert losses_of(resumed) == whole
