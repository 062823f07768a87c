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
    | {**dict(zip('№″×·・٫٬٪♯〜～∶', '#"x  .,%#--:')), '&': ' and '}
)
_RAISED = regex.compile('[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻]+')
_FEET = regex.compile(r"(?<![°\d])(\d+)\s?'\s?(\d\d?)\s?(?:\"|''|$)")
_ARTICLE = regex.compile(
    r'[\p{P}\s--[.#@%&-]]*(?:the\s+(?=\w)|an?\s+(?=[^\W\d]))',
    regex.V1 | regex.IGNORECASE,
)

_MONTHS = units.SPELLINGS['months'].split()
_MONTH = '|'.join(f'{month}|{month[:3]}' for month in _MONTHS)
_MONTH = rf'(?P<monthname>{_MONTH}|sept)\b\.?'
_DAY = r'(?P<day>(?<!\d)\d\d?)'
_YEAR = r'(?P<year>\d{4})(?!\d)'
_DATES = (
    rf'{_YEAR}\s?[年년](?:\s?(?P<month>\d\d?)\s?[月월](?:\s?{_DAY}\s?[日号號일])?)?',
    rf'(?P<month>\d\d?)\s?[月월]\s?{_DAY}\s?[日号號일]',
    rf'\+?{_YEAR}(?P<s>[-/.])(?P<month>\d\d?)(?P=s){_DAY}(?!\d)(?:T00:00:00Z?)?',
    rf'{_DAY}(?P<s>[-/.])(?P<month>\d\d?)(?P=s)(?P<last>{_YEAR})',
    rf'\b{_MONTH}\s?(?:{_DAY}(?:st|nd|rd|th)?(?!\d)(?:,?\s?{_YEAR})?'
    rf'|,?\s?{_YEAR})',
    rf'{_DAY}(?:st|nd|rd|th)?[\s-](?:of\s)?{_MONTH}(?:,?[\s-]?{_YEAR})?',
)
_SCALES = units.SPELLINGS['scales']
_ORDINALS, _CARDINALS = (
    {word: n for n, word in enumerate(units.SPELLINGS[kind].split())}
    for kind in ('ordinals', 'cardinals')
)
_COUNTED = _ORDINALS | _CARDINALS | dict(hundred=100, thousand=1000)
_WRITTEN = '|'.join(sorted(_COUNTED, key=len, reverse=True))
_WRITTEN = regex.sub('-(?!second)', '[ -]', _WRITTEN)  # Twenty second(s).
_NUMBER = r"""
    (?P<plain> [1-9]\d{0,2}(?:,\d{3})+(?!,?\d)(?:\.\d+)?(?!\.\d)
             | [1-9]\d?(?:,\d\d)+,\d{3}(?!,?\d)(?:\.\d+)?
             | [1-9]\d{0,2}(?:[ '_]\d{3})+(?!,?\d)(?:\.\d+)? )
  | (?P<comma> [1-9]\d{0,2}(?:[. ']\d{3})+,\d+(?![,.]?\d)
             | [1-9]\d{0,2}(?:\.\d{3}){2,}(?![,.]?\d)
             | (?<!\d,)\d+,\d+(?![,.]?\d) )
  | (?P<ten>10)\^(?P<exponent>[+−-]?\d\d?)(?!\d)
  | (?P<name> \d+(?:\.\d+){2,} | 0\d+(?![.,:\d]) )
  | (?:(?P<whole>\d+)\s)?(?P<top>[1-9]\d?)[/⁄](?P<below>[1-9]\d{0,2})(?![\d/⁄.])
  | (?P<plain> \d+(?:\.\d+)? | (?<![\p{L}\p{M}\d.])\.\d+ )
"""
_SIGN = rf"""
    (?P<sign> (?<![\p{{L}}\p{{M}}\p{{N}}%°)--[{words.UNSPACED}]])-
            | (?<=\b(?:UTC|GMT))- | (?<!\d)−\s? | \b(?:minus|negative)\s )
"""
_CURRENCY = r"""
    (?P<currency> (?:\b[A-Z]{1,2})?\$ | \p{Sc}
                | \b(?:USD|EUR|GBP|JPY|CNY|RMB|INR|KRW|CHF|AUD|CAD
                     |Rs\.?|A\.?D\.?)
                  (?=\s?[-\d]) )
"""
_QUANTITY = rf"""
    (?:{_SIGN})? (?:(?<![\p{{L}}\d])\+(?=[\d.]))?
    (?:{_CURRENCY}\s?(?P<sign>[-−])?)?
    (?: (?<!\d) (?:{_NUMBER}) | \b(?P<word>{_WRITTEN})\b
      | (?P<word>[〇零一二三四五六七八九十百千]) )
    (?: (?:e(?P<exponent>[+-]?\d\d?)|\s?x\s?10\^(?P<exponent>[+−-]?\d\d?))
        (?![\p{{L}}\d])
      | (?P<th>st|nd|rd|th)\b
      | \s?-?(?P<scale>(?:hundred|thousand|(?:m|b|tr)illion|lakh|crore|bn)\b
                 |[万萬만億亿억]
                 |[kmb]\b(?<=[$€£¥₹].{{1,20}})|(?<=\d)(?-i:[KMBk])\b) )*
"""
# Symbols; what is left is punctuation.
_SYMBOL = r"""
    (?P<range> (?<=[\d%°])(?:\s[-−~]\s|[-−~]\s?)(?=[\d$€£])
             | (?<=\d)(?:\sto\s|\s?至\s?)(?=[\d$€£]) )
  | (?P<symbol> (?<=\d)\s?:\s?(?=\d) | (?<=\d)\s?/ | /(?=\d)
              | (?<=\w)\# | \#\s?(?=\d) | (?<=\d)\^
              | (?<![\w.])\.(?=\p{L}) | (?<=\w)@(?=\w) | %
              | (?<=\d|(?<!\p{L})\p{L}{1,2})[-−](?!\w)
              | [\p{Sm}\p{Sc}\p{So}--[|−]] )
"""
_FOUND = regex.compile(
    '|'.join(f'(?P<date>{date})' for date in _DATES)
    + f'|(?P<quantity>{_QUANTITY})|{_SYMBOL}',
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
  text = regex.sub(r'(?i)\b(?:no\.|number)\s?(?=\d)', '#', text)
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
      yield from map(_atom, _date(found))
    elif found['quantity']:
      value, is_ordinal = _value(found, after_word)
      yield _atom(f'{value}th' if is_ordinal else str(value))
      if found['currency']:
        yield _atom(units.meaning(found['currency']))
      elif not is_ordinal:
        unit, at = units.read(text, at)
        yield from [_atom(unit)] if unit else []
    else:
      yield _atom('-' if found['range'] else found['symbol'].strip(' −') or '-')
    after_word = False
  yield from _words(text[at:])


def _words(text: str) -> Iterator[Token]:
  for start, end, key in words.words(text):
    yield Token(key, words.fold(text[start:end]), True)


def _atom(text: str) -> Token:
  return Token(text, text)


def _value(
    found: regex.Match[str], after_word: bool
) -> tuple[fractions.Fraction | str, bool]:
  """A number's exact value, or as it is written; whether it is ordinal.

  As they are written stay names (007, 1.2.3, iOS 3.10) and what may be more
  than a fraction (24/7, 6/8).
  """
  text = found['name'] or found['plain'] or found['comma'] or '1'
  if found['comma']:
    text = regex.sub("[. ']", '', text).replace(',', '.')
  text = regex.sub("[, '_]", '', text)
  word = (found['word'] or '').lower().replace(' ', '-')
  if word:
    n = unicodedata.numeric(word) if len(word) == 1 else _COUNTED[word]
    value = fractions.Fraction(n)
  elif found['below']:
    top, below = int(found['top']), int(found['below'])
    value = int(found['whole'] or 0) + fractions.Fraction(top, below)
    if top >= below or math.gcd(top, below) > 1:
      value = ' '.join(filter(None, (found['whole'], f'{top}/{below}')))
  elif found['name'] or len(text) > _LONGEST or after_word and '.' in text:
    value = text
  else:
    value = fractions.Fraction(text)
  if isinstance(value, str):
    return f'-{value}' if found['sign'] else value, bool(found['th'])
  power = (found['exponent'] or '0').replace('−', '-')
  value *= fractions.Fraction(10) ** int(power)
  for scale in found.captures('scale')[:4]:
    value *= _SCALES[scale.lower()]
  is_ordinal = bool(found['th']) or word in _ORDINALS
  return -value if found['sign'] else value, is_ordinal


def _date(found: regex.Match[str]) -> list[str]:
  """Month, day and year; as it is written where that is not certain."""
  day, month, year = (int(found[n] or 0) for n in ('day', 'month', 'year'))
  if found['monthname']:
    month = 1 + [m[:3] for m in _MONTHS].index(found['monthname'].lower()[:3])
  if found['last'] and month > 12:
    day, month = month, day
  elif found['last'] and day <= 12 and day != month:
    return [f'{day}/{month}/{year}']
  try:
    datetime.date(year or 4, month or 1, day or 1)  # 4: a leap year.
  except ValueError:
    return [found.group().lower()]
  named = [_MONTHS[month - 1]] if month else []
  return named + [str(n) for n in (day, year) if n]
