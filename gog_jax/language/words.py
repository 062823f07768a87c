"""Words of natural language, for whatever compares or finds them.

Two spellings are one word if they differ in

    case               Straße, STRASSE; İstanbul, istanbul; ΟΔΟΣ, οδός
    width, digits      Ｆｕｌｌ, full; ﬁne, fine; ١٩٨٩, 1989
    composition        é as one character or two; ｶﾞ, ガ
    optional signs     vowel signs and tatweel of Arabic (with the forms of
                       alef, yeh and heh), points of Hebrew, soft hyphens
    marks              of Latin and Greek letters; the stress of Cyrillic ones,
                       and the dots of ё: café, cafe; Łódź, Lodz

All other marks belong to their letters: vowels of Indic scripts, tones of Thai,
voicing of kana. Scripts that are written without spaces have no words to cut
at; there a character with its marks is one, and in Hangul, where particles
follow a noun without a space.
"""

from __future__ import annotations

from collections.abc import Iterator
import functools
import itertools
import re
import unicodedata

import regex

# Change it with what a word is.
VERSION = 'words-1'

# LB=SA: Thai, Lao, Khmer, Myanmar and the like. Then marks of kana that belong
# to no script.
UNSPACED = (
    r'\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Bopomofo}\p{LB=SA}'
    r'\u30fc\uff70\uff9e\uff9f'
)
_WITHIN = r'\p{M}[\p{DI}--\u200b]'  # U+200B stands between words.
_LETTER = rf'[\p{{L}}\p{{N}}--[{UNSPACED}]--[\u02b9-\u02bf\u115f\u1160]]'
_WORD = (
    rf'(?P<run>[{UNSPACED}][{UNSPACED}{_WITHIN}]*)'
    rf'|(?:[A-Za-z0-9]++(?![^\x00-\x7f])|{_LETTER}(?:{_LETTER}|[{_WITHIN}])*)'
)
# What is no word and yet means something: C#, 50%, -5.
_SYMBOL = (
    rf'|[\p{{S}}#%@]|(?<![\p{{L}}\p{{M}}\p{{N}}--[{UNSPACED}]])-(?=\p{{N}})'
)
_WORDS = regex.compile(_WORD, regex.V1)
_ASCII = re.compile('[A-Za-z0-9]+')
_WORDS_AND_SYMBOLS = regex.compile(_WORD + _SYMBOL, regex.V1)
# Of which several may be one character: marks, and parts of syllables.
_PARTS = regex.compile(
    r'[\p{M}\p{DI}\u1100-\u11ff\ua960-\ua97f\ud7b0-\ud7ff\uff9e\uff9f]'
)
_CLUSTER = regex.compile(r'\X')
_DIGIT = regex.compile(r'(?![0-9])\p{Nd}')
_OPTIONAL = regex.compile(
    r'[\p{DI}--\u200b]|(?<=i)\u0307'
    r'|[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7]'  # Hebrew
    r'|[\u0610-\u061a\u0640\u064b-\u065f\u0670\u06d6-\u06ed\u08d3-\u08ff]',
    regex.V1,
)
_MARKS = regex.compile(
    r'([\p{Latin}\p{Greek}])\p{Mn}+|(\p{Cyrillic})[\u0300\u0301\u0308]+'
)
# Spellings that Unicode does not take apart.
_LETTERS = str.maketrans(
    {**dict(zip('ıłøđħðىةکیٱ', 'ilodhdيهكيا')), 'æ': 'ae', 'œ': 'oe', 'þ': 'th'}
)


# Where a word stands in the text as it was given, and what equal words share.
Word = tuple[int, int, str]


def words(text: str, *, symbols: bool = False) -> Iterator[Word]:
  """Every word of a text in order; with `symbols` also those."""
  for run, _ in _runs(text, _WORDS_AND_SYMBOLS if symbols else _WORDS):
    yield from run


def terms(text: str, *, single: bool) -> Iterator[Word]:
  """What a text is searched by, in order.

  These are its words; in scripts without spaces, pairs of characters.

  Args:
    text: Any.
    single: Whether such characters also stand alone. Documents have them, so
      that a query of one character finds something; queries do not.
  """
  for run, spaced in _runs(text, _WORDS):
    if spaced or len(run) == 1:
      yield from run
      continue
    for (start, end, key), (_, last, after) in itertools.pairwise(run):
      if single:
        yield start, end, key
      yield start, last, key + after
    if single:
      yield run[-1]


def _runs(
    text: str, pattern: re.Pattern[str] | regex.Pattern[str]
) -> Iterator[tuple[list[Word], bool]]:
  """A word, or the characters of a run without spaces; which of them."""
  if pattern is _WORDS and text.isascii():
    pattern = _ASCII  # The same, several times as fast.
  for match in pattern.finditer(text):
    start, end = match.span()
    one = match.group()
    if match.lastgroup is None:
      yield [(start, end, _key(one))], True
    elif _PARTS.search(one):
      clusters = _CLUSTER.finditer(text, start, end)
      yield [(*c.span(), _key(c.group())) for c in clusters], False
    else:
      keys = map(_key, one)
      yield [(i, i + 1, key) for i, key in enumerate(keys, start)], False


def same(text: str) -> str:
  """What texts share that differ only in spelling, punctuation and spaces."""
  return ' '.join(key for _, _, key in words(text, symbols=True))


def fold(text: str) -> str:
  """A text with all differences removed but those of `plain`."""
  if text.isascii():
    return text.lower()
  text = unicodedata.normalize('NFKC', text).casefold()
  text = _OPTIONAL.sub('', unicodedata.normalize('NFD', text))
  text = _DIGIT.sub(lambda digit: str(int(digit.group())), text)
  return unicodedata.normalize('NFC', text.translate(_LETTERS))


def plain(text: str) -> str:
  """A folded text without the marks that people leave out."""
  if text.isascii():
    return text
  text = _MARKS.sub(r'\1\2', unicodedata.normalize('NFD', text))
  return unicodedata.normalize('NFC', text)


@functools.lru_cache(2**16)
def _key(text: str) -> str:
  return plain(fold(text))
