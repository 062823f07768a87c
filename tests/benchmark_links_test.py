"""Images that sets only link to: on this machine, fetched, or counted."""

from __future__ import annotations

import pytest

from gog_jax.errors import UserError
from gog_jax.questions import local_files
from gog_jax.questions import questions as q
from tests import benchmark_fixtures as fixtures

LOOPBACK = {'private': ('127.0.0.1',), 'max_attempts': 1}


def load(folder, fetch=LOOPBACK, **options):
  return fixtures.open_benchmark('dynvqa', str(folder), fetch=fetch, **options)


def test_images_that_are_not_here_are_counted(tmp_path):
  fixtures.dynvqa(tmp_path / 'set')
  images = tmp_path / 'images'
  images.mkdir()
  key = local_files.url_key('https://x.test/images/image_0.jpeg')
  (images / f'{key}.png').write_bytes(fixtures.picture(0))
  (images / 'image_1.jpeg').write_bytes(fixtures.picture(1))
  for name in 'ab':  # Which of the two it is cannot be known.
    (images / name).mkdir()
    (images / name / 'image_2.jpeg').write_bytes(fixtures.picture(2))
  # Nor of which address, where two end so.
  path = tmp_path / 'set/DynVQA_en/DynVQA_en.202502.jsonl'
  other = path.read_text().splitlines()[0].replace('image_0', 'image_3')
  other = other.replace('en0', 'en9').replace('/images/', '/others/')
  path.write_text(path.read_text() + other + '\n')
  (images / 'image_3.jpeg').write_bytes(fixtures.picture(3))
  opened = load(tmp_path / 'set', images=str(images))
  assert [e.images for e in opened.examples] == [
      (fixtures.picture(0),), (fixtures.picture(1),)
  ]
  missing = [d for d in opened.drops if d.reason == q.MISSING_IMAGE]
  assert len(missing) == 4
  assert 'config.benchmark.fetch_images' in missing[0].detail


def test_more_of_an_address_tells_files_of_one_name_apart(tmp_path):
  folder = fixtures.dynvqa(tmp_path / 'set')
  path = folder / 'DynVQA_en/DynVQA_en.202502.jsonl'
  first, second = path.read_text().splitlines()[:2]
  second = second.replace('/images/image_1', '/others/image_0')
  path.write_text(f'{first}\n{second}\n')
  for i, place in enumerate(('images', 'others')):
    (tmp_path / place).mkdir()
    (tmp_path / place / 'image_0.jpeg').write_bytes(fixtures.picture(i))
  opened = load(folder, images=str(tmp_path))
  assert [e.images for e in opened.examples] == [
      (fixtures.picture(0),), (fixtures.picture(1),)
  ]


def test_images_are_fetched_once_and_failures_are_said(tmp_path):
  run = tmp_path / 'run'
  answers = {
      '/images/image_0.jpeg': (200, {}, fixtures.picture(0, 'JPEG')),
      '/images/image_1.jpeg': (302, {'Location': '/moved'}, b''),
      '/moved': (200, {}, fixtures.picture(1)),
      '/images/image_2.jpeg': (200, {}, b'<html>an error page</html>'),
      '/images/image_3.jpeg': (503, {}, b''),
      '/images/image_4.jpeg': (302, {'Location': '/images/image_4.jpeg'}, b''),
  }
  with fixtures.server(answers) as (host, asked):
    folder = fixtures.dynvqa(tmp_path / 'set', host=host)
    assert not asked
    with pytest.raises(UserError, match='holds nothing of use'):
      load(folder, workdir=run)
    assert not asked
    opened = load(folder, workdir=run, fetch_images=True)
    first = list(asked)
    again = load(folder, workdir=run, fetch_images=True)
    assert asked == first
    (run / 'benchmarks' / 'images' / 'failed.json').unlink()
    load(folder, workdir=run, fetch_images=True)
    # What failed is asked for again, what is here is not.
    assert len(asked) > len(first)
    assert not {'/images/image_0.jpeg', '/moved'} & set(asked[len(first) :])
  assert [e.images for e in opened.examples] == [
      (fixtures.picture(0, 'JPEG'),), (fixtures.picture(1),)
  ]
  assert again.digest == opened.digest
  details = [d.detail for d in opened.drops if d.reason == q.MISSING_IMAGE]
  assert len(details) == 3
  reasons = ('no known image format', 'HTTP 503', 'TooManyRedirects')
  for detail, why in zip(details, reasons, strict=True):
    assert 'could not be fetched' in detail and why in detail
    assert '\n' not in detail
  # Without a server it is the same set, from what was fetched.
  assert load(folder, workdir=run).digest == opened.digest


def test_livevqa_fetches_what_it_has_no_file_of(tmp_path):
  fixtures.livevqa(tmp_path / 'set', n=1)
  (tmp_path / 'set/News/News_imgs/News_0.png').unlink()
  answers = {'/a?b=c': (200, {}, fixtures.picture(5))}
  with fixtures.server(answers) as (host, asked):
    path = tmp_path / 'set/News/benchmark.json'
    path.write_text(
        path.read_text().replace('"img_url": ""', f'"img_url": "{host}/a?b=c"')
    )
    folder = str(tmp_path / 'set')
    without = fixtures.open_benchmark('livevqa', folder)
    assert without.n == 4 and len(without.drops) == 2
    opened = fixtures.open_benchmark(
        'livevqa', folder, workdir=tmp_path, fetch_images=True, fetch=LOOPBACK
    )
    assert asked == ['/a?b=c']
  assert opened.n == 6 and opened.drops == ()
  assert opened.examples[0].images == (fixtures.picture(5),)
