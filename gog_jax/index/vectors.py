"""Nearest neighbours by FAISS: exact for few vectors, approximate for many.

Training draws its sample and its first centroids by fixed seeds: equal vectors
give equal files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
import dataclasses
import math
import os
import pathlib

import faiss
import numpy as np

# More threads slow small searches down.
_MAX_THREADS = 4
_SEED = 17
# Training vectors for each centroid.
_PER_CENTROID = 48
_MAX_CENTROIDS = 1024
# Vectors of one list, unless there are many in all.
_PER_LIST = 256
_BLOCK = 65536

Blocks = Callable[[], Iterable[np.ndarray]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
  """How vectors are searched.

  Attributes:
    flat_limit: Up to this many vectors, search is exact.
    code: How FAISS compresses a larger number, e.g. 'SQ8'.
    n_probe: How many inverted lists a search then visits.
  """

  flat_limit: int
  code: str
  n_probe: int


def build(path: pathlib.Path, blocks: Blocks, settings: Settings) -> None:
  """Writes an index of all vectors, numbered in order, by L2 distance.

  Args:
    path: The file to write.
    blocks: Called as often as needed, yields [n, width] arrays.
    settings: How they are searched.
  """
  _use_threads()
  sizes = [block.shape for block in blocks()]
  n, width = sum(n for n, _ in sizes), sizes[0][1]
  if n <= settings.flat_limit:
    index = faiss.IndexFlatL2(width)
  else:
    n_lists = 2 ** max(0, int(math.log2(n / _PER_LIST)))
    n_lists = min(_MAX_CENTROIDS, n_lists)
    index = faiss.index_factory(width, f'IVF{n_lists},{settings.code}')
    lists = faiss.extract_index_ivf(index)
    lists.nprobe = settings.n_probe
    lists.cp.seed = _SEED
    lists.cp.max_points_per_centroid = _PER_CENTROID
    index.train(_sample(blocks, n, n_lists * _PER_CENTROID))
  for block in _gathered(blocks()):
    index.add(block)
  faiss.write_index(index, str(path))


def _sample(blocks: Blocks, n: int, wanted: int) -> np.ndarray:
  """float32 vectors drawn from all, at most `wanted`."""
  random = np.random.default_rng(_SEED)
  chosen = np.zeros(n, bool)
  chosen[random.permutation(n)[:wanted]] = True
  parts, start = [], 0
  for block in blocks():
    parts.append(block[chosen[start : start + len(block)]])
    start += len(block)
  return np.concatenate(parts).astype(np.float32)


def _gathered(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
  """The same vectors, as float32, in larger blocks."""
  waiting, n = [], 0
  for block in blocks:
    waiting.append(block)
    n += len(block)
    if n >= _BLOCK:
      yield np.concatenate(waiting).astype(np.float32)
      waiting, n = [], 0
  if n:
    yield np.concatenate(waiting).astype(np.float32)


def load(path: pathlib.Path) -> faiss.Index:
  """Opens what `build` wrote."""
  return faiss.read_index(str(path))


def search(
    index: faiss.Index, queries: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
  """Squared distances float32[n, k] and numbers int64[n, k]; -1 where none."""
  _use_threads()
  return index.search(queries.astype(np.float32), min(k, index.ntotal))


def _use_threads() -> None:
  """Sets how many threads FAISS uses in the calling thread."""
  faiss.omp_set_num_threads(min(_MAX_THREADS, os.cpu_count() or 1))
