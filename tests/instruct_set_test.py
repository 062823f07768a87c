"""What a build's set holds, and whom it trains: from a remote teacher on."""

from __future__ import annotations

import json

import pytest

from gog_jax import boxes
from gog_jax import images
from gog_jax.conversations import sft_data
from gog_jax.conversations import tfds_set
from gog_jax.instruct import build
from tests import endpoints
from tests import instruct_helpers as helpers
from tests import mini
from tests.instruct_test import make_run


@pytest.fixture(scope='module')
def world(tmp_path_factory):
  return helpers.make_world(tmp_path_factory.mktemp('items'), 30)


@pytest.fixture(scope='module')
def built(world, tmp_path_factory):
  with endpoints.serve(helpers.teach) as server:
    run = make_run(tmp_path_factory.mktemp('built'), world, server.url)
    return run, build.build(run, {})


def test_what_is_in_the_set(built):
  run, _ = built
  for one in tfds_set.load(run.workdir / 'instruct' / 'set'):
    number = int(one.id[1:])
    example = helpers.example(number)
    assert one.messages[0].text == f'<image>\n{example.question}'
    assert one.pictures[0].data == example.images[0]
    columns, facts = one.columns, one.columns['facts']
    assert tuple(columns['answers']) == example.answers
    assert columns['source'] == example.source
    assert [tuple(b) for b in columns['gold_regions']] == [
        *example.gold_regions
    ]
    assert facts['teacher'].startswith('m ')
    # In words alone: no prompt, no tokens, nothing that a clock decides.
    said = [json.loads(m.text) for m in one.messages if m.role == 'function']
    search = {'name': 'text_search', 'arguments': {'query': f'item {number}'}}
    gaze = {'name': 'gaze', 'arguments': {'bbox_2d': [10, 10, 50, 50]}}
    assert said == {2: [search], 3: [gaze, search]}.get(number % 5, [])
    assert (facts['kind'] == 'search') == (number % 5 in (2, 3))
    assert one.messages[-1].text == (
        f'<think>so</think>\n<answer>kelo {number}</answer>'
    )


FAMILIES = {
    # In thousandths [100, 100, 500, 500], of 100 x 100 pixels that are seen as
    # 84 x 84.
    'gog': ('resized_pixels', [8, 8, 42, 42]),
    'qwen3_vl': ('thousandths', [100, 100, 500, 500]),
}


@pytest.mark.parametrize('dialect', FAMILIES)
def test_it_trains_models_of_both_families(built, world, tmp_path, dialect):
  """What a remote teacher says in thousandths, in each one's own tokens."""
  run, facts = built
  kind, box = FAMILIES[dialect]
  student = mini.make_run(
      tmp_path,
      'sft',
      model__dialect=dialect,
      model__box=kind,
      model__box_step=1,
      tools__backend='index',
      tools__index=world['tools.index'],
      sft__data=str(run.workdir / 'instruct' / 'set'),
      questions__validation=world['questions.train'],
      questions__leaks='keep',  # It validates on what it trains on.
      rollout__max_context=4096,
      batch__row_tokens=4096,
  )
  assert student.processor.seen_size(100, 100) == (84, 84)
  shown, read = sft_data.read(
      student, tmp_path, demos='', path=student.config.sft.data
  )
  assert read == {'n_demos': facts['n'], 'dropped': {}}
  n_gazes = 0
  for t in shown:
    example = helpers.example(int(t.example_id[1:]))
    prompt = student.chat.prompt(example).token_ids
    assert t.token_ids[: len(prompt)].tolist() == list(prompt)
    assert not t.loss_mask[: len(prompt)].any() and t.loss_mask.any()
    targets = student.chat.decode(t.token_ids[t.loss_mask > 0])
    assert targets.endswith(f'{t.answer}</answer><|im_end|>')
    if 'gaze' in targets:
      n_gazes += 1
      # On the tokens themselves; and the crop is of these pixels.
      assert f'{{"bbox_2d":{json.dumps(box).replace(" ", "")}}}' in targets
      assert t.images[1].box == pytest.approx((10, 10, 50, 50), abs=1)
      assert images.size_of(t.images[1].data) == (40, 40)
  assert n_gazes > 1
  # What each is told of its boxes.
  system = student.chat.decode(student.chat.head)
  assert [k for k, words in boxes.KINDS.items() if words in system] == [kind]
