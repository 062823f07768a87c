"""FVQA's pickled searches: what may be read of them, and what must not run."""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess

import numpy as np
from PIL import Image
import pytest

from gog_jax.errors import UserError
from gog_jax.index import build
from gog_jax.questions import fvqa_cache
from scripts import convert_fvqa_cache
from tests import benchmark_fixtures as fixtures


def opened(seed: int, format: str) -> Image.Image:
  """As a crawler holds it: of the class that its format has."""
  image = Image.open(io.BytesIO(fixtures.picture(seed, format)))
  image.load()
  return image


def entry(*pictures, titles=None):
  return {
      'tool_returned_web_title_list': titles
      or [f'Title {i}' for i in range(len(pictures))],
      'tool_returned_images_urls': list(pictures),
  }


def write(tmp_path, cache, protocol=4):
  path = tmp_path / 'fvqa_test_image_search_results_cache.pkl'
  path.write_bytes(pickle.dumps(cache, protocol=protocol))
  return str(path)


def documents(folder):
  return list(map(json.loads, (folder / 'docs.jsonl').read_text().splitlines()))


@pytest.mark.parametrize('protocol', [2, 4, 5])
def test_titles_and_pictures_become_documents(tmp_path, protocol):
  pictures = [
      opened(0, 'PNG'),
      opened(1, 'JPEG'),
      opened(2, 'WEBP'),
      opened(3, 'PNG').convert('P'),
      Image.new('RGBA', (4, 4), 'red'),
  ]
  cache = {
      'fvqa_test_0': entry(*pictures),
      'fvqa_test_1': entry(
          'https://x.test/a.jpg', None, titles=['One\n two', 'Alone', 'More']
      ),
      'fvqa_test_2': entry(opened(0, 'PNG')),
  }
  made = fvqa_cache.convert(write(tmp_path, cache, protocol), tmp_path / 'out')
  assert (made.n_searches, made.n_documents, made.n_images) == (3, 9, 6)
  assert made.drops == ()
  rows = documents(tmp_path / 'out')
  assert rows[5] == {
      'id': 'fvqa_test_1/0',
      'title': 'One two',
      'text': 'One two',
      'image': '',
      'url': 'https://x.test/a.jpg',
  }
  assert [row['title'] for row in rows[6:8]] == ['Alone', 'More']
  for row, picture in zip(rows[:5], pictures, strict=True):
    stored = Image.open(tmp_path / 'out/images' / row['image'])
    np.testing.assert_array_equal(stored, picture.convert('RGB'))
  assert rows[8]['image'] == rows[0]['image']
  assert len(os.listdir(tmp_path / 'out/images')) == 5


def test_an_index_can_be_made_of_it(tmp_path, capsys):
  path = write(tmp_path, {'q': entry(opened(0, 'PNG'), 'https://x.test/a')})
  out = tmp_path / 'out'
  assert convert_fvqa_cache.main([path, str(out)]) == 0
  assert '2 documents of 1 searches, 1 with' in capsys.readouterr().out
  said = build.build(
      tmp_path / 'index',
      docs=str(out / 'docs.jsonl'),
      images=str(out / 'images'),
      encoder=None,
  )
  assert '2 documents' in str(said) and '1 image' in str(said)


class Evil:
  def __init__(self, call, *args):
    self.reduced = call, args

  def __reduce__(self):
    return self.reduced


@pytest.mark.parametrize(
    ('call', 'name'),
    [
        (os.system, 'posix.system'),
        (eval, 'builtins.eval'),
        (exec, 'builtins.exec'),
        (getattr, 'builtins.getattr'),
        (__import__, 'builtins.__import__'),
        (open, 'io.open'),
        (subprocess.Popen, 'subprocess.Popen'),
        (Image.open, 'PIL.Image.open'),
        (np.arange, 'numpy.arange'),
    ],
)
def test_what_wants_anything_else_is_refused_before_it_runs(
    tmp_path, call, name
):
  mark = tmp_path / 'ran'
  evil = {'a': entry('x'), 'b': Evil(call, f'touch {mark}')}
  out = tmp_path / 'out'
  with pytest.raises(UserError) as caught:
    fvqa_cache.convert(write(tmp_path, evil), out)
  assert f'wants {name}, which no cache' in str(caught.value)
  assert '\n' not in str(caught.value)
  assert not mark.exists() and not out.exists()


def test_the_same_pickle_would_run_if_it_were_loaded(tmp_path):
  mark = tmp_path / 'ran'
  pickle.loads(pickle.dumps(Evil(os.system, f'touch {mark}')))
  assert mark.exists()


def test_names_that_lead_on_from_allowed_ones_are_refused(tmp_path):
  path = tmp_path / 'dotted.pkl'
  # STACK_GLOBAL of 'builtins' and 'list.__subclasses__'.
  path.write_bytes(
      b'\x80\x04\x8c\x08builtins\x8c\x13list.__subclasses__\x93)R.'
  )
  with pytest.raises(UserError, match='wants builtins.list.__subclasses__'):
    fvqa_cache.convert(str(path), tmp_path / 'out')


@pytest.mark.parametrize(
    ('data', 'message'),
    [
        (b'', 'cut off, or no pickle .EOFError'),
        (b'\x80\x04\x95', 'cut off, or no pickle'),
        (b'not a pickle', 'cut off, or no pickle'),
        (pickle.dumps([1]), 'holds a list, not a dict of searches'),
        # Bytes that say they are 2**40.
        (b'\x80\x04\x8e\x00\x00\x00\x00\x00\x01\x00\x00', 'memory|cut off'),
    ],
)
def test_what_is_no_cache_is_one_line(tmp_path, data, message):
  path = tmp_path / 'a.pkl'
  path.write_bytes(data)
  with pytest.raises(UserError, match=message) as caught:
    fvqa_cache.convert(str(path), tmp_path / 'out')
  assert '\n' not in str(caught.value)


def test_memory_has_a_limit(tmp_path):
  path = write(tmp_path, {'a': 'x' * 100_000_000})
  with pytest.raises(UserError, match='needs more than|ended the process'):
    fvqa_cache.convert(path, tmp_path / 'out', memory_gb=0.15)


def test_searches_of_no_use_are_counted(tmp_path):
  state = [{}, 'RGB', (10**6, 10**6), None, b'']
  cache = {
      'good': entry('https://x.test/a'),
      'none': None,
      'titles': {'tool_returned_web_title_list': 'no list'},
      'number': entry('x', titles=[3]),
      'kind': entry(7),
      'bytes': entry(b'no image'),
      'forged': entry(Forged(state)),
      'containers': entry({1}, (2,)),
      5: entry('x'),
  }
  made = fvqa_cache.convert(write(tmp_path, cache), tmp_path / 'out')
  assert made.n_searches == 1
  assert [drop.where.rpartition(', ')[2] for drop in made.drops] == [
      'none', 'titles', 'number', 'kind', 'bytes', 'forged', 'containers', '5'
  ]
  assert '1000000 x 1000000 pixels' in made.drops[5].detail
  assert [row['id'] for row in documents(tmp_path / 'out')] == ['good/0']


class Forged:
  """Pickles as one of Pillow's images with a state of one's own."""

  def __init__(self, state):
    self.state = state

  def __reduce__(self):
    return Image.Image, (), self.state


def test_a_missing_cache_is_one_line(tmp_path, capsys):
  assert convert_fvqa_cache.main([str(tmp_path / 'x'), str(tmp_path)]) == 2
  assert 'is no file' in capsys.readouterr().err
