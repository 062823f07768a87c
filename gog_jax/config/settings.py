"""What the pages of a workdir were given, which holds for those that follow.

    WORKDIR/settings.json   the profile; fields by their dotted names; which of
                            them were `flags`

Pages that build or train write it, and take it back if what they were given is
refused; all pages read it. A page's own flags win. A value that it sets itself
comes next; but on pages that build or train, after flags of earlier ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
import contextlib
import re
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from gog_jax.errors import nearest
from gog_jax.errors import UserError
from gog_jax.storage import files
from gog_jax.storage import metrics

# Pages that write it. An evaluation's tools, limits or benchmark are its own.
_WRITE = ('instruct', 'sft', 'grade', 'rl')
# Fields, or sections, that only make sense with others: if those are given
# anew, forget these.
_BESIDE = {
    'tools.text': ('tools.backend',),
    'tools.image': ('tools.backend',),
    'tools.encoder': ('tools.index',),
    'tools.version': ('tools.url',),
    'sft.data_box': ('sft.data',),
    'sft.epochs': ('sft.steps',),
    'sft.steps': ('sft.epochs',),
    'rl.epochs': ('rl.steps',),
    'rl.steps': ('rl.epochs',),
    'benchmark': ('eval.benchmark', 'benchmark.name'),
    'remote': ('remote.url', 'remote.model'),
    'remote.url': (),  # An endpoint may have many models.
    'judge': ('judge.url', 'judge.model'),
    'judge.url': (),
}
# Fields that are the page's own.
_OF_THE_PAGE = ('stage', 'profile', 'untouched')
# In an address: a password, or a query.
_SECRET = re.compile(r'://[^/\s]*@|://\S*\?')


def read(workdir: epath.PathLike) -> dict[str, Any]:
  """What the workdir remembers; empty where nothing.

  Raises:
    UserError: The file is damaged.
  """
  path = _path(workdir)
  if not path.exists():
    return {}
  return files.read_json(path, advice='delete it, and give the flags again')


def remembered(
    workdir: epath.PathLike, page: ConfigDict, flags: Iterable[str]
) -> dict[str, Any]:
  """What the workdir remembers of a page's fields, but for what is given.

  Says what it forgets because of that.

  Args:
    workdir: The command's.
    page: As its `get_config` makes it.
    flags: Dotted names of the fields that the command line sets.

  Raises:
    UserError: The file is damaged, or names a field that there is not.
  """
  if page.stage == 'retrieve':
    return {}  # Whoever asks it has them, and would have it ask itself.
  known = dict(_leaves(page.copy_and_resolve_references().to_dict()))
  saved = read(workdir)
  held = saved.get('flags', ()) if page.stage in (*_WRITE, 'gog') else ()
  own = {*_set_by(page)}.difference(held)
  anew = {f for f in own if not _same(known[f], saved.get(f))}.union(flags)
  found, forgotten = {}, []
  for field, value in saved.items():
    section = field.partition('.')[0]
    if field not in known:
      if section not in page or section in ('arms', 'profile'):
        continue  # Another page's.
      raise UserError(
          f'{_path(workdir)} has {field}, which is no field (any more): delete '
          f'that line, or put {nearest(field, known)} in its place'
      )
    if field in own or field in anew:
      continue
    if anew.isdisjoint(_BESIDE.get(field, _BESIDE.get(section, ()))):
      found[field] = tuple(value) if isinstance(value, list) else value
    else:
      forgotten.append(field)
  if forgotten:
    metrics.say(f'not from {_path(workdir)}: {", ".join(forgotten)}')
  return found


def given_by(page: ConfigDict, flags: Iterable[str]) -> dict[str, Any]:
  """A page's profile and the fields that it or the command line sets."""
  values = page.copy_and_resolve_references().to_dict()
  known = dict(_leaves(values))
  fields = sorted({*flags, *_set_by(page)})
  given = {field: known[field] for field in fields if field in known}
  return {**given, 'profile': values['untouched']['profile']}


def remember(workdir: epath.PathLike, config: Any) -> None:
  """Adds what a page was given, if it is one of those that build or train.

  Addresses with a password or a query, which may be a key, are left out.

  Raises:
    UserError: The file is damaged, or cannot be written.
  """
  if config.stage not in _WRITE:
    return
  before = read(workdir)
  were_flags = before.get('flags', ())
  others = {  # Of sections that this page does not have.
      field: value
      for field, value in before.items()
      if not hasattr(config, field.partition('.')[0])
  }
  secret = [field for field, value in config.given.items() if is_secret(value)]
  kept = {f: value for f, value in config.given.items() if f not in secret}
  now = {**others, **kept}
  are_flags = [  # What is taken from the file comes as a flag, whatever it was.
      field
      for field, value in now.items()
      if (field in others or field in config.flags)
      and (field in were_flags or not _same(value, before.get(field)))
  ]
  if are_flags:
    now['flags'] = sorted(are_flags)
  if _same(now, before):
    return
  files.write_json(_path(workdir), now, sort_keys=True)
  if secret:
    metrics.say(
        f'{", ".join(secret)}: not kept in {_path(workdir)}, since the address '
        'may hold a secret; later pages have to be given it again'
    )


@contextlib.contextmanager
def taken_back(
    workdir: epath.PathLike, *, unless: Callable[[], bool]
) -> Iterator[None]:
  """Forgets what was remembered since, on a UserError.

  Args:
    workdir: Whose settings.
    unless: Whether something was made from them.
  """
  before = read(workdir)
  try:
    yield
  except UserError:
    if not unless() and read(workdir) != before:
      files.write_json(_path(workdir), before, sort_keys=True)
    raise


def _path(workdir: epath.PathLike) -> epath.Path:
  return epath.Path(workdir) / 'settings.json'


def _set_by(page: ConfigDict) -> list[str]:
  """Fields whose values are no longer those of the page's profile.

  Without those of arms, and of `tools`, that only follow another field's.
  """
  values = page.copy_and_resolve_references().to_dict()
  before = dict(_leaves(values.get('untouched', {})))
  backend = values.get('tools', {}).get('backend')
  follow = [('tools.text', backend), ('tools.image', backend)]
  return [
      field
      for field, value in _leaves(values)
      if before.get(field, value) != value
      and not field.startswith('arms.')
      and (field, value) not in follow
  ]


def _leaves(
    values: Mapping[str, Any], prefix: str = ''
) -> Iterator[tuple[str, Any]]:
  for name, value in values.items():
    if isinstance(value, Mapping) and name not in _OF_THE_PAGE:
      yield from _leaves(value, f'{prefix}{name}.')
    elif prefix or name not in _OF_THE_PAGE:
      yield prefix + name, value


def _same(one: Any, other: Any) -> bool:
  return files.dumps(one) == files.dumps(other)


def is_secret(value: Any) -> bool:
  """Whether it is an address with a password or a query."""
  values = value if isinstance(value, tuple) else (value,)
  return any(isinstance(one, str) and _SECRET.search(one) for one in values)
