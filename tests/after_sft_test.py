"""What was trained is evaluated with whatever there is by then."""

from __future__ import annotations

import importlib
import json
import shutil

import pytest

from gog_jax.app import commands
from gog_jax.config import from_page
from gog_jax.config import settings
from gog_jax.storage import manifest
from tests import benchmark_fixtures
from tests import conversation_helpers
from tests import index_helpers
from tests import journey_helpers

pytestmark = pytest.mark.slow


def do(workdir, name, **given):
  """A command: what the workdir remembers, then what is given."""
  page = importlib.import_module(f'configs.{name}').get_config()
  fields = {field.replace('__', '.'): value for field, value in given.items()}
  fields = settings.remembered(workdir, page, fields) | fields
  page.update_from_flattened_dict(fields)
  commands.do(from_page(page, fields), workdir)


def index(folder, *documents):
  docs = index_helpers.write_docs(folder / 'docs.jsonl', *documents)
  page = importlib.import_module('configs.index').get_config()
  page.update(docs=docs, images=str(folder / 'images'), index=str(folder / 'i'))
  commands.do(from_page(page), folder)


DOCUMENTS = [
    {'id': str(i), 'title': f'thing {i}', 'text': f'belwen year {129 + i}'}
    for i in range(3)
]


@pytest.fixture(scope='module', name='own')
def trained(tmp_path_factory):
  """An SFT on a file, validated over an index of one's own."""
  folder = tmp_path_factory.mktemp('own')
  rows = [conversation_helpers.sharegpt(f'q{i}') for i in range(4)]
  data = conversation_helpers.save(folder / 'demos.jsonl', rows)
  index(folder, *DOCUMENTS)
  for name in ('train', 'validation', 'test'):
    path = folder / f'{name}.jsonl'
    path.write_text(''.join(
        json.dumps({
            'question': f'{name} {i}: year of barred blue circle?',
            'answer': '129',
            'image': 'images/scene.png',
        }) + '\n'
        for i in range(2)
    ))  # fmt: skip
  do(
      folder / 'run',
      'sft',
      sft__data=str(data),
      sft__data_box='original_pixels',
      sft__steps=2,
      sft__batch_size=2,
      sft__n_validation=2,
      sft__eval_every=2,
      sampler__n_slots=4,
      tools__backend='index',
      tools__index=str(folder / 'i'),
      eval__policies=('sft',),
      **{
          f'questions__{name}': (f'jsonl:{folder / name}.jsonl',)
          for name in ('train', 'validation', 'test')
      },
  )
  return folder


def evaluated(folder, tmp_path, name='eval', **given):
  """The manifest of an evaluation after this very SFT."""
  workdir = shutil.copytree(folder / 'run', tmp_path / 'run')
  before = manifest.read(workdir / 'sft')
  do(workdir, 'eval', **given)
  assert manifest.read(workdir / 'sft') == before
  made = manifest.read(workdir / name / 'sft')
  assert made['complete'] and made['facts']['n'] == made['benchmark']['n'] > 0
  assert before['birthmark'] in made['inputs']['sft']
  assert settings.read(workdir) == settings.read(folder / 'run')
  return before, made


def test_another_top_k(own, tmp_path):
  before, made = evaluated(own, tmp_path, tools__top_k=2)
  assert before['config']['tools.top_k'] == 1
  assert made['config']['tools.top_k'] == 2


def test_other_limits(own, tmp_path):
  before, made = evaluated(
      own, tmp_path, rollout__max_turns=2, rollout__max_context=300,
      batch__row_tokens=300, tools__hit_characters=60,
  )  # fmt: skip
  assert before['config']['rollout']['max_turns'] == 5
  assert made['config']['rollout']['max_turns'] == 2
  assert made['config']['rollout']['max_context'] == 300
  assert made['config']['tools.hit_characters'] == 60


def test_another_benchmark(own, tmp_path):
  published = tmp_path / 'fvqa_test' / 'fvqa_test.parquet'
  rows = [journey_helpers.fvqa_row(i, 'test') for i in range(2)]
  benchmark_fixtures.write(published, rows, benchmark_fixtures.VERL)
  _, made = evaluated(
      own, tmp_path, 'eval_fvqa_test', eval__benchmark='fvqa_test',
      benchmark__path=str(published.parent),
  )  # fmt: skip
  assert made['benchmark']['name'] == 'fvqa_test'
  assert made['config']['eval']['benchmark'] == 'fvqa_test'


def test_one_document_more(own, tmp_path):
  more = {'id': '9', 'title': 'one more', 'text': 'belwen year 999'}
  searched = manifest.read(own / 'run' / 'sft')['inputs']['searched']
  index(own, *DOCUMENTS, more)
  before, made = evaluated(own, tmp_path)
  assert before['inputs']['searched'] == searched
  assert made['inputs']['searched'] != searched
