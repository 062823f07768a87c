"""Fixtures of the chat tests; those modules load this one as a plugin.

toy, qwen3: a chat over that tokenizer. chat: each of the three in turn, with
its `folder`, and as `oracle` Hugging Face's tokenizer over the same folder.
"""

from __future__ import annotations

from collections.abc import Callable
import functools
import pathlib

import pytest

from gog_jax.chat import Chat
from tests import helpers
from tests.chat_helpers import make_chat
from tests.chat_helpers import N_QWEN2_5
from tests.chat_helpers import qwen_folder
from tests.chat_helpers import QWEN_TOKENS
from tests.chat_helpers import TOY


@pytest.fixture(scope='session', name='toy')
def toy_chat() -> Chat:
  return make_chat(TOY, 'gog_toy')


@pytest.fixture(scope='session', name='make_folder')
def folder_maker(tmp_path_factory) -> Callable[[str], pathlib.Path]:
  @functools.cache
  def make(name: str) -> pathlib.Path:
    if name == 'toy':
      return TOY
    n_tokens = {'qwen2_5': N_QWEN2_5, 'qwen3': len(QWEN_TOKENS)}[name]
    return qwen_folder(tmp_path_factory.mktemp(name), n_tokens)

  return make


@pytest.fixture(scope='session', params=['toy', 'qwen2_5', 'qwen3'])
def folder(request, make_folder) -> pathlib.Path:
  return make_folder(request.param)


@pytest.fixture(scope='session', name='qwen3')
def qwen3_chat(make_folder) -> Chat:
  return make_chat(make_folder('qwen3'), 'gog')


@pytest.fixture(scope='session', name='chat')
def any_chat(folder) -> Chat:
  return make_chat(folder, 'gog_toy' if folder == TOY else 'gog')


@pytest.fixture(scope='session', name='oracle')
def hugging_face(folder):
  """Reads whole rendered text, control tokens included."""
  transformers = helpers.require('transformers')
  if folder == TOY:
    return transformers.PreTrainedTokenizerFast.from_pretrained(str(folder))
  return transformers.Qwen2Tokenizer.from_pretrained(str(folder))
