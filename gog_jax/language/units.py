"""Units, currencies and eras as they are written behind numbers.

Nothing is converted: 1 km and 1000 m are two answers.
"""

from __future__ import annotations

from collections.abc import Iterator

import regex

# Prefixes in use with a unit; the unit's name, symbol and other names.
_PREFIXED = {
    'meter m metre': 'kcmμnd', 'gram g gramme': 'kmμ', 'liter l litre': 'mcd',
    'watt w': 'kMGT', 'hertz hz': 'kMGT', 'byte b': 'kMGT', 'volt v': 'km',
    'ampere a amp': 'm', 'pascal pa': 'hkMG', 'joule j': 'kM',
    'calorie cal': 'k',
}  # fmt: skip
_PREFIXES = {
    'k': 'kilo', 'c': 'centi', 'm': 'milli', 'μ': 'micro', 'n': 'nano',
    'd': 'deci', 'h': 'hecto', 'M': 'mega', 'G': 'giga', 'T': 'tera', '': '',
}  # fmt: skip
# The first of a group is what the others mean; _ may be a space or a full stop.
_OTHERS = """
  mile mi, foot ft feet, inch inches, yard yd yds, nautical_mile nmi, knot kn,
  light_year ly, ounce oz, pound lb lbs £ gbp pound_sterling pounds_sterling,
  ton t tonne, second sec secs, minute min mins, hour h hr hrs, day, week wk,
  month, year yr yrs, decade, century centuries, acre, hectare ha, gallon gal,
  celsius ℃ °_c c degree_celsius degrees_celsius degree_c degrees_c centigrade,
  fahrenheit °_f f degree_fahrenheit degrees_fahrenheit degree_f degrees_f,
  kelvin k, degree ° deg, percent % per_cent pct, horsepower hp, decibel db,
  carat ct, barrel bbl, mile/hour mph, kilometer/hour kmh kph kmph,
  dollar $ usd us$ us_dollar u_s_dollar, euro € eur, yen jpy 円,
  yuan cny rmb 元 renminbi, rupee ₹ inr rs, won ₩ krw 원, ruble ₽ rub rouble,
  franc chf, cent ¢, aud a$ au$, cad c$ ca$, nzd nz$, hkd hk$, sgd s$, twd nt$,
  brl r$, bc b_c bce b_c_e, ad a_d ce c_e
"""
# Elsewhere case does not matter: mb is a megabyte, mw a megawatt.
_EXACT = {'mW': 'milliwatt', 'Mb': 'megabit', 'Gb': 'gigabit', 'Kb': 'kilobit'}


def _spellings() -> Iterator[tuple[str, str]]:
  """Yields each spelling, and what it means."""
  for names, prefixes in _PREFIXED.items():
    name, symbol, *others = names.split()
    for prefix in ('', *prefixes):
      long = _PREFIXES[prefix]
      yield f'{prefix}{symbol}'.lower(), long + name
      for one in (name, *others):
        yield long + one, long + name
  for group in _OTHERS.split(','):
    meant, *others = group.split()
    for one in (meant, *others):
      yield one, meant.replace('_', '')


_MEANT = {**dict(_spellings()), **{name: name for name in _EXACT.values()}}
_MEANT |= {
    f'{spelling}s': meant
    for spelling, meant in _MEANT.items()
    if len(spelling) > 3 and spelling[-3:].isalpha()
}
_NAMES = '|'.join(
    regex.escape(one).replace('_', r'[\s.]*')
    for one in sorted(_MEANT, key=len, reverse=True)
)
_MEANT = {key.replace('_', ''): meant for key, meant in _MEANT.items()} | _EXACT
_ONE = rf'(?:{_NAMES}|in(?=\W*$)|(?<=\s)s)(?![\p{{L}}\p{{M}}])'
_UNIT = regex.compile(
    rf'[\s-]?(?:(?P<power>sq|square|cubic|cu)\.?\s)?(?P<unit>{_ONE})'
    r'(?:\^?(?P<power>[23])(?!\d)|\s(?P<power>squared|cubed)\b)?'
    rf'(?:(?:\s?/\s?|\sper\s)(?P<per>{_ONE})(?:\^?(?P<of>[23])(?!\d))?)?',
    regex.IGNORECASE,
)
_SQUARE = ('sq', 'square', 'squared', '2')


def read(text: str, start: int) -> tuple[str, int]:
  """The unit that stands at a place behind a number, and where it ends."""
  found = _UNIT.match(text, start)
  if found is None:
    return '', start
  unit = meaning(found['unit'])
  if power := found['power']:
    unit += '2' if power.lower() in _SQUARE else '3'
  if per := found['per']:
    unit += f'/{meaning(per)}{found["of"] or ""}'
  return unit, found.end()


def meaning(spelling: str) -> str:
  """What a spelling of a unit means; itself, if that is not known."""
  short = regex.sub(r'[\s.]', '', spelling)
  lower = {'in': 'inch', 's': 'second'}.get(short.lower(), short.lower())
  return _MEANT.get(short) or _MEANT.get(lower, lower)
