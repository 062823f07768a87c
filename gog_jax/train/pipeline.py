"""Grain pipelines: shuffled, endless, resumable to the item.

    items -> shuffle, an epoch at a time -> lists -> step

The order of the items depends on the seed alone, not on how many processes
read it. Trajectories are packed into rows by rollout/batching.py: it works on
one step's list, so that a step's sum over its trajectories stays exact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from absl import flags
import grain

from gog_jax.errors import UserError

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
    workers: int = 0,
) -> grain.DatasetIterator:
  """Iterates over `items` for ever, in lists.

  Args:
    items: Random access, e.g. a list or a TFDS data source.
    batch_size: Items a list; epochs are not padded, a list may span two.
    seed: Seeds a shuffle per epoch; None keeps the items' order.
    transform: Applied to each list, in a thread that runs ahead of the step;
      where there are workers, in the step's own thread.
    workers: Processes that read items, which they are sent pickled; 0 is a
      thread of this one. They import the main module anew: it has to guard
      what it does with `if __name__ == '__main__'`.

  Returns:
    An iterator whose state Grain's Orbax handlers save and restore. It goes on
    with the very next list, and only with as many workers.
  """
  dataset = grain.MapDataset.source(items)
  if seed is not None:
    dataset = dataset.seed(seed).shuffle()
  dataset = dataset.repeat(_EPOCHS).batch(batch_size, batch_fn=list)
  if not workers:
    dataset = dataset.map(transform)
  lists = dataset.to_iter_dataset(
      grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
  )
  if workers:
    if not flags.FLAGS.is_parsed():  # Grain has flags, and reads them.
      flags.FLAGS.mark_as_parsed()
    lists = lists.mp_prefetch(
        grain.MultiprocessingOptions(
            num_workers=workers, per_worker_buffer_size=2
        )
    ).map(transform)
  return _Checked(iter(lists), workers)


class _Checked(grain.DatasetIterator):
  """An iterator that refuses the state of one with other workers.

  A state of Grain's own says where each worker stands; with another number of
  workers it may be taken without a word and go on with other items.
  """

  def __init__(self, inner: grain.DatasetIterator, workers: int):
    super().__init__(inner)
    self._made = {'workers': workers}

  def __next__(self) -> Any:
    return next(self._parent)

  def get_state(self) -> dict[str, Any]:
    return {'made': self._made, 'inner': self._parent.get_state()}

  def set_state(self, state: dict[str, Any]) -> None:
    """Goes on where `state` was taken.

    Raises:
      UserError: With other workers.
    """
    # Before there were workers, states were Grain's own.
    workers = state.get('made', {'workers': 0})['workers']
    if workers != self._made['workers']:
      raise UserError(
          f'the checkpoint was saved with {workers} data workers, now there '
          f'are {self._made["workers"]}: its place in the data would be lost; '
          f'start with data_workers={workers}, or with another --workdir'
      )
    self._parent.set_state(state['inner'] if 'made' in state else state)
