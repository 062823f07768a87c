"""The command line: flags, config, one call.

    python -m gog_jax.main --config=configs/rl.py [--config.FIELD=VALUE ...]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
import inspect
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
from gog_jax.storage import disk
from gog_jax.storage import heartbeat

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
    'Say what the page would take, stage by stage, and make nothing.',
)

# Interrupt messages for stages that cannot resume.
_INTERRUPTED = {
    'ask': 'interrupted', 'check': 'interrupted', 'export': 'interrupted',
    'retrieve': 'stopped',
}  # fmt: skip
# Flags that are looked for before absl parses them all.
_LOOKED_FOR: dict[str, dict[str, Any]] = {
    'config': {'action': 'append', 'const': '', 'default': []},
    'workdir': {'const': ''},
}
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
  workdir = _workdir(_WORKDIR.value, config)
  # Late, so that --help and a wrong flag answer at once.
  from gog_jax.config import from_page

  given = config_flags.get_override_values(flags.FLAGS['config'])
  frozen = from_page(config, given)
  with heartbeat.beating():
    from gog_jax.app import commands
    from gog_jax.app import dry_run

    do = dry_run.dry_run if _DRY_RUN.value else commands.do
    heartbeat.tell_compiles(f'{frozen.stage}:{frozen.profile}')
    with heartbeat.doing(frozen.stage):
      do(frozen, epath.Path(workdir))


def parse_flags(argv: list[str]) -> list[str]:
  """Parses flags; what the user mistyped is a UserError.

  Raises:
    UserError: An unknown flag, config page or config field, or a value of the
      wrong type.
  """
  parsed, _ = _parsed(argv)
  pages = parsed.config
  if parsed.workdir == '':
    raise UserError('--workdir is empty: pass --workdir=FOLDER or leave it out')
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
    # ml_collections looks for its flags in sys.argv.
    sys.argv = argv = _with_remembered(argv, *pages)
    return flags.FLAGS(argv)
  except _FLAG_ERRORS as error:
    raise UserError(_explain(error, argv, *pages)) from error


def _parsed(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
  """What --config is given, each time, and --workdir; and all the rest."""
  parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
  for name, options in _LOOKED_FOR.items():
    parser.add_argument(f'-{name}', f'--{name}', nargs='?', **options)
  return parser.parse_known_args(argv)


def _with_remembered(argv: list[str], page: str = '') -> list[str]:
  """The arguments, with what the workdir remembers: config/settings.py.

  Raises:
    UserError: Its file is damaged, or names a field that there is not.
  """
  path, _, variant = page.partition(':')
  parsed, rest = _parsed(argv[1:])
  try:
    get_config = runpy.run_path(path)['get_config']
    config = get_config(*filter(None, [variant]))
    workdir = _workdir(parsed.workdir, config)
  except Exception:
    return argv  # Something is wrong with the page, and absl will say what.
  from gog_jax.config import settings

  taken = {}
  profile = settings.read(workdir).get('profile')
  if (
      not variant
      and 'profile' in inspect.signature(get_config).parameters
      and profile not in (None, config.untouched.profile)
  ):
    config, path = get_config(profile), f'{path}:{profile}'
    taken['profile'] = profile
  found = settings.remembered(workdir, config, _given(rest))
  if shown := [f'{k}={v!r:.80}' for k, v in {**taken, **found}.items()]:
    print(f'from {workdir}/settings.json: {", ".join(shown)}', file=sys.stderr)
  return [
      argv[0],
      f'--config={path if taken else page}',
      *(f'--config.{name}={value}' for name, value in found.items()),
      *([f'--workdir={parsed.workdir}'] if parsed.workdir else []),
      *rest,
  ]


def _given(argv: list[str]) -> list[str]:
  """The fields of the config that arguments name."""
  names = (arg.lstrip('-').partition('=')[0].partition('.') for arg in argv)
  return [
      field for flag, _, field in names if field and flag.endswith('config')
  ]


def _workdir(given: str | None, config: Any) -> str:
  return given or os.path.join('runs', config.profile)


def _explain(error: Exception, argv: list[str], page: str = '') -> str:
  known = _fields(page)
  for field in _given(argv) if known else ():
    if field not in known:
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
  except Exception as error:
    config = _CONFIG.value if flags.FLAGS.is_parsed() else None
    workdir = _workdir(_WORKDIR.value, config) if config else os.curdir
    if (failed := disk.trouble(error, workdir)) is None:
      raise
    sys.exit(_fail(f'gog_jax: the disk failed: {failed}; {disk.ADVICE}', 2))


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
