"""Units, currencies and eras as they are written behind numbers.

Nothing is converted: 1 km and 1000 m are two answers. spellings.json has those
that are known; _ in one may be a space, a full stop or nothing. Case does not
matter, mb is a megabyte, but in those that `units_by_case` names: Mb, mW.
"""

from __future__ import annotations

import json
import pathlib

import regex

_FILE = pathlib.Path(__file__).with_name('spellings.json')
SPELLINGS = json.loads(_FILE.read_text())
_KNOWN = {
    spelling: meant.replace('_', '')
    for meant, others in SPELLINGS['units'].items()
    for spelling in (meant, *others.split())
}
_KNOWN |= {f'{k}s': v for k, v in _KNOWN.items() if k[2:] and k[-3:].isalpha()}
_MEANT = {k.replace('_', ''): v for k, v in _KNOWN.items()}
_MEANT |= SPELLINGS['units_by_case'] | {'in': 'inch'}
_NAMES = '|'.join(sorted(map(regex.escape, _KNOWN), key=len, reverse=True))
_ONE = rf'(?:{_NAMES}|in(?=\W*$)|(?<=\s)s)(?![\p{{L}}\p{{M}}])'.replace(
    '_', r'[\s.]*'
)
_UNIT = regex.compile(
    r'[\s-]?(?:(?:(?P<square>sq|square)|(?P<cubic>cu|cubic))\.?\s)?'
    rf'(?P<unit>{_ONE})'
    r'(?:\^?(?:(?P<square>2)|(?P<cubic>3))(?!\d)'
    r'|\s(?:(?P<square>squared)|(?P<cubic>cubed))\b)?'
    rf'(?:(?:\s?/\s?|\sper\s)(?P<per>{_ONE})(?P<per>\^?[23](?!\d))?)?',
    regex.IGNORECASE,
)


def read(text: str, start: int) -> tuple[str, int]:
  """The unit that stands at a place behind a number, and where it ends."""
  found = _UNIT.match(text, start)
  if found is None:
    return '', start
  power = '2' if found['square'] else '3' if found['cubic'] else ''
  per = [meaning(part.strip('^')) for part in found.captures('per')]
  return '/'.join([meaning(found['unit']) + power, *per]), found.end()


def meaning(spelling: str) -> str:
  """What a spelling of a unit means; itself, if that is not known."""
  short = regex.sub(r'[\s.]', '', spelling)
  lower = 'second' if short.lower() == 's' else short.lower()
  return _MEANT.get(short) or _MEANT.get(lower, lower)
