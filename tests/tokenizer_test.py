"""The toy tokenizer: what is short, and that it is what the script makes."""

from __future__ import annotations

import importlib.util
import json
import pathlib

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import pytest
import tokenizers

from gog_jax.toy import vocabulary
from tests import helpers

ROOT = pathlib.Path(__file__).parent.parent
FOLDER = ROOT / 'gog_jax' / 'assets' / 'toy_base'


@pytest.fixture(scope='module')
def tokenizer() -> tokenizers.Tokenizer:
  return tokenizers.Tokenizer.from_file(str(FOLDER / 'tokenizer.json'))


@pytest.fixture(scope='module')
def script():
  spec = importlib.util.spec_from_file_location(
      'make_tokenizer', ROOT / 'scripts' / 'make_tokenizer.py'
  )
  assert spec and spec.loader
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def test_the_shipped_files_are_what_the_script_makes(script):
  for name, text in script.make_files().items():
    made, shipped = json.loads(text), json.loads((FOLDER / name).read_text())
    if name == 'tokenizer.json':
      # The library may add fields to its files; what they say must agree.
      assert made['model']['ignore_merges'] and made['model']['vocab']
      fields = ('added_tokens', 'pre_tokenizer', 'decoder', 'model')
      made, shipped = ({k: x[k] for k in fields} for x in (made, shipped))
    assert made == shipped, (
        f'{name} is stale: run scripts/make_tokenizer.py --folder={FOLDER} '
        'and pretrain the toy base again (configs/pretrain.py)'
    )


def test_size(tokenizer, script):
  size = tokenizer.get_vocab_size(with_added_tokens=True)
  assert size == script.VOCAB_SIZE <= 1024
  assert size % 64 == 0
  # Control tokens are the last ones, as in Qwen's vocabularies.
  added = tokenizer.get_added_tokens_decoder()
  assert sorted(added) == list(range(size - len(added), size))
  assert {t.content for t in added.values() if not t.special} == set(
      script.TAGS
  )


def test_one_token_each(tokenizer):
  texts = [str(number) for number in range(169)]
  texts += vocabulary.PROTOCOL_PIECES
  texts += ['system\n', 'user\n', 'assistant\n', *vocabulary.PUNCTUATION]
  words = [w for w in vocabulary.words() if w.isalpha()]
  for word in (*words, *vocabulary.SYLLABLES):
    texts.append(word)
    if word not in vocabulary.COPIED:
      texts.append(f' {word}')
  long = [t for t in texts if len(tokenizer.encode(t).ids) != 1]
  assert not long


def test_what_is_copied_has_the_same_tokens_everywhere(tokenizer):
  for head in vocabulary.HEADS[::3]:
    for tail in vocabulary.TAILS[::3]:
      assert tokenizer.encode(f'year of {head}{tail}?').tokens == [
          'year', 'Ġof', 'Ġ', head, tail, '?',
      ]  # fmt: skip
      assert tokenizer.encode(f'"{head}{tail} year"').tokens == [
          '"', head, tail, 'Ġyear', '"',
      ]  # fmt: skip
  for value in (*vocabulary.CITIES, *vocabulary.FOUNDERS):
    assert tokenizer.encode(f'belmon city {value}').tokens[-2:] == ['Ġ', value]


def test_numbers_never_merge_with_their_neighbours(tokenizer):
  assert tokenizer.encode('[12,3,40,168]').tokens == [
      '[', '12', ',', '3', ',', '40', ',', '168', ']',
  ]  # fmt: skip
  # Beyond three digits and beyond 168 in pieces; never across pieces of three.
  assert tokenizer.encode('1412169').tokens == ['141', '2', '16', '9']


@settings(max_examples=300, deadline=None)
@given(text=st.text())
def test_any_text_comes_back(tokenizer, text):
  ids = tokenizer.encode(text, add_special_tokens=False).ids
  assert tokenizer.decode(ids, skip_special_tokens=False) == text


def test_every_byte_is_a_token(tokenizer):
  seen = set()
  for point in [*range(0x800), *range(0x800, 0x110000, 997)]:
    if not 0xD800 <= point < 0xE000:
      seen |= set(tokenizer.encode(chr(point)).ids)
      assert tokenizer.decode(tokenizer.encode(chr(point)).ids) == chr(point)
  assert len(seen) > 190  # Bytes such as 0xFF occur in no UTF-8 text.
  vocab = tokenizer.get_vocab()
  alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
  assert len(alphabet) == 256
  assert all(char in vocab for char in alphabet)


def test_hugging_face_reads_the_folder_alike(tokenizer):
  transformers = helpers.require('transformers')
  theirs = transformers.PreTrainedTokenizerFast.from_pretrained(str(FOLDER))
  assert len(theirs) == tokenizer.get_vocab_size(with_added_tokens=True)
  assert theirs.pad_token == '<|endoftext|>'
  assert theirs.eos_token == '<|im_end|>'
  for text in [*vocabulary.sample_texts()][::50] + [
      '<|im_start|>user\n<tool_response>\nx</tool_response><|im_end|>\n'
  ]:
    assert theirs(text)['input_ids'] == tokenizer.encode(text).ids
    assert theirs.decode(theirs(text)['input_ids']) == text


def test_image_processor_settings():
  config = json.loads((FOLDER / 'preprocessor_config.json').read_text())
  unit = config['patch_size'] * config['merge_size']
  assert config['max_pixels'] // unit**2 == 9
  # A crop is shown with four tokens at least.
  assert config['min_pixels'] // unit**2 == 4
