"""How often the local index finds the right photograph, and how fast it is.

    python scripts/bench_index.py accuracy [--seed=1] [--distractors=2000] \
      [--queries=300]
    python scripts/bench_index.py scale [--images=10000] [--passages=100000]

accuracy: the photographs that scikit-image and scikit-learn bundle, among
pictures made from these very photographs; queries are photographs that were
scaled, recompressed, turned, moved, or cut out of a composite. scale: pictures
and passages by the thousand, built by the command a user runs.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Iterator
import json
import os
import pathlib
import sys
import tempfile
import time

import index_pictures
import numpy as np

from gog_jax.index.backend import LocalIndex
from gog_jax.index.build import build

ROOT = pathlib.Path(__file__).parents[1]


def accuracy(
    folder: pathlib.Path,
    *,
    n_distractors: int,
    n_queries: int,
    seed: int,
    max_side: int | None = None,
    kinds: Collection[str] = tuple(index_pictures.KINDS),
) -> dict[str, float]:
  """Prints and returns the share of top-1 answers that are right, by kind.

  Args:
    folder: Where pictures and index go.
    n_distractors: Pictures beside the photographs.
    n_queries: Of each kind.
    seed: Of distractors and queries.
    max_side: Of the photographs, in pixels; None: as they are.
    kinds: Of queries.
  """
  photos = index_pictures.photographs(max_side)
  print(f'{len(photos)} photographs: {", ".join(photos)}')
  images = folder / 'images'
  images.mkdir(parents=True)
  for name, photo in photos.items():
    (images / f'{name}.png').write_bytes(index_pictures.png(photo))
  random = np.random.default_rng([seed, 0])
  for name, data in index_pictures.distractors(photos, n_distractors, random):
    (images / f'{name}.jpg').write_bytes(data)
  print(build(str(folder / 'index'), images=str(images)))
  index = LocalIndex(str(folder / 'index'))
  rates = {}
  for i, (kind, make) in enumerate(index_pictures.KINDS.items()):
    if kind not in kinds:
      continue
    random = np.random.default_rng([seed, 1, i])
    # Each photograph is asked for equally often, as far as that is possible.
    order = random.permutation(sorted(photos))
    asked = [str(order[n % len(photos)]) for n in range(n_queries)]
    queries = [make(photos, name, random) for name in asked]
    first, seconds, wrong = [], [], []
    for name, data in zip(asked, queries, strict=True):
      start = time.perf_counter()
      found = [picture['id'] for picture, _ in index.image(data, 5)]
      seconds.append(time.perf_counter() - start)
      first.append(found[:1] == [f'{name}.png'])
      if not first[-1]:
        wrong.append(f'{name}: {found[:1]}')
    rates[kind] = float(np.mean(first))
    print(
        f'{kind:<20} n {n_queries}, top-1 {rates[kind]:.3f}, {_ms(seconds)}'
    )
    if kind != 'whole composite':
      for line in wrong[:20]:
        print(f'  missed {line}')
  return rates


def scale(folder: pathlib.Path, *, n_images: int, n_passages: int, seed: int):
  """Prints build rates, memory, sizes and latencies."""
  photos = index_pictures.photographs()
  folder.mkdir(parents=True, exist_ok=True)
  images, docs = folder / 'images', folder / 'corpus.jsonl'
  random = np.random.default_rng([seed, 2])
  vocabulary = _vocabulary(random, 60_000)
  with docs.open('w') as f:
    for row in _passages(vocabulary, n_passages, random):
      f.write(json.dumps(row) + '\n')
  images.mkdir(exist_ok=True)
  for i in range(n_images):
    path = images / f'{i:06d}.jpg'
    path.write_bytes(index_pictures.jpeg(index_pictures.scene(photos, random)))
  texts, index = folder / 'texts', folder / 'index'
  seconds, rss = _run(f'--config.docs={docs}', f'--config.index={texts}')
  print(
      f'{n_passages} passages: {seconds:.0f} s, {n_passages / seconds:.0f} a '
      f'second, peak {rss:.0f} MB, {_megabytes(texts):.0f} MB on disk'
  )
  opened = LocalIndex(str(texts))
  words = [' '.join(_some(vocabulary, 8, random)) for _ in range(200)]
  print(f'text queries: {_ms(_timed(lambda q: opened.text(q, 10), words))}')
  flags = f'--config.images={images}', f'--config.index={index}'
  seconds, rss = _run(*flags)
  print(
      f'{n_images} images: {seconds:.0f} s, {n_images / seconds:.1f} a second, '
      f'peak {rss:.0f} MB, {_megabytes(index):.0f} MB on disk'
  )
  seconds, _ = _run(*flags)
  print(f'nothing changed: {seconds:.0f} s')
  start = time.perf_counter()
  opened = LocalIndex(str(index))
  print(f'images opened in {time.perf_counter() - start:.1f} s')
  names = sorted(images.iterdir())
  queries = [
      index_pictures.rescaled(names[random.integers(len(names))], random)
      for _ in range(100)
  ]
  found = [opened.image(data, 5)[0][0]['id'] for data, _ in queries]
  right = np.mean([f == name for f, (_, name) in zip(found, queries)])
  data = [query for query, _ in queries]
  seconds = _timed(lambda q: opened.image(q, 10), data)
  print(
      f'image queries: {_ms(seconds)}, n {len(queries)}, top-1 {right:.3f}, '
      f'{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}'
  )


def _megabytes(folder: pathlib.Path) -> float:
  files = [path for path in folder.rglob('*') if path.is_file()]
  return sum(path.stat().st_size for path in files) / 2**20


def _run(*flags: str) -> tuple[float, float]:
  """Seconds and peak megabytes of configs/index.py, run as a user would."""
  start = time.perf_counter()
  process = os.posix_spawn(
      sys.executable,
      [sys.executable, '-m', 'gog_jax.main', '--config=configs/index.py']
      + list(flags),
      {**os.environ, 'PYTHONPATH': str(ROOT)},
  )
  _, status, usage = os.wait4(process, 0)
  if status:
    raise RuntimeError(f'the build ended with status {status}')
  return time.perf_counter() - start, usage.ru_maxrss / 1024


def _vocabulary(random: np.random.Generator, n: int) -> list[str]:
  letters = 'abcdefghijklmnopqrstuvwxyz'
  sizes = random.integers(3, 10, size=n)
  return [
      ''.join(letters[i] for i in random.integers(26, size=size))
      for size in sizes
  ]


def _some(words: list[str], n: int, random: np.random.Generator) -> list[str]:
  """Words as often as language has them: the second half as often, ..."""
  ranks = np.minimum(random.zipf(1.15, n), len(words)) - 1
  return [words[rank] for rank in ranks]


def _passages(words, n: int, random) -> Iterator[dict[str, str]]:
  for i in range(n):
    title, text = _some(words, 3, random), _some(words, 100, random)
    yield {'id': str(i), 'contents': f'"{" ".join(title)}"\n{" ".join(text)}'}


def _timed(call: Callable, arguments) -> list[float]:
  seconds = []
  for argument in arguments:
    start = time.perf_counter()
    call(argument)
    seconds.append(time.perf_counter() - start)
  return seconds


def _ms(seconds: list[float]) -> str:
  p50, p95 = np.percentile(seconds, [50, 95]) * 1000
  return f'p50 {p50:.0f} ms, p95 {p95:.0f} ms'


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('what', choices=('accuracy', 'scale'))
  parser.add_argument('--distractors', type=int, default=2000)
  parser.add_argument('--queries', type=int, default=300)
  parser.add_argument('--images', type=int, default=10_000)
  parser.add_argument('--passages', type=int, default=100_000)
  parser.add_argument('--seed', type=int, default=1)
  args = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    if args.what == 'accuracy':
      accuracy(
          pathlib.Path(folder),
          n_distractors=args.distractors,
          n_queries=args.queries,
          seed=args.seed,
      )
    else:
      scale(
          pathlib.Path(folder),
          n_images=args.images,
          n_passages=args.passages,
          seed=args.seed,
      )


if __name__ == '__main__':
  main()
