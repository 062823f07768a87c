"""The command line: flags, config, one call.

    python -m gog_jax.main --config=configs/rl.py [--config.FIELD=VALUE ...]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
import os
import pathlib
import platform
import runpy
import sys
from typing import Any

from absl import app
from absl import flags
from absl import logging
from etils import epath
from ml_collections import config_flags
from ml_collections import ConfigDict

from gog_jax import interrupt
from gog_jax.errors import nearest
from gog_jax.errors import UserError
from gog_jax.remote import secrets

_CONFIG = config_flags.DEFINE_config_file(
    'config', None, 'A page in configs/, e.g. configs/rl.py:toy.'
)
_WORKDIR = flags.DEFINE_string(
    'workdir',
    None,
    'Holds everything the run makes, local or gs://. '
    'Default: runs/ and the name of the profile.',
)
_DRY_RUN = flags.DEFINE_bool(
    'dry_run',
    False,
    'Say what an evaluation or a build of training data would take, at most.',
)

# Interrupt messages for stages that cannot resume.
_INTERRUPTED = {
    'ask': 'interrupted', 'check': 'interrupted', 'export': 'interrupted',
    'retrieve': 'stopped',
}  # fmt: skip
# What absl and ml_collections raise on what a user mistyped.
_FLAG_ERRORS = (
    flags.Error,
    AttributeError,
    KeyError,
    OSError,
    TypeError,
    ValueError,
)


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise UserError(f'unexpected argument {argv[1]!r}; flags start with --')
  if _CONFIG.value is None:
    from gog_jax.app import help

    print('\n'.join(help.pages(pathlib.Path('configs'))))
    raise UserError(
        'pass --config=configs/rl.py, or another page of configs/; with '
        '--help, too, to see what can be set'
    )
  config: Any = _CONFIG.value
  workdir = _WORKDIR.value or os.path.join('runs', config.profile)
  # Late, so that --help and a wrong flag answer at once.
  from gog_jax.app import commands
  from gog_jax.config import from_page

  given = config_flags.get_override_values(flags.FLAGS['config'])
  frozen = from_page(config, given)
  if _DRY_RUN.value:
    commands.dry_run(frozen, epath.Path(workdir))
  else:
    commands.do(frozen, epath.Path(workdir))


def parse_flags(argv: list[str]) -> list[str]:
  """Parses flags; what the user mistyped is a UserError.

  Raises:
    UserError: An unknown flag, config page or config field, or a value of the
      wrong type.
  """
  pages = _pages(argv)
  if len(pages) > 1:
    raise UserError(f'--config is given {len(pages)} times; give it once')
  for page in pages:
    path, _, _ = page.partition(':')
    if not os.path.isfile(path):
      raise UserError(f'config page {path!r} is no file; see configs/')
    if not path.endswith('.py'):
      raise UserError(f'config page {path} is no Python file; see configs/')
  try:
    if pages and '--help' in argv:
      from gog_jax.app import help

      print('\n'.join(help.fields(_read(*pages))))
      raise SystemExit
    return flags.FLAGS(argv)
  except _FLAG_ERRORS as error:
    raise UserError(_explain(error, argv, *pages)) from error


def _pages(argv: list[str]) -> list[str]:
  """What --config is given, PATH or PATH:VARIANT, each time."""
  parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
  parser.add_argument(
      '-config', '--config', action='append', nargs='?', const='', default=[]
  )
  return parser.parse_known_args(argv)[0].config


def _explain(error: Exception, argv: list[str], page: str = '') -> str:
  known = _fields(page)
  for arg in argv if known else ():
    prefix, _, field = arg.lstrip('-').partition('=')[0].partition('.')
    if prefix == 'config' and field and field not in known:
      near = nearest(field, known)
      return f'unknown config field {field!r}; the nearest is {near!r}'
  message = str(error.args[0] if isinstance(error, KeyError) else error)
  if 'Traceback' in message:  # A page that raised: its own words will do.
    message = message.strip().splitlines()[-1].partition(': ')[2]
  return message


def _read(page: str) -> ConfigDict:
  path, _, variant = page.partition(':')
  return runpy.run_path(path)['get_config'](*filter(None, [variant]))


def _fields(page: str) -> list[str]:
  """Dotted names of a config page's fields; empty if it cannot be read."""
  try:
    return list(_dotted(_read(page)))
  except Exception:
    return []  # The page itself is what is wrong; the first error says so.


def _dotted(config: ConfigDict, prefix: str = '') -> Iterator[str]:
  for key, value in config.items():
    yield prefix + key
    if isinstance(value, ConfigDict):
      yield from _dotted(value, f'{prefix}{key}.')


def run() -> None:
  """What `python -m gog_jax.main` calls."""
  interrupt.install()
  logging.set_verbosity(logging.WARNING)
  try:
    app.run(main, flags_parser=parse_flags)
  except UserError as error:
    sys.exit(_fail(f'gog_jax: {error}', 2))
  except BrokenPipeError:  # Its reader, as head, has seen enough.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
  except KeyboardInterrupt as error:
    stage = getattr(_CONFIG.value, 'stage', '')
    line = _INTERRUPTED.get(stage, 'interrupted; the same command continues')
    sys.exit(_fail(f'gog_jax: {line}', getattr(error, 'exit_code', 130)))


def _fail(line: str, code: int) -> int:
  print(' '.join(secrets.redact(line).split()), file=sys.stderr)
  return code


def _restart_on_huge_pages() -> None:
  """Has malloc ask for huge pages, where it is glibc's; it reads this once.

  On a CPU a step's scratch is hundreds of MB, given back after it and asked for
  again by the next: in pages of 4 KB, mapping and zeroing them costs a fifth
  of the time of the toy's training (docs/log.md).
  """
  if 'GLIBC_TUNABLES' in os.environ or platform.libc_ver()[0] != 'glibc':
    return
  os.environ['GLIBC_TUNABLES'] = 'glibc.malloc.hugetlb=1'
  os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


if __name__ == '__main__':
  _restart_on_huge_pages()
  run()
