"""Somebody's own job: raw files, a model folder, a teacher and a judge.

Questions in FVQA's and InfoSeek's formats about pictures of made-up things, a
corpus that knows their makers, and small random models with Qwen's vocabulary.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import pathlib
import re
from typing import Any

import numpy as np
from PIL import Image
from PIL import ImageDraw

from tests import benchmark_fixtures
from tests import chat_helpers
from tests import endpoints
from tests import helpers
from tests import hf_helpers
from tests import instruct_helpers as teacher

N_FVQA = 200
N_INFOSEEK = 200
N_TEST = 6
_THING = re.compile(r'thing (\d+)')
_N_TOKENS = {'qwen2_5_vl': 22, 'qwen3_vl': 26}
_PATCH = {'qwen2_5_vl': 14, 'qwen3_vl': 16}
_VOCABULARY = {'qwen2_5_vl': 152_064, 'qwen3_vl': 151_936}


def maker(number: int) -> str:
  return f'Kelo {hashlib.sha256(str(number).encode()).hexdigest()[:6]}'


def picture(number: int) -> bytes:
  """A thing's photograph, 168 x 112: shapes and speckles of its own."""
  random = np.random.default_rng(number)
  pixels = random.integers(0, 256, (14, 21, 3), np.uint8)
  image = Image.fromarray(pixels).resize((168, 112))
  draw = ImageDraw.Draw(image)
  for _ in range(6):
    x, y = (int(v) for v in random.integers(0, 90, 2))
    w, h = (int(v) for v in random.integers(12, 60, 2))
    colour = tuple(int(v) for v in random.integers(0, 256, 3))
    draw.rectangle((x, y, x + w, min(y + h, 111)), fill=colour)
  buffer = io.BytesIO()
  image.save(buffer, format='PNG')
  return buffer.getvalue()


def question(number: int) -> str:
  return f'Who made thing {number}, which is shown here?'


def fvqa_row(number: int, split: str) -> dict[str, Any]:
  return benchmark_fixtures.verl_row(
      number,
      prompt=[{'content': f'<image>{question(number)}', 'role': 'user'}],
      images=[{'bytes': picture(number), 'path': None}],
      reward_model={
          'candidate_answers': json.dumps([maker(number)]),
          'ground_truth': maker(number),
          'style': 'rule',
      },
      data_source=f'mmsearch_r1/fvqa_{split}',
      data_id=f'fvqa_{split}_{number}',
  )


def write_files(folder: pathlib.Path) -> None:
  """Writes what README's section names, from train.parquet to rewards.py.

  Things are numbered: FVQA's first, then InfoSeek's, then those of the test.
  """
  write, schema = benchmark_fixtures.write, benchmark_fixtures.VERL
  write(
      folder / 'train.parquet',
      [fvqa_row(i, 'train') for i in range(N_FVQA)],
      schema,
  )
  numbers = range(N_FVQA, N_FVQA + N_INFOSEEK)
  rows = [
      benchmark_fixtures.infoseek_row(
          i,
          data_id=f'infoseek_train_{i:08}',
          image_id=f'oven_{i:08}',
          question=question(i),
          answer=[maker(i)],
          answer_eval=[maker(i)],
          data_split='train',
      )
      for i in numbers
  ]
  infoseek = folder / 'infoseek'
  infoseek.mkdir()
  (infoseek / 'train.jsonl').write_text(
      ''.join(json.dumps(row) + '\n' for row in rows)
  )
  for i in numbers:
    place = infoseek / 'oven_images' / f'{i:08}'[:2]
    place.mkdir(parents=True, exist_ok=True)
    (place / f'oven_{i:08}.png').write_bytes(picture(i))
  tested = range(N_FVQA + N_INFOSEEK, N_FVQA + N_INFOSEEK + N_TEST)
  write(
      folder / 'fvqa_test' / 'fvqa_test.parquet',
      [fvqa_row(i, 'test') for i in tested],
      schema,
  )
  (folder / 'photos').mkdir()
  documents = []
  for i in range(tested.stop):
    documents.append({
        'id': str(i),
        'title': f'thing {i}',
        'text': f'The maker of thing {i} is {maker(i)}.',
    })
    if i % 4 == 3:  # Enough to find some.
      (folder / 'photos' / f'{i}.png').write_bytes(picture(i))
      documents[-1]['image'] = f'{i}.png'
  (folder / 'corpus.jsonl').write_text(
      ''.join(json.dumps(one) + '\n' for one in documents)
  )
  (folder / 'rewards.py').write_text(
      'def brevity(example, trajectory):\n'
      '  # Something that differs between answers that are all cut off.\n'
      '  return 1.0 - trajectory.token_ids[-1] % 2\n'
  )


def write_model(folder: pathlib.Path, family: str) -> pathlib.Path:
  """A small random model as transformers writes one, Qwen's tokens and all."""
  transformers = helpers.require('transformers')
  chat_helpers.qwen_folder(folder, _N_TOKENS[family])
  tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
  ids = tokenizer.convert_tokens_to_ids
  tiny = helpers.tiny_config(family=family, tied=family == 'qwen3_vl')
  config = dataclasses.replace(
      tiny,
      text=dataclasses.replace(tiny.text, vocab_size=_VOCABULARY[family]),
      vision=dataclasses.replace(tiny.vision, patch_size=_PATCH[family]),
      image_token_id=ids('<|image_pad|>'),
      video_token_id=ids('<|video_pad|>'),
      vision_start_token_id=ids('<|vision_start|>'),
      vision_end_token_id=ids('<|vision_end|>'),
      eos_token_id=ids('<|im_end|>'),
      pad_token_id=ids('<|endoftext|>'),
  )
  hf_helpers.hf_model(folder, config).save_pretrained(folder)
  processor = transformers.Qwen2VLImageProcessorPil(  # Without torchvision.
      patch_size=_PATCH[family],
      size={'shortest_edge': 56 * 56, 'longest_edge': 1280 * 28 * 28},
  )
  processor.save_pretrained(folder)
  return folder


def thousandths(body: dict[str, Any]) -> bool:
  """The frame that a prompt asks for; it has to say one."""
  system = body['messages'][0]['content']
  named = 'thousandths of' in system
  assert named != ('in pixels of' in system), system
  return named


def teach(body: dict[str, Any]) -> dict[str, Any]:
  """Knows a third at once, looks up a third, gazes at a third and looks it up.

  Alone without tools it knows that first third only.
  """
  messages = body['messages']
  (user,) = [m for m in messages[:2] if m['role'] == 'user']
  parts = endpoints.parts_of(user)
  found = _THING.search(''.join(p for p in parts if isinstance(p, str)))
  assert found is not None
  number = int(found[1])
  said = sum(m['role'] == 'assistant' for m in messages)
  right = teacher.answer(maker(number))
  if number % 3 == 0:
    return right
  if '<tools>' not in messages[0]['content']:
    return teacher.answer('I do not know')
  plan = [teacher.call('text_search', query=f'maker of thing {number}'), right]
  if number % 3 == 2:
    # The right half of the picture, without its lower quarter.
    box = [500, 0, 1000, 750]
    if not thousandths(body):
      (shown,) = [p for p in parts if isinstance(p, Image.Image)]
      box = [
          round(v * side / 1000) for v, side in zip(box, 2 * shown.size)
      ]
    plan.insert(0, teacher.call('gaze', bbox_2d=box, image=1))
  return plan[said]
