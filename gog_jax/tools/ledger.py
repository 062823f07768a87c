"""What a run has spent on searches or on a judge, and the cap on it.

    FILE    one charge a line, {"price": 0.001, "time": .., "tool": ..}

Charges are written before a request is sent, so that no kill forgets one;
those of requests that were turned away are taken back by a line of their own.
"""

from __future__ import annotations

import datetime
import json
import math
import os

from etils import epath

from gog_jax import files
from gog_jax.errors import UserError
from gog_jax.tools.base import RunStopped


class Ledger:
  """Counts dollars over all the starts of a run. One process at a time."""

  def __init__(
      self,
      path: epath.PathLike,
      *,
      cap: float,
      what: str = 'searches',
      section: str = 'tools',
  ):
    """Reads what earlier starts have spent.

    Args:
      path: On a local disk; made with the first charge.
      cap: In US dollars.
      what: Is paid for, in messages.
      section: Of the config, that sets path and cap.

    Raises:
      UserError: The file cannot be read or is damaged, or another process
        spends by it.
    """
    self._path = os.fspath(path)
    self._cap = cap
    self._what, self._section = what, section
    flag = f'--config.{section}.ledger'
    if '://' in self._path:
      raise UserError(
          f'what {what} cost cannot be written down in {path}: choose a file '
          f'on a local disk with {flag}=FILE'
      )
    self._lock = files.lock(
        self._path + '.lock',
        taken=f'another process spends by this ledger, {path}: wait until it '
        f'is done, or choose another {flag}',
        unwritable=f'choose a file on a local disk with {flag}',
    )
    self.spent = 0.0
    try:
      data = b''
      if os.path.exists(self._path):
        with open(self._path, 'rb') as f:
          data = f.read()
    except OSError as error:
      raise UserError(f'cannot read {path}: {error.strerror}') from error
    *lines, unused_tail = data.split(b'\n')  # A kill cut the tail off.
    for number, line in enumerate(lines, start=1):
      self.spent += self._price(line, number)

  def charge(self, tool: str, price: float) -> None:
    """Writes down what a request is going to cost.

    Raises:
      RunStopped: It would pass the cap, or cannot be written down.
    """
    # A hair above, for sums like 0.1 + 0.2.
    if not self.spent + price <= self._cap * (1 + 1e-9):
      raise RunStopped(
          f'{self._what} have cost ${self.spent:.4f}; {tool} at ${price:g} '
          f'would pass --config.{self._section}.max_spend={self._cap:g}: raise '
          'it to go on; what stages have made is kept, and so is what a cache '
          'or a recording holds'
      )
    self._write(tool, price)

  def close(self) -> None:
    """Lets another process spend by it."""
    self._lock.release()

  def take_back(self, tool: str, price: float) -> None:
    """Of a request that was turned away.

    Raises:
      RunStopped: It cannot be written down.
    """
    self._write(tool, -price)

  def _write(self, tool: str, price: float) -> None:
    time = datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')
    line = files.dumps({'price': price, 'time': time, 'tool': tool})
    try:
      files.append_line(self._path, line)
    except UserError as error:  # A full disk is no failure of the search.
      raise RunStopped(str(error)) from error
    self.spent += price

  def _price(self, line: bytes, number: int) -> float:
    try:
      price = json.loads(line)['price']
      if math.isfinite(price):
        return price
    except (ValueError, TypeError, KeyError):
      pass
    if not line.endswith(b'}'):
      return 0.0  # Cut off by a kill, before its request was sent.
    raise UserError(
        f'{self._path}, line {number}, is damaged: mend or delete that line; '
        'it counts what was spent'
    )
