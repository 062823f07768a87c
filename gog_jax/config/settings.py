"""What the pages of a workdir were given, which holds for those that follow.

    WORKDIR/settings.json   the profile, and fields by their dotted names

Pages that build or train write it once what they were given is accepted; all
pages read it. What one is given for itself comes first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
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
# Fields, or sections, that mean something beside others alone: where one of
# those is given anew, they are not remembered.
_BESIDE = {
    'tools.text': ('tools.backend',),
    'tools.image': ('tools.backend',),
    'tools.encoder': ('tools.index',),
    'tools.version': ('tools.url',),
    'sft.data_box': ('sft.data',),
    'benchmark': ('eval.benchmark', 'benchmark.name'),
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

  Args:
    workdir: The command's.
    page: As its `get_config` makes it.
    flags: Dotted names of the fields that the command line sets.

  Raises:
    UserError: The file is damaged, or names a field that there is not.
  """
  known = dict(_leaves(page.copy_and_resolve_references().to_dict()))
  given = {*flags, *_set_by(page)}
  found = {}
  for field, value in read(workdir).items():
    section = field.partition('.')[0]
    if field not in known:
      if section not in page or section in ('arms', 'profile'):
        continue  # Another page's.
      raise UserError(
          f'{_path(workdir)} has {field}, which is no field (any more): delete '
          f'that line, or put {nearest(field, known)} in its place'
      )
    beside = _BESIDE.get(field, _BESIDE.get(section, ()))
    if given.isdisjoint((field, *beside)):
      found[field] = tuple(value) if isinstance(value, list) else value
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
  others = {  # Of sections that this page does not have.
      field: value
      for field, value in before.items()
      if not hasattr(config, field.partition('.')[0])
  }
  secret = [field for field, value in config.given.items() if _is_secret(value)]
  kept = {f: value for f, value in config.given.items() if f not in secret}
  now = {**others, **kept}
  if files.dumps(now) == files.dumps(before):
    return
  files.write_json(_path(workdir), now, sort_keys=True)
  if secret:
    metrics.say(
        f'{", ".join(secret)}: not kept in {_path(workdir)}, since the address '
        'may hold a secret; later pages have to be given it again'
    )


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


def _is_secret(value: Any) -> bool:
  values = value if isinstance(value, tuple) else (value,)
  return any(isinstance(one, str) and _SECRET.search(one) for one in values)
