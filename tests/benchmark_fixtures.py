"""Small folders in the schemas in which benchmarks are published."""

from __future__ import annotations

import base64
import contextlib
import http.server
import io
import json
import pathlib
import threading
from typing import Any

import numpy as np
from PIL import Image
import pyarrow as pa
import pyarrow.parquet as pq

from configs import sections
from gog_jax.config.evaluation import BenchmarkConfig
from gog_jax.questions import benchmarks
from gog_jax.questions.questions import examples
from gog_jax.questions.questions import Question
from gog_jax.storage import typed
from gog_jax.storage.records import Loaded
from gog_jax.types import Example

PROMPT = pa.list_(pa.struct([('content', pa.string()), ('role', pa.string())]))
IMAGE = pa.struct([('bytes', pa.binary()), ('path', pa.string())])
REWARD = pa.struct([
    ('candidate_answers', pa.string()),
    ('ground_truth', pa.string()),
    ('style', pa.string()),
])
# As FVQA's parquet files have it: image_urls is all null.
VERL = pa.schema([
    ('prompt', PROMPT),
    ('images', pa.list_(IMAGE)),
    ('reward_model', REWARD),
    ('data_source', pa.string()),
    ('image_urls', pa.null()),
    ('data_id', pa.string()),
    ('category', pa.string()),
])
MMSEARCH = pa.schema([
    ('sample_id', pa.string()),
    ('query', pa.string()),
    ('query_image', IMAGE),
    ('image_search_result', IMAGE),
    ('area', pa.string()),
    ('subfield', pa.string()),
    ('timestamp', pa.string()),
    ('gt_requery', pa.string()),
    ('gt_answer', pa.string()),
    ('alternative_gt_answers', pa.list_(pa.string())),
])
SIMPLEVQA = pa.schema([
    ('data_id', pa.int64()),
    ('image', pa.string()),
    ('image_description', pa.string()),
    ('language', pa.string()),
    ('question', pa.string()),
    ('answer', pa.string()),
    ('original_category', pa.string()),
    ('source', pa.string()),
    ('atomic_question', pa.string()),
    ('atomic_fact', pa.string()),
    ('vqa_category', pa.string()),
])


def picture(seed: int, format: str = 'PNG') -> bytes:
  """An image file of 8 x 6 pixels, its own for every seed."""
  pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
  buffer = io.BytesIO()
  Image.fromarray(pixels).save(buffer, format=format)
  return buffer.getvalue()


def verl_row(i: int, **changed) -> dict:
  row = {
      'prompt': [{'content': f'<image>Question {i}?', 'role': 'user'}],
      'images': [{'bytes': picture(i), 'path': None}],
      'reward_model': {
          'candidate_answers': json.dumps([f'form {i}', f'Answer {i}']),
          'ground_truth': f'Answer {i}',
          'style': 'rule',
      },
      'data_source': 'mmsearch_r1/fvqa_test',
      'image_urls': None,
      'data_id': f'fvqa_test_{i}',
      'category': ('search_required', 'search_free')[i % 2],
  }
  return row | changed


def write(
    path: pathlib.Path, rows: list[dict], schema: pa.Schema, **options
) -> pathlib.Path:
  path.parent.mkdir(parents=True, exist_ok=True)
  pq.write_table(pa.Table.from_pylist(rows, schema=schema), path, **options)
  return path


def fvqa(folder: pathlib.Path, n: int = 5, **options) -> pathlib.Path:
  """lmms-lab/FVQA, with the train set that must not be read."""
  write(
      folder / 'fvqa_test.parquet',
      [verl_row(i) for i in range(n)],
      VERL,
      **options,
  )
  write(
      folder / 'fvqa_train.parquet',
      [verl_row(i, data_id=f'fvqa_train_{i}') for i in range(2)],
      VERL,
  )
  return folder


def simplevqa(folder: pathlib.Path, n: int = 4) -> pathlib.Path:
  """m-a-p/SimpleVQA: half of it Chinese, images as base64."""
  rows = [
      {
          'data_id': i,
          'image': base64.b64encode(picture(i, 'JPEG')).decode(),
          'language': ('CN', 'EN')[i % 2],
          'question': f'Question {i}?',
          'answer': f'Answer {i}',
          'source': 'wiki',
      }
      for i in range(n)
  ]
  write(folder / 'data/test-00000-of-00001.parquet', rows, SIMPLEVQA)
  return folder


def mmsearch(folder: pathlib.Path, n: int = 6) -> pathlib.Path:
  """CaraJ/MMSearch: every third question is text alone."""
  rows = [
      {
          'sample_id': f'{i}',
          'query': f'Question {i}?',
          'query_image': {'bytes': picture(i), 'path': None} if i % 3 else None,
          'image_search_result': {'bytes': picture(100 + i), 'path': None},
          'area': 'news',
          'timestamp': '2024-08-01',
          'gt_answer': f'Answer {i}',
          'alternative_gt_answers': [f'form {i}', ''],
      }
      for i in range(n)
  ]
  write(folder / 'end2end.parquet', rows, MMSEARCH)
  write(
      folder / 'rerank.parquet',
      [{'sample_id': 'x'}],
      pa.schema([('sample_id', pa.string())]),
  )
  return folder


def livevqa(folder: pathlib.Path, n: int = 3) -> pathlib.Path:
  """liveVQA_benchmarks: three parts, two questions about each picture."""
  for part, place in (
      ('News', 'News_imgs'),
      ('Paper', 'Paper_images'),
      ('Video', 'Video_images'),
  ):
    rows = []
    for i in range(n):
      name = f'250{i}/x.png' if part == 'Paper' else f'{part}_{i}.png'
      path = folder / part / place / name
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_bytes(picture(i))
      rows.append({
          'id': f'{part}_{i}',
          'img_path': name,
          'source': 'CNN',
          'time': '2025-05',
          **{
              f'level{level}_qa': {
                  'question': f'Question {i}, {level}?',
                  'question_type': 'count',
                  'options': ['A. 1', 'B. 312,900', 'C. 3'],
                  'Ground_Truth': 'B',
                  'Ground_Truth_List': ['312,900', '312900'],
                  'img_path': name,
                  'img_url': '',
              }
              for level in (1, 2)
          },
      })
    (folder / part / 'benchmark.json').write_text(json.dumps(rows))
  # A copy among the images, as News has one.
  copy = (folder / 'News/benchmark.json').read_text()
  (folder / 'News/News_imgs/benchmark.json').write_text(copy)
  return folder


def dynvqa(
    folder: pathlib.Path, date: str = '202502', host: str = 'https://x.test'
) -> pathlib.Path:
  """OmniSearch's DynVQA_en, with the answers that it has."""
  answers = [
      ['莱昂纳多没有任何孩子。', 'He has no children.'],
      [['未知', 'unknown']],
      [0, '零', 'zero', 0],
      [2.5],
      None,
  ]
  rows = [
      {
          'image_url': f'{host}/images/image_{i}.jpeg',
          'question': f'Question {i}?',
          'question_id': f'en{i}',
          'answer': answer,
          'golden_query': 'q',
      }
      for i, answer in enumerate(answers)
  ]
  for language in ('en', 'zh'):
    path = folder / f'DynVQA_{language}/DynVQA_{language}.{date}.jsonl'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        ''.join(json.dumps(row, ensure_ascii=False) + '\n' for row in rows)
    )
  return folder


def infoseek_row(i: int, **changed) -> dict:
  row = {
      'data_id': f'infoseek_val_{i:08}',
      'image_id': f'oven_0{i % 3}00000{i}',
      'question': f'Question {i}?',
      'answer': [f'Answer {i}'],
      'answer_eval': [f'Answer {i}', f'form {i}'],
      'data_split': 'val_unseen_question',
  }
  return row | changed


def infoseek(folder: pathlib.Path, rows: list[dict]) -> pathlib.Path:
  """infoseek_val.jsonl, and OVEN's images in buckets or flat, by turns."""
  path = folder / 'infoseek_val.jsonl'
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  suffixes = ('.JPEG', '.jpg', '.png')
  for i, row in enumerate(rows):
    bucket = row['image_id'][5:7] if i % 2 == 0 else '.'
    place = folder / 'oven_images' / bucket
    place.mkdir(parents=True, exist_ok=True)
    (place / (row['image_id'] + suffixes[i % 3])).write_bytes(picture(i))
  return folder


def small_infoseek(folder: pathlib.Path) -> pathlib.Path:
  return infoseek(folder, [infoseek_row(i) for i in range(5)])


def local_dynvqa(folder: pathlib.Path) -> pathlib.Path:
  """With its images on this machine, in the folder `images`."""
  dynvqa(folder)
  for i in range(5):
    path = folder / f'images/image_{i}.jpeg'
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(picture(i, 'JPEG'))
  return folder


MAKERS = {
    'fvqa_test': fvqa,
    'infoseek': small_infoseek,
    'simplevqa': simplevqa,
    'mmsearch': mmsearch,
    'livevqa': livevqa,
    'dynvqa': local_dynvqa,
}
# What the fixtures hold that can be asked.
COUNTS = {
    'fvqa_test': 5,
    'infoseek': 5,
    'simplevqa': 2,
    'mmsearch': 4,
    'livevqa': 18,
    'dynvqa': 4,
}


def load(name: str, folder: pathlib.Path, **options) -> benchmarks.Benchmark:
  images = str(folder / 'images') if name == 'dynvqa' else ''
  return open_benchmark(name, str(folder), **{'images': images} | options)


def open_benchmark(
    name: str, path: str = '', *, workdir='', fetch=(), **fields
) -> benchmarks.Benchmark:
  values: dict[str, Any] = sections.benchmark().to_dict()
  values |= {'name': name, 'path': path, **fields}
  values['fetch'] |= dict(fetch)
  section = typed.read(BenchmarkConfig, values, 'config.benchmark')
  return benchmarks.open(section, workdir=workdir)


def with_images(found: Loaded[Question], scope: str = '') -> Loaded[Example]:
  """What a reader has found, as examples."""
  items = examples(found.items, source=found.name, scope=scope)
  return Loaded(name=found.name, items=items, drops=found.drops)


PNG_URI = (
    'data:image/png;base64,' + base64.b64encode(picture(0)).decode()
)


@contextlib.contextmanager
def server(answers):
  """Serves {path: (status, headers, body)} on the loopback.

  Yields its address and what it was asked for. Of a list, each request takes
  the next.
  """
  asked = []

  class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
      asked.append(self.path)
      found = answers.get(self.path, (404, {}, b''))
      status, headers, body = found.pop(0) if type(found) is list else found
      self.send_response(status)
      for name, value in headers.items():
        self.send_header(name, value)
      self.send_header('Content-Length', str(len(body)))
      self.end_headers()
      self.wfile.write(body)

    def log_message(self, *unused):
      pass

  httpd = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
  thread = threading.Thread(target=httpd.serve_forever, args=(0.02,))
  thread.start()
  try:
    yield f'http://127.0.0.1:{httpd.server_port}', asked
  finally:
    httpd.shutdown()
    thread.join()
    httpd.server_close()
