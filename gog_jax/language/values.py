"""Takes a short text, as an answer, apart into what it says.

    numbers   by their exact values, with signs: 1,000 is 1000, 3.50 is 3.5
    units     behind numbers, however they are spelled (units.py)
    dates     as month, day and year: 1776-07-04 is July 4, 1776
    words     see words.py; of scripts without spaces, characters
    symbols   that mean something where they stand: C#, A+, 10:30, 1939-1945

Nothing is guessed: 04/07/1776 is neither the 4th of July nor April 7.
"""

from __future__ import annotations

from collections.abc import Iterator
import datetime
import fractions
import math
from typing import NamedTuple
import unicodedata

import regex

from gog_jax.language import units
from gog_jax.language import words

VERSION = f'values-1 {words.VERSION}'
_LONGEST = 100  # Digits of a number that is read; longer ones are names.

_FRACTIONS = {
    c: f' {unicodedata.normalize("NFKC", c)}' for c in '¼½¾⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞'
}
_TIDY = str.maketrans(
    {**_FRACTIONS, **dict.fromkeys('™℠©®'), **dict.fromkeys("’‘ʼʻ´`′", "'")}
    | {'№': '#', '″': '"', '×': 'x', '·': ' ', '・': ' ', '٫': '.', '٬': ','}
    | {'٪': '%', '♯': '#', '〜': '-', '～': '-', '∶': ':'}
)
_RAISED = regex.compile('[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻]+')
_FEET = regex.compile(r"(?<![°\d])(\d+)\s?'\s?(\d\d?)\s?(?:\"|''|$)")
_ARTICLE = regex.compile(
    r'[\p{P}\s--[.#@%&-]]*(?:an?|the)\s+(?=\w)', regex.V1 | regex.IGNORECASE
)

_MONTHS = (
    'january february march april may june july august september october '
    'november december'
).split()
_MONTH = rf'(?P<name>{"|".join(f"{m}|{m[:3]}" for m in _MONTHS)}|sept)\b\.?'
_DAY = r'(?P<day>(?<!\d)\d\d?)'
_YEAR = r'(?P<year>\d{4})(?!\d)'
_DATES = (
    rf'{_YEAR}\s?[年년](?:\s?(?P<month>\d\d?)\s?[月월](?:\s?{_DAY}\s?[日号號일])?)?',
    rf'(?P<month>\d\d?)\s?[月월]\s?{_DAY}\s?[日号號일]',
    rf'\+?{_YEAR}(?P<s>[-/.])(?P<month>\d\d?)(?P=s){_DAY}(?!\d)(?:T00:00:00Z?)?',
    rf'{_DAY}(?P<s>[-/.])(?P<month>\d\d?)(?P=s){_YEAR}',
    rf'\b{_MONTH}\s?(?:{_DAY}(?:st|nd|rd|th)?(?!\d)(?:,?\s?{_YEAR})?'
    rf'|,?\s?{_YEAR})',
    rf'{_DAY}(?:st|nd|rd|th)?[\s-](?:of\s)?{_MONTH}(?:,?[\s-]?{_YEAR})?',
)
_CLOCK = r'(?P<hour>\d\d?)(?::(?P<minute>\d\d))?\s?(?P<half>[ap])\.?m\b'

_SMALL = (
    'zero one two three four five six seven eight nine ten eleven twelve '
    'thirteen fourteen fifteen sixteen seventeen eighteen nineteen'
).split()
_TENS = 'twenty thirty forty fifty sixty seventy eighty ninety'.split()
_SCALES = {
    'hundred': 10**2, 'thousand': 10**3, 'million': 10**6, 'billion': 10**9,
    'trillion': 10**12, 'bn': 10**9, 'lakh': 10**5, 'crore': 10**7,
    'k': 10**3, 'm': 10**6, 'b': 10**9, '万': 10**4, '萬': 10**4, '만': 10**4,
    '億': 10**8, '亿': 10**8, '억': 10**8,
}  # fmt: skip
_SPOKEN = {
    **{word: n for n, word in enumerate(_SMALL)},
    **{word: n for n, word in zip(range(20, 100, 10), _TENS)},
    **{word: n for word, n in _SCALES.items() if len(word) > 5},
}
_IRREGULAR = dict(
    one='first', two='second', three='third', five='fifth', eight='eighth',
    nine='ninth', twelve='twelfth',
)  # fmt: skip
_ORDINALS = {
    _IRREGULAR.get(word, regex.sub('y$', 'ie', word) + 'th'): n
    for word, n in _SPOKEN.items()
}
_CARDINAL = '|'.join(sorted(_SPOKEN, key=len, reverse=True))
_ORDINAL = '|'.join(sorted(_ORDINALS, key=len, reverse=True))
_WRITTEN = (
    rf'\b(?:(?:{_CARDINAL})\b(?:(?:(?<=hundred|ion|sand)\sand)?[\s-]'
    rf'(?:{_CARDINAL})\b){{0,15}}(?:(?:\sand)?[\s-](?!(?<=\s)second)(?:{_ORDINAL})\b)?'
    rf'|(?:{_ORDINAL})\b)'
)

_CHINESE = '〇零一二三四五六七八九十百千万萬億亿'

_NUMBER = r"""
    (?P<plain> [1-9]\d{0,2}(?:,\d{3})+(?!,?\d)(?:\.\d+)?(?!\.\d)
             | [1-9]\d?(?:,\d\d)+,\d{3}(?!,?\d)(?:\.\d+)?
             | [1-9]\d{0,2}(?:[ '_]\d{3})+(?!,?\d)(?:\.\d+)? )
  | (?P<comma> [1-9]\d{0,2}(?:[. ']\d{3})+,\d+(?![,.]?\d)
             | [1-9]\d{0,2}(?:\.\d{3}){2,}(?![,.]?\d)
             | (?<!\d,)\d+,\d+(?![,.]?\d) )
  | (?P<ten>10)\^(?P<exponent>[+−-]?\d\d?)(?!\d)
  | (?P<name> \d+(?:\.\d+){2,} | 0\d+(?![.,:\d]) )
  | (?:(?P<whole>\d+)\s)?(?P<top>[1-9]\d?)[/⁄](?P<below>[1-9]\d{0,2})(?![\d/⁄])
  | (?P<plain> \d+(?:\.\d+)? | (?<![\p{L}\p{M}\d.])\.\d+ )
"""
_SIGN = rf"""
    (?P<sign> (?<![\p{{L}}\p{{M}}\p{{N}}%°)--[{words.UNSPACED}]])-
            | (?<=\b(?:UTC|GMT))- | (?<!\d)−\s? | \b(?:minus|negative)\s )
"""
_CURRENCY = r"""
    (?P<currency> (?:\b[A-Z]{1,2})?\$ | \p{Sc}
                | \b(?:USD|EUR|GBP|JPY|CNY|RMB|INR|KRW|CHF|AUD|CAD|Rs\.?|AD)
                  (?=\s?[-\d]) )
"""
_QUANTITY = rf"""
    (?:{_SIGN})? (?:(?<![\p{{L}}\d])\+(?=[\d.]))?
    (?:{_CURRENCY}\s?(?P<sign>[-−])?)?
    (?: (?<!\d) (?:{_NUMBER})
        (?: (?:e(?P<exponent>[+-]?\d\d?)|\s?x\s?10\^(?P<exponent>[+−-]?\d\d?))
            (?![\p{{L}}\d]) )?
        (?: (?P<th>st|nd|rd|th)\b
          | \s?-?(?P<scale>(?:hundred|thousand|(?:m|b|tr)illion|lakh|crore|bn)\b
                     |[万萬만億亿억]|[kmb]\b(?<=[$€£¥₹].{{1,20}})) )?
      | (?P<written>{_WRITTEN}) | (?P<chinese>[{_CHINESE}]{{1,30}}) )
"""
# Symbols; what is left is punctuation.
_SYMBOL = r"""
    (?P<range> (?<=[\d%°])(?:\s[-−~]\s|[-−~]\s?)(?=[\d$€£])
             | (?<=\d)(?:\sto\s|\s?至\s?)(?=[\d$€£]) )
  | (?P<and> & )
  | (?P<number> \b(?:no\.|number)\s?(?=\d) )
  | (?P<symbol> (?<=\d)\s?:\s?(?=\d) | (?<=\d)\s?/ | /(?=\d)
              | (?<=\w)\# | \#\s?(?=\d) | (?<=\d)\^
              | (?<![\w.])\.(?=\p{L}) | (?<=\w)@(?=\w) | %
              | (?<=\d|(?<!\p{L})\p{L}{1,2})[-−](?!\w)
              | [\p{Sm}\p{Sc}\p{So}--[|−]] )
"""
_FOUND = regex.compile(
    '|'.join(f'(?P<date>{date})' for date in _DATES)
    + f'|(?P<clock>{_CLOCK})|{_QUANTITY}|{_SYMBOL}',
    regex.VERBOSE | regex.IGNORECASE | regex.V1,
)


class Token(NamedTuple):
  """A part of what a text says.

  Attributes:
    key: What equal parts share.
    text: The same with the marks that people leave out.
    is_word: Whether spaces and hyphens to a neighbour that is one do not
      matter: Wi-Fi, wifi; U.S., US.
  """

  key: str
  text: str
  is_word: bool = False


def tokens(text: str) -> list[Token]:
  """What a text says, in order; see above."""
  text = _RAISED.sub(
      lambda m: '^' + unicodedata.normalize('NFKC', m.group()), text
  ).translate(_TIDY)
  text = unicodedata.normalize('NFKC', text)
  text = regex.sub(r'(?![0-9])\p{Nd}', lambda m: str(int(m.group())), text)
  text = regex.sub(r'[\p{DI}--\u200b]', '', text, flags=regex.V1)
  text = ' '.join(regex.sub(r'\p{Pd}', '-', text).split())
  text = _FEET.sub(r'\1 feet \2 inches', text)
  text = _ARTICLE.sub('', text, count=1) if _ARTICLE.match(text) else text
  return list(_tokens(text))


def _tokens(text: str) -> Iterator[Token]:
  at, after_word = 0, False
  while found := _FOUND.search(text, at):
    for token in _words(text[at : found.start()]):
      yield token
      after_word = True
    at = found.end()
    if found['date']:
      yield from _date(found)
    elif found['clock']:
      yield from _clock(found)
    elif found['range']:
      yield _atom('-')
    elif found['number']:
      yield _atom('#')
    elif found['and']:
      yield Token('and', 'and', True)
    elif found['symbol']:
      yield _atom(found['symbol'].strip().replace('−', '-'))
    else:
      yield from _quantity(found, after_word)
      if not found['th']:
        unit, at = units.read(text, at)
        yield from [_atom(unit)] if unit else []
    after_word = False
  yield from _words(text[at:])


def _words(text: str) -> Iterator[Token]:
  for start, end, key in words.words(text):
    yield Token(key, words.fold(text[start:end]), True)


def _atom(text: str) -> Token:
  return Token(text, text)


def _quantity(found: regex.Match[str], after_word: bool) -> Iterator[Token]:
  """A number, and the currency before it."""
  if found['written']:
    values, is_ordinal = _spoken(found['written'])
  elif found['chinese']:
    values, is_ordinal = [fractions.Fraction(_chinese(found['chinese']))], False
  elif found['below']:
    values, is_ordinal = _fraction(found), False
  else:
    values, is_ordinal = [_value(found, after_word)], bool(found['th'])
  for number, value in enumerate(values):
    if found['sign'] and not number:
      value = -value if isinstance(value, fractions.Fraction) else f'-{value}'
    last = number == len(values) - 1
    yield _atom(f'{value}th' if is_ordinal and last else f'{value}')
  if found['currency']:
    yield _atom(units.meaning(found['currency']))


def _value(
    found: regex.Match[str], after_word: bool
) -> fractions.Fraction | str:
  """A number's exact value; as it is written if it is a name: 007, iOS 3.10."""
  text = found['name'] or found['plain'] or found['comma'] or ''
  if found['comma']:
    text = regex.sub("[. ']", '', text).replace(',', '.')
  text = regex.sub("[, '_]", '', text)
  if found['name'] or len(text) > _LONGEST or after_word and '.' in text:
    return text
  value = fractions.Fraction(text or 1)
  if found['exponent']:
    value *= fractions.Fraction(10) ** int(found['exponent'].replace('−', '-'))
  return value * _SCALES.get((found['scale'] or '').lower(), 1)


def _fraction(found: regex.Match[str]) -> list[fractions.Fraction | str]:
  """A proper one in lowest terms; 24/7 and 6/8 stay what they are."""
  top, below, whole = (int(found[n] or 0) for n in ('top', 'below', 'whole'))
  if top < below and math.gcd(top, below) == 1:
    return [whole + fractions.Fraction(top, below)]
  return [*([str(whole)] if found['whole'] else []), str(top), '/', str(below)]


def _spoken(text: str) -> tuple[list[fractions.Fraction | str], bool]:
  """Numbers in English words, and whether the last one is ordinal."""
  found, total, current, word = list[int](), 0, None, ''
  for word in regex.findall(r'(?!and\b)\w+', text.lower()):
    n = _ORDINALS.get(word, _SPOKEN.get(word, 0))
    if n >= 100:
      current = (current or 1) * n
      if n > 100:
        total, current = total + current, 0
    elif current is None:
      current = n
    elif (current or total) and current % 100 == 0 or (
        n < 10 and current % 10 == 0 and current % 100 > 10
    ):
      current += n
    else:
      found.append(total + current)
      total, current = 0, n
  found.append(total + (current or 0))
  if len(found) == 2 and all(10 <= n < 100 for n in found):
    found = [100 * found[0] + found[1]]  # Nineteen Eighty-Four.
  return [fractions.Fraction(n) for n in found], word in _ORDINALS


def _chinese(text: str) -> int:
  """A number in Chinese characters: 一九八九, 三万五千."""
  figures = [int(unicodedata.numeric(c)) for c in text]
  if max(figures) < 10:
    return int(''.join(map(str, figures)))
  total = section = digit = 0
  for n in figures:
    if n < 10:
      digit = n
    elif n < 10**4:
      section, digit = section + (digit or 1) * n, 0
    else:
      total, section, digit = total + (section + digit or 1) * n, 0, 0
  return total + section + digit


def _clock(found: regex.Match[str]) -> Iterator[Token]:
  """As of 24 hours, but that 10:30 alone may be either."""
  hour, is_pm = int(found['hour']), found['half'].lower() == 'p'
  if hour <= 12:
    hour = hour % 12 + 12 * is_pm
  yield from map(_atom, (str(hour), ':', found['minute'] or '00'))
  if not is_pm and hour:
    yield _atom('am')


def _date(found: regex.Match[str]) -> Iterator[Token]:
  """Month, day and year; as it is written where that is ambiguous."""
  day, month, year = (int(found[n] or 0) for n in ('day', 'month', 'year'))
  if found['name']:
    month = 1 + [m[:3] for m in _MONTHS].index(found['name'].lower()[:3])
  is_ambiguous = found.end('year') == found.end() and found['s'] and year
  if is_ambiguous and month > 12:
    day, month = month, day
    is_ambiguous = False
  is_ambiguous = is_ambiguous and day <= 12 and day != month
  try:
    datetime.date(year or 4, month or 1, day or 1)  # 4: a leap year.
  except ValueError:
    is_ambiguous = True
  if is_ambiguous:
    parts = regex.findall(r'\d+|\p{L}+|[-/.]', found.group())
    yield from _as_written(parts)
    return
  if month:
    yield _atom(_MONTHS[month - 1])
  yield from [_atom(str(n)) for n in (day, year) if n]


def _as_written(parts: list[str]) -> Iterator[Token]:
  for part in parts:
    if part.isdecimal():
      yield _atom(str(int(part)))
    else:
      yield _atom('/' if part in '-/.' else part.lower())
