"""Chat: tokenizers, dialects and images that the user has to mend."""

from __future__ import annotations

import json

import pytest

from gog_jax.chat import load_dialect
from gog_jax.errors import UserError
from gog_jax.types import Example
from tests.chat_helpers import EXAMPLE
from tests.chat_helpers import GLANCE
from tests.chat_helpers import hit
from tests.chat_helpers import make_chat
from tests.chat_helpers import ok
from tests.chat_helpers import ROOT
from tests.chat_helpers import TOY

pytest_plugins = ['tests.chat_fixtures']

def one_line(error: pytest.ExceptionInfo) -> str:
  assert '\n' not in str(error.value)
  return str(error.value)


def test_missing_and_damaged_tokenizers(tmp_path):
  with pytest.raises(UserError) as error:
    make_chat(tmp_path, 'gog')
  assert str(tmp_path / 'tokenizer.json') in one_line(error)
  (tmp_path / 'tokenizer.json').write_text('{')
  with pytest.raises(UserError, match='not a tokenizer') as error:
    make_chat(tmp_path, 'gog')
  one_line(error)
  bare = json.loads((TOY / 'tokenizer.json').read_text())
  bare['added_tokens'] = [
      t for t in bare['added_tokens'] if t['content'] != '<|image_pad|>'
  ]
  (tmp_path / 'tokenizer.json').write_text(json.dumps(bare))
  with pytest.raises(UserError, match=r'lacks <\|image_pad\|>') as error:
    make_chat(tmp_path, 'gog')
  one_line(error)


def test_a_tokenizer_that_offers_control_to_text_is_refused(tmp_path):
  leaky = json.loads((TOY / 'tokenizer.json').read_text())
  index = next(
      t['id'] for t in leaky['added_tokens'] if t['content'] == '<think>'
  )
  leaky['model']['vocab']['<think>'] = index
  # Without the pattern the whole text is looked up.
  leaky['pre_tokenizer'] = leaky['pre_tokenizer']['pretokenizers'][1]
  (tmp_path / 'tokenizer.json').write_text(json.dumps(leaky))
  with pytest.raises(UserError, match='<think> is also ordinary') as error:
    make_chat(tmp_path, 'gog')
  one_line(error)


def test_unknown_dialects_name_the_nearest():
  with pytest.raises(UserError, match="did you mean 'gog_toy'") as error:
    load_dialect('gog_tyo')
  assert 'gog, gog_remote, gog_toy' in one_line(error)


@pytest.mark.parametrize(
    ('change', 'error'),
    [
        ({'user': '$question'}, r'user lacks or does not know \$images'),
        ({'hit': '$txt'}, r'hit lacks or does not know \$txt'),
        ({'hits': ''}, 'hits: there is no such field'),
        ({'error': None}, 'error is missing'),
        ({'hit': 7}, 'hit must be text'),
    ],
)
def test_dialects_are_checked(tmp_path, change, error):
  fields = json.loads((ROOT / 'gog_jax/chat/dialects/gog_toy.json').read_text())
  fields = {k: v for k, v in (fields | change).items() if v is not None}
  path = tmp_path / 'mine.json'
  path.write_text(json.dumps(fields))
  with pytest.raises(UserError, match=error) as caught:
    load_dialect(str(path))
  assert str(path) in one_line(caught)


def test_own_dialects_load_from_a_path(tmp_path):
  fields = json.loads((ROOT / 'gog_jax/chat/dialects/gog_toy.json').read_text())
  path = tmp_path / 'mine.json'
  path.write_text(
      json.dumps(fields | {'system': '', 'hit': '$$$rank <|im_end|>$text'})
  )
  chat = make_chat(TOY, str(path))
  assert chat.dialect.name == 'mine'
  assert chat.decode(chat.prompt(EXAMPLE).token_ids).startswith(
      '<|im_start|>user\n'
  )
  # A dialect's own words may hold control tokens; content may not.
  ids = chat.observation([GLANCE], [ok(hit('$title <|im_end|>'))]).token_ids
  assert '$1 <|im_end|>$title <|im_end|>' in chat.decode(ids)
  assert ids.count(chat.stop_ids[0]) == 2
  with pytest.raises(UserError, match='cannot be read'):
    load_dialect(str(tmp_path / 'none.json'))
  path.write_text('{')
  with pytest.raises(UserError, match='cannot be read'):
    load_dialect(str(path))


def test_a_corrupt_image_in_the_data(toy):
  example = Example(
      id='e',
      images=(b'no image',),
      question='q',
      answers=('a',),
      source='s',
      scope='s',
  )
  with pytest.raises(UserError, match='cannot read an image') as error:
    toy.prompt(example)
  one_line(error)
