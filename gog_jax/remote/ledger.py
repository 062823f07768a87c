"""What a run has spent on searches, a remote model or a judge, and its cap.

    FILE    one charge a line, {"price": 0.001, "time": .., "tool": ..}

Processes that share a file share its cap: each reads what the others have
written before it spends. A price that is known is written down before the
request is sent, so that no kill forgets one and the cap is never passed; where
the request is turned away, another line takes it back. A price that only the
reply tells is written down then: requests that are under way when the cap is
reached are still paid for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
import dataclasses
import datetime
import json
import os
from typing import Any

from etils import epath
import filelock

from gog_jax.errors import RunStopped
from gog_jax.errors import UserError
from gog_jax.storage import files
from gog_jax.storage import typed


def dollars(prices: Any, tokens_in: float, tokens_out: float) -> float:
  """US dollars for tokens, at a section's price_in and price_out a million."""
  return (prices.price_in * tokens_in + prices.price_out * tokens_out) / 1e6


@dataclasses.dataclass
class Charge:
  """What a request costs, in US dollars: as estimated, until it is known."""

  price: typed.Finite


@contextlib.contextmanager
def charged(
    ledger: Ledger | None,
    name: str,
    price: float | None,
    spend: Callable[[float], None],
) -> Iterator[Charge]:
  """Charges for the request that is made inside.

  A price that is known is written down before the request is sent. At the end
  it is corrected to the charge's `price`, or to nothing after an error whose
  `billed` is False.

  Args:
    ledger: None where nothing costs.
    name: What is asked for.
    price: US dollars, at most; None where only the reply tells.
    spend: Told of each change.

  Raises:
    RunStopped: As `Ledger.charge`.
  """
  charge = Charge(price or 0.0)
  if ledger is None or price == 0:
    yield charge
    return
  ledger.charge(name, price)
  written = charge.price
  spend(written)
  try:
    yield charge
  except Exception as error:
    if not getattr(error, 'billed', True):
      charge.price = 0.0
    raise
  finally:
    if charge.price != written:
      ledger.charge(name, charge.price - written, capped=False)
      spend(charge.price - written)


class Ledger:
  """Counts dollars over all the starts of a run.

  Attributes:
    spent: US dollars, as far as this process has looked.
  """

  def __init__(
      self, path: epath.PathLike, *, cap: float, section: str = 'tools'
  ):
    """Reads what has been spent.

    Args:
      path: On a local disk; made with the first charge.
      cap: In US dollars.
      section: Of the config, where path and cap are set.

    Raises:
      UserError: The file cannot be read or is damaged, or is in a bucket.
    """
    self._path = os.fspath(path)
    self._cap = cap
    self._section = section
    if '://' in self._path:
      raise UserError(
          f'what is spent cannot be written down in {path}: choose a file on a '
          f'local disk with --config.{section}.ledger=FILE'
      )
    self.spent = 0.0
    self._read_to = 0  # Bytes of the file,
    self._n_lines = 0  # and lines.
    self._lock = filelock.FileLock(self._path + '.lock')
    self._catch_up()

  def charge(
      self, name: str, price: float | None, *, capped: bool = True
  ) -> None:
    """Writes down what a request is going to cost, or has cost.

    Args:
      name: What is asked for: a tool's name, a message.
      price: US dollars; None where it is not known yet, negative for a refund.
      capped: False for what has been spent, whatever the cap.

    Raises:
      RunStopped: It would pass the cap, or cannot be written down.
    """
    with self._alone():
      if price is None:
        fits, what = self.spent < self._cap, name
      else:  # A hair above, for sums like 0.1 + 0.2.
        fits = self.spent + price <= self._cap * (1 + 1e-9)
        what = f'{name} at ${price:g}'
      if capped and not fits:
        raise RunStopped(
            f'calls of config.{self._section} have cost ${self.spent:.4f}; '
            f'{what} would pass --config.{self._section}.max_spend='
            f'{self._cap:g}: raise it to go on; what stages have made is kept, '
            'and so is what a cache or a recording holds'
        )
      if price:
        time = datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')
        row = {'price': price, 'time': time, 'tool': name}
        files.append_line(self._path, files.dumps(row))
        self._catch_up()

  @contextlib.contextmanager
  def _alone(self) -> Iterator[None]:
    """Locks the file, having counted what other processes wrote."""
    try:
      with files.writable(self._path, 'mend it and run the same command'):
        os.makedirs(os.path.dirname(self._path) or '.', exist_ok=True)
        with self._lock:
          self._catch_up()
          yield
    except RunStopped:
      raise
    except UserError as error:  # A full disk is no failure of the search.
      raise RunStopped(str(error)) from error

  def _catch_up(self) -> None:
    """Counts the lines that were added since the last look."""
    if not os.path.exists(self._path):
      return
    with files.readable(self._path), open(self._path, 'rb') as f:
      f.seek(self._read_to)
      *lines, tail = f.read().split(b'\n')  # A kill cut the tail off.
    for line in lines:
      self._n_lines += 1
      self.spent += self._price(line)
      self._read_to += len(line) + 1

  def _price(self, line: bytes) -> float:
    try:
      return typed.read(Charge, json.loads(line), ignore_unknown=True).price
    except (ValueError, RecursionError) as error:
      if not line.endswith(b'}'):
        return 0.0  # Cut off by a kill, before its request was sent.
      raise UserError(
          f'{self._path}, line {self._n_lines}, is damaged: mend or delete '
          'that line; it counts what was spent'
      ) from error
