"""SFT on a file of one's own, without what is evaluated."""

from __future__ import annotations

import json

from PIL import Image
import pytest

from gog_jax.conversations import convert
from gog_jax.conversations import sft_data
from gog_jax.errors import UserError
from gog_jax.images import decode
from gog_jax.images import encode_jpeg
from gog_jax.images import encode_png
from gog_jax.questions import checked
from gog_jax.questions import splits
from tests import conversation_helpers as helpers
from tests import mini
from tests.chat_helpers import SCENE


@pytest.mark.parametrize('form', ['mine', 'tfds'])
def test_demonstrations_of_what_is_evaluated_are_left_out(
    tmp_path, capfd, form
):
  """By text and image; also where a second question is, in a conversation."""
  (path := tmp_path / 'mine').mkdir()
  said = [helpers.sharegpt(f'q{i}') for i in range(4)]
  asks = ('Year of: barred, blue circle', 'year of the star?', 'hue?', 'age?')
  for row, asked in zip(said, asks, strict=True):
    row['conversations'][0]['value'] = f'<image>\n{asked}'
    row['conversations'][-1]['value'] = '<think>it is</think>129'
  said[3]['conversations'] += [
      {'from': 'human', 'value': 'and the hue of the star?'},
      {'from': 'gpt', 'value': '<think>it is</think>red'},
  ]
  source = helpers.save(path / 'mine.json', said)
  if form == 'tfds':
    convert.convert(source, path / 'set', form='tfds', run=pytest.fail)
    source = path / 'set'
  other = encode_png(Image.new('RGB', (168, 168), 'black'))
  (path / 'same.jpg').write_bytes(encode_jpeg(decode(SCENE), quality=60))
  (path / 'other.png').write_bytes(other)
  evaluated = [
      ('year of barred blue circle?', 'same.jpg'),
      ('year of the star?', 'other.png'),
      ('and the hue of the star', 'same.jpg'),
  ]
  test = path / 'test.jsonl'

  def write(asked):
    rows = [
        {'id': f't{i}', 'question': text, 'answer': 'x', 'image': image}
        for i, (text, image) in enumerate(asked)
    ]
    test.write_text(''.join(json.dumps(row) + '\n' for row in rows))

  def read(folder, **fields):
    run = mini.make_run(
        tmp_path / 'run',
        'sft',
        sft__data_box='resized_pixels',
        questions__test=(f'jsonl:{test}',),
        eval__policies=('sft',),
        **fields,
    )
    splits._leaked.cache_clear()
    splits._open.cache_clear()
    shown, facts = sft_data.read(run, folder, demos='', path=str(source))
    return [one.example_id for one in shown], facts['dropped']

  write(evaluated)
  assert read(tmp_path / 'a') == (['q1', 'q2'], {checked.LEAKED: 2})
  assert "'q0' is 't0' of what is evaluated" in capfd.readouterr().err
  kept = read(tmp_path / 'b', questions__leaks='keep')
  assert kept == (['q0', 'q1', 'q2', 'q3'], {})
  # Stopped in between, it goes on with the same ones or not at all.
  assert read(tmp_path / 'a')[0] == ['q1', 'q2']
  write(evaluated[1:])
  with pytest.raises(UserError, match='a was begun with other questions'):
    read(tmp_path / 'a')
