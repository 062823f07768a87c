"""Failures of a disk, whichever library reports them.

A full disk is an OSError where Python writes, and words inside another error
where SQLite, Arrow, safetensors, TensorStore or Orbax's threads do.
"""

from __future__ import annotations

from collections.abc import Iterator
import errno
import os
import re
import shutil

from etils import epath

from gog_jax.errors import UserError

FULL = errno.ENOSPC, errno.EDQUOT
ADVICE = 'mend that or make room, and give the same command again'
# Not ENOENT: a missing file is a programmer's mistake as often as a disk's.
_ERRNOS = (
    *FULL, errno.EFBIG, errno.EROFS, errno.EACCES,
    errno.EPERM, errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENXIO,
    errno.ENOTCONN, errno.EHOSTDOWN,
)  # fmt: skip
_WORDS = re.compile(
    '|'.join([
        *(re.escape(os.strerror(number)) for number in _ERRNOS),
        'database or disk is full',
        'disk I/O error',
        'readonly database',
        'unable to open database file',
        r'\d+ requested and \d+ written',  # ndarray.tofile.
    ]),
    re.IGNORECASE,
)


def trouble(error: BaseException, workdir: epath.PathLike) -> str | None:
  """What a disk failed at, in a line; None if no disk is behind the error."""
  for cause in _causes(error):
    if isinstance(cause, FileNotFoundError) and not os.path.isdir(workdir):
      return f'{workdir} is there no more'  # Its disk was taken away.
    number = getattr(cause, 'errno', None)
    if isinstance(cause, OSError) and number in _ERRNOS:
      path = cause.filename2 or cause.filename
      reason = os.strerror(number)
      return f'{path}: {reason}' if path else reason
    if number is None and (found := _WORDS.search(str(cause))):
      return found.group()
  return None


def check_room(folder: epath.PathLike, n_bytes: int) -> None:
  """Checks that a local disk has room, for writers that fail untidily.

  Raises:
    UserError: It has less than `n_bytes`.
  """
  if '://' in str(folder):
    return
  there = epath.Path(folder)
  while not there.exists():
    there = there.parent
  free = shutil.disk_usage(there).free
  if free < n_bytes:
    raise UserError(
        f'{folder} needs {n_bytes / 1e6:,.1f} MB, and its disk has '
        f'{free / 1e6:,.1f} MB left: {ADVICE}'
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
  """The error, what it holds, and what led to it."""
  waiting, seen = [error], set()
  while waiting:
    cause = waiting.pop(0)
    if id(cause) in seen:
      continue
    seen.add(id(cause))
    yield cause
    if isinstance(cause, BaseExceptionGroup):
      waiting.extend(cause.exceptions)
    waiting.extend(filter(None, [cause.__cause__, cause.__context__]))
