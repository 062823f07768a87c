"""Chats to test with, over three tokenizers, and what to say in them.

The toy's tokenizer, and Qwen2.5's and Qwen3's where their vocabulary lies
beside the repository. The fixtures that use this are in chat_fixtures.py.
"""

from __future__ import annotations

import json
import pathlib

from PIL import Image
import pytest
import tokenizers

from gog_jax.chat import Chat
from gog_jax.chat import load_dialect
from gog_jax.images import encode_png
from gog_jax.images import ImageProcessor
from gog_jax.types import Example
from gog_jax.types import Hit
from gog_jax.types import ToolCall
from gog_jax.types import ToolResult
from gog_jax.types import ToolStatus
from gog_jax.types import View
from tests import helpers

ROOT = pathlib.Path(__file__).parent.parent
TOY = ROOT / 'gog_jax' / 'assets' / 'toy_base'
QWEN = ROOT.parent / 'shared' / 'qwen_tokenizer'
QWEN_TOKENS = (
    '<|endoftext|> <|im_start|> <|im_end|> <|object_ref_start|> '
    '<|object_ref_end|> <|box_start|> <|box_end|> <|quad_start|> <|quad_end|> '
    '<|vision_start|> <|vision_end|> <|vision_pad|> <|image_pad|> '
    '<|video_pad|> <tool_call> </tool_call> <|fim_prefix|> <|fim_middle|> '
    '<|fim_suffix|> <|fim_pad|> <|repo_name|> <|file_sep|> <tool_response> '
    '</tool_response> <think> </think>'
).split()
N_QWEN2_5 = 22  # The tags of replies and thoughts came with Qwen3.

SCHEMA = {
    'type': 'object',
    'properties': {'query': {'type': 'string'}},
    'required': ['query'],
    'additionalProperties': False,
}
BOX_SCHEMA = {
    'type': 'object',
    'properties': {
        'bbox_2d': {
            'type': 'array',
            'items': {'type': 'number'},
            'minItems': 4,
            'maxItems': 4,
        },
        'image': {'type': 'integer', 'minimum': 1},
    },
    'required': ['bbox_2d'],
    'additionalProperties': False,
}
TOOLS = (
    {'name': 'text_search', 'description': 'Finds text.', 'parameters': SCHEMA},
    {
        'name': 'image_search',
        'description': 'Finds images.',
        'parameters': {'type': 'object', 'additionalProperties': False},
    },
    {'name': 'gaze', 'description': 'Crops.', 'parameters': BOX_SCHEMA},
)
GAZE = ToolCall(name='gaze', arguments={'bbox_2d': [12, 3, 40, 84]})
SEARCH = ToolCall(name='text_search', arguments={'query': 'beldak year'})
GLANCE = ToolCall(name='image_search', arguments={})
SCENE = encode_png(Image.new('RGB', (168, 168), 'white'))
CROP = View(
    data=encode_png(Image.new('RGB', (40, 80))), root=0, box=(10, 20, 50, 100)
)
EXAMPLE = Example(
    id='e',
    images=(SCENE,),
    question='year of the top emblem?',
    answers=('132',),
    source='world',
    scope='s',
)
# Spellings that a page might use to break out of its place.
HOSTILE = (*QWEN_TOKENS, '<answer>', '</answer>', '<|im_end|>\n<|im_start|>')


def make_chat(folder: pathlib.Path, dialect: str) -> Chat:
  return Chat(
      folder,
      dialect=load_dialect(dialect),
      processor=ImageProcessor.from_folder(TOY),
      tools=TOOLS,
  )


def qwen_folder(target: pathlib.Path, n_tokens: int) -> pathlib.Path:
  if not QWEN.exists():
    pytest.skip(f'no Qwen vocabulary at {QWEN}')
  transformers = helpers.require('transformers')
  merges = (QWEN / 'merges.txt').read_text().splitlines()
  tokenizer = transformers.Qwen2Tokenizer(
      vocab=json.loads((QWEN / 'vocab.json').read_text()),
      merges=[tuple(m.split(' ')) for m in merges if not m.startswith('#v')],
  )
  tokenizer.add_tokens([
      tokenizers.AddedToken(t, special=t.startswith('<|'), normalized=False)
      for t in QWEN_TOKENS[:n_tokens]
  ])
  for index, token in enumerate(QWEN_TOKENS[:n_tokens]):
    assert tokenizer.convert_tokens_to_ids(token) == 151643 + index
  tokenizer.save_pretrained(str(target))
  return target


def image(n_tokens: int) -> str:
  return '<|vision_start|>' + '<|image_pad|>' * n_tokens + '<|vision_end|>'


def hit(text: str, title: str = 'beldak') -> Hit:
  return Hit(title=title, text=text, score=1.0)


def ok(*hits: Hit, view: View | None = None) -> ToolResult:
  return ToolResult(status=ToolStatus.OK, hits=hits, view=view, n_searches=1)
