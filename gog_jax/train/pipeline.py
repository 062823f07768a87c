"""Grain pipelines: shuffled, endless, resumable to the item.

    items -> shuffle, an epoch at a time -> this host's share -> lists -> step

The order of the items hangs on the seed alone: neither on how many hosts share
it out nor on how many processes read it. Packing trajectories into rows is not
done here but by rollout/batching.py, the one packer there is: it works on one
step's list, so that a step's sum over its trajectories stays exact.
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
    host: int = 0,
    n_hosts: int = 1,
) -> grain.DatasetIterator:
  """Iterates over `items` for ever, in lists.

  Args:
    items: Random access, e.g. a list or a TFDS data source.
    batch_size: Items a list, those of all hosts together; epochs are not
      padded, a list may span two.
    seed: Of the shuffles, one an epoch; None keeps the items' order.
    transform: Applied to each list, in a thread that runs ahead of the step;
      where there are workers, in the step's own thread.
    workers: Processes that read items, which they are sent pickled; 0 is a
      thread of this one. They import the main module anew: it has to guard
      what it does with `if __name__ == '__main__'`.
    host: Which host this is, e.g. jax.process_index().
    n_hosts: How many share each list: each gets every n_hosts-th item of it.

  Returns:
    An iterator whose state Grain's Orbax handlers save and restore. It goes on
    with the very next list, and only with as many workers and hosts.

  Raises:
    UserError: The hosts do not divide a list.
  """
  if batch_size % n_hosts:
    raise UserError(
        f'{n_hosts} hosts cannot share batches of {batch_size} evenly; set '
        'batch_size to a multiple of the number of hosts'
    )
  dataset = grain.MapDataset.source(items)
  if seed is not None:
    dataset = dataset.seed(seed).shuffle()
  dataset = dataset.repeat(_EPOCHS)
  if n_hosts > 1:
    dataset = dataset[host::n_hosts]
  dataset = dataset.batch(batch_size // n_hosts, batch_fn=list)
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
  return _Checked(
      iter(lists), {'workers': workers, 'host': host, 'n_hosts': n_hosts}
  )


class _Checked(grain.DatasetIterator):
  """An iterator that refuses the state of one that is made otherwise.

  A state of Grain's own says where each worker stands; with another number of
  workers it may be taken without a word and go on with other items.
  """

  def __init__(self, inner: grain.DatasetIterator, made: dict[str, int]):
    super().__init__(inner)
    self._made = made

  def __next__(self) -> Any:
    return next(self._parent)

  def get_state(self) -> dict[str, Any]:
    return {'made': self._made, 'inner': self._parent.get_state()}

  def set_state(self, state: dict[str, Any]) -> None:
    """Goes on where `state` was taken.

    Raises:
      UserError: With other workers or hosts.
    """
    # Before there were workers, states were Grain's own.
    alone = {'workers': 0, 'host': 0, 'n_hosts': 1}
    made = state.get('made', alone)
    if made != self._made:
      raise UserError(
          f'the checkpoint was saved with {_words(made)}, now there are '
          f'{_words(self._made)}: its place in the data would be lost; start '
          f'with data_workers={made["workers"]} on {made["n_hosts"]} hosts, or '
          'with another --workdir'
      )
    self._parent.set_state(state['inner'] if 'made' in state else state)


def _words(made: dict[str, int]) -> str:
  return (
      f'{made["workers"]} data workers on host {made["host"]} of '
      f'{made["n_hosts"]}'
  )
