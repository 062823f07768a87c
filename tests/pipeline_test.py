"""Grain: shuffled by the seed alone, resumed to the item."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from gog_jax.errors import UserError
from gog_jax.storage import checkpoint
from gog_jax.train.pipeline import endless_batches

ITEMS = [f'item {i}' for i in range(23)]


def lists(n=8, **options):
  """The first `n` lists of 6 of them."""
  iterator = endless_batches(ITEMS, batch_size=6, seed=5, **options)
  try:
    return list(itertools.islice(iterator, n))
  finally:
    iterator.close()


def test_an_epoch_holds_each_item_once_and_the_next_is_shuffled_anew():
  drawn = list(itertools.chain(*lists(8)))
  first, second = drawn[:23], drawn[23:46]
  assert sorted(first) == sorted(second) == sorted(ITEMS)
  assert first != second != ITEMS


def saved_by(tmp_path, iterator):
  with checkpoint.Checkpointer(tmp_path, every=1, keep=1) as saver:
    saver.save(1, {'x': np.zeros(2)}, iterator)


def test_a_thread_resumes_exactly_through_a_checkpoint(tmp_path):
  iterator = endless_batches(ITEMS, batch_size=6, seed=5)
  list(itertools.islice(iterator, 3))
  saved_by(tmp_path, iterator)
  fresh = endless_batches(ITEMS, batch_size=6, seed=5)
  with checkpoint.Checkpointer(tmp_path, every=1, keep=1) as saver:
    saver.restore({'x': np.zeros(2)}, fresh)
  assert list(itertools.islice(fresh, 5)) == lists(8)[3:]


def test_a_checkpoint_of_other_workers_or_processes_is_refused(tmp_path):
  iterator = endless_batches(ITEMS, batch_size=6, seed=5)
  next(iterator)
  saved_by(tmp_path, iterator)
  fresh = endless_batches(ITEMS, batch_size=6, seed=5, workers=2)
  with checkpoint.Checkpointer(tmp_path, every=1, keep=1) as saver:
    with pytest.raises(UserError, match='start with data_workers=0'):
      saver.restore({'x': np.zeros(2)}, fresh)
  fresh.close()
  data = tmp_path / '1' / 'data'
  (data / 'process_0-of-1.json').rename(data / 'process_0-of-2.json')
  with checkpoint.Checkpointer(tmp_path, every=1, keep=1) as saver:
    with pytest.raises(UserError, match='saved by 2 processes, now there are'):
      saver.restore({'x': np.zeros(2)}, iterator)


def test_a_state_from_before_there_were_workers_still_counts():
  iterator = endless_batches(ITEMS, batch_size=6, seed=5)
  iterator.set_state({'next_index': 3})  # Grain's own.
  assert list(itertools.islice(iterator, 5)) == lists(8)[3:]
