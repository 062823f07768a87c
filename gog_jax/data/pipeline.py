"""Grain pipelines: shuffled, endless, resumable to the item."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import grain

T = TypeVar('T')
# For ever: Grain's own endless repetition has no length that batches of one
# item could have.
_EPOCHS = 2**31


def endless_batches(
    items: Sequence[T],
    *,
    batch_size: int,
    seed: int | None,
    transform: Callable[[list[T]], Any] = lambda batch: batch,
) -> grain.DatasetIterator:
  """Iterates over `items` for ever, in lists.

  Args:
    items: Random access, e.g. a list or a TFDS data source.
    batch_size: Items a list; epochs are not padded, a list may span two.
    seed: Of the shuffles, one an epoch; None keeps the items' order.
    transform: Applied to each list, in a thread that runs ahead of the step.

  Returns:
    An iterator whose state Grain's Orbax handlers save and restore.
  """
  dataset = grain.MapDataset.source(items)
  if seed is not None:
    dataset = dataset.seed(seed).shuffle()
  return iter(
      dataset
      .repeat(_EPOCHS)
      .batch(batch_size, batch_fn=list)
      .map(transform)
      .to_iter_dataset(
          grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
      )
  )
