"""What a local index finds: texts by BM25, pictures whole and cropped."""

from __future__ import annotations

import asyncio
import concurrent.futures
import io
import math
import re

import cv2
import numpy as np
from PIL import Image
from PIL import ImageDraw
import pytest

from gog_jax.errors import UserError
from gog_jax.index import descriptor
from gog_jax.index import text_index
from gog_jax.index import vectors
from gog_jax.index.backend import LocalIndex
from gog_jax.index.build import build
from gog_jax.index.verify import verify
from tests.index_helpers import encoded
from tests.index_helpers import picture
from tests.index_helpers import ThreeColours
from tests.index_helpers import write_docs
from tests.index_helpers import write_images

TEXTS = {
    'cat': ('Cats', 'the cat sat on the mat with another cat'),
    'dog': ('Dogs', 'the dog sat in the garden'),
    'tower': ('東京タワー', '東京タワーは東京都港区にある'),
    'street': ('Straße', 'Ｆｕｌｌ width and ﬁne ligatures'),
    'twin': ('Dogs', 'the dog sat in the garden'),
}


@pytest.fixture(name='texts', scope='module')
def index_of_texts(tmp_path_factory) -> LocalIndex:
  folder = tmp_path_factory.mktemp('texts')
  docs = write_docs(
      folder / 'c.jsonl',
      *(
          {'id': name, 'title': title, 'text': text}
          for name, (title, text) in TEXTS.items()
      ),
  )
  build(str(folder / 'ix'), docs=docs)
  return LocalIndex(str(folder / 'ix'))


def ids(found) -> list[str]:
  return [row['id'] for row, _ in found]


def test_scores_are_bm25s(texts):
  documents = {
      name: text_index.words('\n'.join(text), single=True)
      for name, text in TEXTS.items()
  }
  mean = np.mean([len(words) for words in documents.values()])

  def score(name: str, query: list[str]) -> float:
    total = 0.0
    for word in query:
      df = sum(word in words for words in documents.values())
      tf = documents[name].count(word)
      idf = math.log(1 + (len(documents) - df + 0.5) / (df + 0.5))
      length = 1 - 0.75 + 0.75 * len(documents[name]) / mean
      total += idf * tf / (tf + 1.5 * length)
    return total

  found = texts.text('the cat sat', 5)
  assert ids(found) == ['cat', 'dog', 'twin']  # Ties in the file's order.
  for row, value in found:
    expected = score(row['id'], ['the', 'cat', 'sat'])
    assert value == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ('query', 'first'),
    [
        ('CAT', 'cat'),
        ('東京タワー', 'tower'),
        ('港', 'tower'),
        ('strasse', 'street'),
        ('STRAßE', 'street'),
        ('full', 'street'),
        ('fine', 'street'),
    ],
)
def test_case_width_and_script_are_folded(texts, query, first):
  assert ids(texts.text(query, 1)) == [first]


@pytest.mark.parametrize('query', ['', ' ', 'zebra', '?!', '\x00', '京都タ'])
def test_unknown_words_find_nothing(texts, query):
  # Of the last, one pair of characters occurs, but not in this order.
  expected = ['tower'] if '京都' in query else []
  assert ids(texts.text(query, 5)) == expected


def test_top_k_cuts_ties_by_order(texts):
  assert ids(texts.text('dog', 1)) == ['dog']
  assert texts.text('dog', 0) == []


def test_a_document_comes_back_as_it_was(texts):
  [(row, _)] = texts.text('cat', 1)
  title, text = TEXTS['cat']
  assert row == {
      'id': 'cat',
      'title': title,
      'text': text,
      'contents': f'"{title}"\n{text}',
  }
  assert texts.image(encoded(picture(1)), 3) == []


def test_a_backend_answers_with_hits(tmp_path):
  images = write_images(tmp_path / 'im', {'a.png': 1, 'b.png': 2})
  (images / 'a.txt').write_text('the caption')
  docs = write_docs(
      tmp_path / 'c.jsonl',
      {'id': 'd', 'title': 'D', 'text': 'z' * 600, 'image': 'a.png'},
      {'id': 'e', 'title': 'E', 'text': 'about b', 'image': 'b.png'},
  )
  build(str(tmp_path / 'ix'), docs=docs, images=str(images))
  index = LocalIndex(str(tmp_path / 'ix'))
  assert (index.n_documents, index.n_images) == (2, 2)
  assert re.fullmatch('index/[0-9a-f]{16}', index.version)

  async def ask():
    text = await index.search_text('about', scope='any', top_k=5)
    a = await index.search_image(encoded(picture(1)), scope='any', top_k=1)
    b = await index.search_image(encoded(picture(2)), scope='', top_k=1)
    return text, a, b

  text, a, b = asyncio.run(ask())
  assert [(hit.title, hit.text) for hit in text.hits] == [('E', 'about b')]
  assert (text.raw, text.hits[0].image) == (None, None)
  [hit] = a.hits
  assert hit.title == 'D' and hit.text == 'the caption\n' + 'z' * 500
  assert b.hits[0].text == 'about b'  # Once: the caption is the beginning.
  with Image.open(io.BytesIO(hit.image)) as thumbnail:
    assert thumbnail.format == 'JPEG' and max(thumbnail.size) <= 256


def test_flat_pictures_are_found_by_colour(tmp_path):
  images = tmp_path / 'im'
  images.mkdir()
  for name, colour in (('red', 'red'), ('blue', 'blue'), ('grey', 'grey')):
    (images / f'{name}.png').write_bytes(
        encoded(Image.new('RGB', (300, 200), colour))
    )
  logo = Image.new('RGB', (300, 200), 'white')
  ImageDraw.Draw(logo).rectangle((0, 0, 300, 80), fill='green')
  (images / 'logo.png').write_bytes(encoded(logo))
  build(str(tmp_path / 'ix'), images=str(images))
  index = LocalIndex(str(tmp_path / 'ix'))
  for name in ('red', 'blue', 'grey', 'logo'):
    with Image.open(images / f'{name}.png') as image:
      query = encoded(image.resize((160, 107)), 'JPEG', quality=50)
    (found, hit), *_ = index.image(query, 3)
    assert found['id'] == f'{name}.png' and 0.8 < hit.score <= 1


def test_odd_shapes_are_searched(tmp_path):
  shapes = {'dot': (1, 1), 'line': (900, 1), 'strip': (30, 4000), 'a': (90, 60)}
  images = tmp_path / 'im'
  images.mkdir()
  for i, (name, size) in enumerate(shapes.items()):
    (images / f'{name}.png').write_bytes(encoded(picture(i, *size)))
  build(str(tmp_path / 'ix'), images=str(images))
  index = LocalIndex(str(tmp_path / 'ix'))
  for i, (name, size) in enumerate(shapes.items()):
    assert index.image(encoded(picture(i, *size)), 1)[0][0]['title'] == name


@pytest.mark.parametrize('data', [b'', b'no image', b'\xff\xd8\xff\xe0'])
def test_what_is_no_image_is_refused(texts, data):
  with pytest.raises(UserError, match='cannot read an image'):
    texts.image(data, 3)


def test_equal_queries_have_equal_answers_in_any_thread(tmp_path):
  names = {f'{i}.png': i for i in range(12)}
  images = write_images(tmp_path / 'im', names)
  build(str(tmp_path / 'ix'), images=str(images))
  index = LocalIndex(str(tmp_path / 'ix'))
  queries = [encoded(picture(i, 300, 225), 'JPEG') for i in range(6)]
  alone = [index.image(query, 5) for query in queries]
  assert [found[0][0]['id'] for found in alone] == list(names)[:6]
  with concurrent.futures.ThreadPoolExecutor(4) as pool:
    together = list(pool.map(lambda q: index.image(q, 5), queries * 3))
  assert together == alone * 3


def test_features_do_not_hang_on_threads():
  threads = cv2.getNumThreads()
  found = []
  for n in (1, 2):
    cv2.setNumThreads(n)
    found.append(descriptor.extract(picture(5, 500, 400)))
  cv2.setNumThreads(threads)
  assert (found[0].descriptors == found[1].descriptors).all()
  assert (found[0].keypoints == found[1].keypoints).all()


def test_the_whole_beats_recolouring_crop_and_composite():
  random = np.random.default_rng(3)
  noise = random.integers(256, size=(18, 24, 3)).astype(np.uint8)
  photo = Image.fromarray(noise).resize((480, 360), Image.Resampling.BICUBIC)
  pair = Image.new('RGB', (960, 360), 'white')
  pair.paste(photo, (480, 0))
  others = [
      photo,
      Image.merge('RGB', photo.split()[::-1]),
      photo.crop((0, 0, 340, 255)),
      pair,
  ]
  query = descriptor.extract(photo.resize((300, 225)))
  whole, recoloured, crop, composite = verify(
      query, [descriptor.extract(image) for image in others]
  )
  assert whole.score > 0.85 and whole.inliers > 50 and whole.cover > 0.97
  assert recoloured.share < 0.35
  assert crop.share == pytest.approx(0.5, abs=0.06) and crop.cover > 0.97
  assert composite.share > 0.55
  assert composite.cover == pytest.approx(0.5, abs=0.03)
  assert whole.score - max(crop.score, composite.score) > 0.1


def test_an_encoder_adds_like_pictures(tmp_path):
  images = tmp_path / 'im'
  images.mkdir()
  for name, size in (('a', (90, 60)), ('b', (60, 90))):
    (images / f'{name}.png').write_bytes(encoded(picture(1, *size)))
  (images / 'red.png').write_bytes(encoded(Image.new('RGB', (40, 400), 'red')))
  build(str(tmp_path / 'ix'), images=str(images), encoder=ThreeColours())
  index = LocalIndex(str(tmp_path / 'ix'), ThreeColours())
  # Of another shape and without keypoints: the encoder alone knows it.
  query = encoded(Image.new('RGB', (400, 40), (250, 0, 0)))
  (found, hit), *_ = index.image(query, 3)
  assert found['id'] == 'red.png' and hit.score == pytest.approx(0.3, abs=0.01)


def test_many_vectors_are_found_approximately(tmp_path):
  random = np.random.default_rng(0)
  rows = random.integers(256, size=(3000, 128)).astype(np.uint8)
  parts = np.split(rows, 30)
  for name, code in (('pq', 'PQ32x4fs'), ('sq', 'SQ8')):
    files = []
    for i in range(2):
      path = tmp_path / f'{name}{i}'
      settings = vectors.Settings(flat_limit=1000, code=code, n_probe=8)
      vectors.build(path, lambda: parts, settings)
      files.append(path.read_bytes())
    assert files[0] == files[1]
    index = vectors.load(path)
    _, found = vectors.search(index, rows[:200], 10)
    hits = [i in near for i, near in enumerate(found)]
    assert np.mean(hits) > 0.97, name
