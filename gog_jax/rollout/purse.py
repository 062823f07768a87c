"""What a run has spent on a remote model, and the cap on it.

    FILE    one message a line, {"price": 0.001, "time": .., "tokens": [9, 2]}

What a message costs is known when it is there, so messages that are under way
while the cap is reached are still paid for: as many as are asked for at once.
Processes that share the file share the cap.
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

_MILLION = 1e6


class Purse:
  """Counts dollars over all the starts of a run."""

  def __init__(
      self,
      path: epath.PathLike,
      *,
      price_in: float,
      price_out: float,
      cap: float,
  ):
    """Reads nothing yet.

    Args:
      path: On a local disk; made with the first message.
      price_in: US dollars for a million tokens that the model reads.
      price_out: For a million that it writes.
      cap: In US dollars.

    Raises:
      UserError: The file is in a bucket.
    """
    self._path = os.fspath(path)
    if '://' in self._path:
      raise UserError(
          f'what messages cost cannot be written down in {path}: choose a file '
          'on a local disk with --config.remote.ledger=FILE'
      )
    self._prices = (price_in, price_out)
    self._cap = cap
    self._read_to = 0  # Bytes of the file.
    self.spent = 0.0

  def check(self) -> None:
    """Before a message is asked for.

    Raises:
      RunStopped: The cap is reached, or the file cannot be read.
    """
    self._catch_up()
    if self.spent >= self._cap:
      raise RunStopped(
          f'the remote model has cost ${self.spent:.4f}, which is all of '
          f'--config.remote.max_spend={self._cap:g}: raise it to go on; what '
          'is finished is kept'
      )

  def charge(self, prompt_tokens: int, completion_tokens: int) -> float:
    """Writes down what a message cost, and returns it in US dollars.

    Raises:
      RunStopped: It cannot be written down.
    """
    tokens = (prompt_tokens, completion_tokens)
    price = sum(p * n for p, n in zip(self._prices, tokens)) / _MILLION
    time = datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')
    row = {'price': price, 'time': time, 'tokens': tokens}
    try:
      files.append_line(self._path, files.dumps(row))
    except UserError as error:  # A full disk is no failure of the model.
      raise RunStopped(str(error)) from error
    return price

  def _catch_up(self) -> None:
    """Counts what has been written since, by whomever."""
    if not os.path.exists(self._path):
      return
    try:
      with open(self._path, 'rb') as f:
        f.seek(self._read_to)
        *lines, tail = f.read().split(b'\n')
        self._read_to = f.tell() - len(tail)
    except OSError as error:
      raise RunStopped(f'cannot read {self._path}: {error.strerror}') from error
    for line in lines:
      self.spent += self._price(line)

  def _price(self, line: bytes) -> float:
    try:
      price = json.loads(line)['price']
      if math.isfinite(price):
        return price
    except (ValueError, TypeError, KeyError):
      pass
    if not line.endswith(b'}'):
      return 0.0  # Cut off by a kill.
    raise RunStopped(
        f'{self._path} has a damaged line, {line[:40]!r}: mend or delete it; '
        'the file counts what was spent'
    )
