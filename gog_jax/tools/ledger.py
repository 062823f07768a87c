"""What a run has spent on searches, and the cap on it.

    FILE    one charge a line, {"price": 0.001, "time": .., "tool": ..}

Charges are written before a request is sent, so that no kill forgets one;
those of requests that were turned away are taken back by a line of their own.
"""

from __future__ import annotations

import datetime
import json

from etils import epath

from gog_jax import files
from gog_jax.errors import UserError
from gog_jax.tools.base import RunStopped


class Ledger:
  """Counts dollars over all the starts of a run."""

  def __init__(self, path: epath.PathLike, *, cap: float):
    """Reads what earlier starts have spent.

    Args:
      path: Made with the first charge.
      cap: In US dollars.

    Raises:
      UserError: The file cannot be read.
    """
    self._path = epath.Path(path)
    self._cap = cap
    self.spent = 0.0
    try:
      lines = self._path.read_text().splitlines() if self._path.exists() else ()
    except (OSError, ValueError) as error:
      raise UserError(f'cannot read {self._path}: {error}') from error
    for line in lines:
      try:
        self.spent += json.loads(line)['price']
      except (ValueError, TypeError, KeyError):
        continue  # Cut off by a kill, before its request was sent.

  def charge(self, tool: str, price: float) -> None:
    """Writes down what a request is going to cost.

    Raises:
      RunStopped: It would pass the cap.
    """
    # A hair above, for sums like 0.1 + 0.2.
    if self.spent + price > self._cap * (1 + 1e-9):
      raise RunStopped(
          f'searches have cost ${self.spent:.4f}; a {tool} at ${price:g} would '
          f'pass --config.tools.max_spend={self._cap:g}: raise it to go on; '
          'what was found and made so far is kept'
      )
    self._write(tool, price)

  def take_back(self, tool: str, price: float) -> None:
    """Of a request that was turned away."""
    self._write(tool, -price)

  def _write(self, tool: str, price: float) -> None:
    self.spent += price
    time = datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')
    line = files.dumps({'price': price, 'time': time, 'tool': tool})
    files.append_line(self._path, line)
