"""Dialects: the words of each paradigm, grammars, and files to be mended."""

from __future__ import annotations

import json

import pytest

from gog_jax.chat import Chat
from gog_jax.chat import load_dialect
from gog_jax.errors import UserError
from gog_jax.images import ImageProcessor
from tests.chat_helpers import EXAMPLE
from tests.chat_helpers import ROOT
from tests.chat_helpers import TOOLS
from tests.chat_helpers import TOY

pytestmark = pytest.mark.quick

FOLDER = ROOT / 'gog_jax' / 'chat' / 'dialects'
UNTRAINED = ('gog', 'gog_remote', 'qwen3_vl', 'qwen3_vl_thinking')


def prompt(dialect: str, paradigm: str) -> str:
  chat = Chat(
      TOY,
      dialect=load_dialect(dialect, paradigm),
      processor=ImageProcessor.from_folder(TOY),
      tools=TOOLS,
  )
  return chat.decode(chat.prompt(EXAMPLE).token_ids)


@pytest.mark.parametrize('name', UNTRAINED)
@pytest.mark.parametrize('paradigm', ['direct', 'full_search'])
def test_who_may_not_search_is_told_so(name, paradigm):
  own = load_dialect(name)
  dialect = load_dialect(name, paradigm)
  assert (own.paradigm, dialect.paradigm) == ('gog', paradigm)
  system, _, rest = prompt(name, paradigm).partition('<|im_end|>')
  usual, _, usual_rest = prompt(name, 'gog').partition('<|im_end|>')
  # No tool is described, nor how to call one; all else is as ever.
  for word in ('tool', 'gaze', 'text_search', 'image_search', 'function'):
    assert word not in system
    assert word in usual or word == 'function'
  assert rest == usual_rest
  # The message that it asks for is one that is read as meant.
  asked = dialect.thought.replace('$thought', 'your reasoning')
  assert system.endswith(f'{asked}<answer>your answer</answer>')
  assert ('searches have been made' in system) == (paradigm == 'full_search')


@pytest.mark.parametrize(
    'paradigm', ['gog', 'direct', 'full_search', 'no_gaze']
)
def test_who_was_trained_hears_what_it_was_trained_on(paradigm):
  assert prompt('gog_toy', paradigm) == prompt('gog_toy', 'gog')
  assert prompt('gog_toy', paradigm).startswith(
      '<|im_start|>system\nsee, find, search or answer<|im_end|>\n'
  )


def test_words_that_a_dialect_lacks(tmp_path):
  with pytest.raises(UserError, match="'direct', only for gog;"):
    load_dialect('mmsearch_r1', 'direct')
  with pytest.raises(UserError, match='only for gog, direct, full_search'):
    load_dialect('gog', 'dierct')
  # One's own file may have them.
  fields = json.loads((FOLDER / 'mmsearch_r1.json').read_text())
  path = tmp_path / 'mine.json'
  path.write_text(
      json.dumps(fields | {'paradigms': {'direct': {'max_turns': 1}}})
  )
  assert load_dialect(str(path)).max_turns == 3
  assert load_dialect(str(path), 'direct').max_turns == 1


@pytest.mark.parametrize(
    ('change', 'error'),
    [
        ({'grammar': 'herms'}, "one of hermes, mmsearch_r1, not 'herms'"),
        ({'grammar': 'hermes'}, 'thought must stand in <think> and </think>'),
        ({'thought': '<reason>$thought'}, '<reason> and </reason>'),
        ({'thought': 'x'}, r'thought lacks or does not know \$thought'),
        ({'instructions': 'x'}, 'write a system message in their place'),
        ({'opening': '<think>'}, 'thought must begin with opening'),
        ({'max_turns': -1}, 'max_turns must be 0 or more, not -1'),
        ({'max_turns': True}, 'max_turns must be a whole number'),
        ({'max_turns': '3'}, 'max_turns must be a whole number'),
        ({'max_calls': 3}, 'max_calls must be an object, not 3'),
        ({'max_calls': {'gaze': 0.5}}, 'max_calls.gaze must be a whole number'),
        ({'paradigm': 'direct'}, 'paradigm: there is no such field'),
        ({'paradigms': ['direct']}, 'paradigms must be an object'),
        ({'paradigms': {'gog': {}}}, 'for direct, full_search'),
        ({'paradigms': {'direct': 'x'}}, 'paradigms.direct must be an object'),
        ({'paradigms': {'direct': {'hits': ''}}}, 'hits: there is no such'),
    ],
)
def test_files_are_checked(tmp_path, change, error):
  fields = json.loads((FOLDER / 'mmsearch_r1.json').read_text())
  path = tmp_path / 'mine.json'
  path.write_text(json.dumps(fields | change))
  with pytest.raises(UserError, match=error) as caught:
    load_dialect(str(path), 'direct' if 'paradigms' in change else 'gog')
  assert str(path) in str(caught.value) and '\n' not in str(caught.value)


def test_a_file_of_something_else(tmp_path):
  path = tmp_path / 'mine.json'
  path.write_text('[]')
  with pytest.raises(UserError, match='must be an object'):
    load_dialect(str(path))


def test_mmsearch_r1_has_its_limits():
  dialect = load_dialect('mmsearch_r1')
  assert dialect.max_turns == 3
  assert dialect.max_calls == {'image_search': 1, 'text_search': 2}
  assert dialect.can_call('image_search') and dialect.can_call('text_search')
  assert not dialect.can_call('gaze')
  assert load_dialect('gog').can_call('gaze')
