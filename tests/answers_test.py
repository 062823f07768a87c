"""What `answers.match` takes for equal: the table is its documentation."""

from __future__ import annotations

import collections
import fractions
import unicodedata

from hypothesis import assume
from hypothesis import given
from hypothesis import strategies as st
import pytest

from gog_jax.rewards import answers
from gog_jax.toy import knowledge
from gog_jax.toy import vocabulary

pytestmark = pytest.mark.quick

# Each line holds answers that say the same.
EQUAL = {
    'case, punctuation, spaces': (
        'Paris|paris|PARIS|Paris.|"Paris"|“Paris”|‘Paris’|«Paris»|'
        '**Paris**| Paris |Paris…|Paris...|(Paris)|`Paris`|¿Paris?|'
        'Paris!|Paris\u200b',
        'New York|new  york|New\u00a0York|New-York|New York,',
        'Paris, France|Paris (France)|Paris – France|Paris France',
        'Yahoo!|Yahoo', "Who’s Next|Who's Next|Whos Next",
        'Star Wars: A New Hope|Star Wars – A New Hope',
    ),
    'an article at the beginning': (
        'The Eiffel Tower|Eiffel Tower|an Eiffel Tower|“The Eiffel Tower”',
        'a cat|cat|the cat', 'an hour|hour', 'the A-Team|A-Team',
    ),
    'Unicode': (
        '巴黎。|巴黎|巴 黎|「巴黎」|《巴黎》', '１９８９|1989|١٩٨٩|۱۹۸۹|१९८९',
        'Café|Café|CAFÉ|cafe', 'Straße|STRASSE|strasse', 'ﬁne|fine',
        'İstanbul|istanbul|ISTANBUL', 'Diyarbakır|DIYARBAKIR',
        'ΟΔΟΣ|οδός|οδος', 'São Paulo|Sao Paulo|SÃO PAULO', 'Łódź|Lodz',
        'مَدِينَة|مدينة|مـدينة', 'שָׁלוֹם|שלום', '東京タワー|東京ﾀﾜｰ',
        '서울|\u1109\u1165\u110b\u116e\u11af',
        'レオナルド・ダ・ヴィンチ|レオナルドダヴィンチ', '①|1', 'Ⅷ|VIII',
        'ＡＢＣ|abc', 'Москва|Москва́', 'co\u00adop|co-op|coop', 'H₂O|H2O',
        'Windows™|Windows',
    ),
    'names': (
        'St. Louis|St Louis|St.Louis', 'U.S.|US|U.S|u.s.', 'Wi-Fi|wifi|Wi Fi',
        'J.R.R. Tolkien|J. R. R. Tolkien|JRR Tolkien', 'AC/DC|ACDC|AC DC',
        'F-16|F16|F 16', 'COVID-19|Covid 19|COVID‑19', 'Spider-Man|Spiderman',
        'Simon & Garfunkel|Simon and Garfunkel', "O'Brien|O’Brien|OBrien",
        "McDonald's|McDonalds", 'B12|B-12|B 12', 'C♯|C#',
        'No. 5|#5|№ 5|number 5',
    ),
    'options': (
        'A|A.|(A)|a|A)|[A]|"A"|A:|Ａ', 'b|B.|(b)', 'I|I.|(I)', 'the|The',
    ),
    'numbers': (
        "1,000|1000|1 000|1\u202f000|1,000.0|1'000|one thousand|a thousand",
        '1,234.5|1234.5|1.234,5|1 234,5|1234.50', '3.5|3,5|3.50|٣٫٥|３．５',
        '1.234.567|1,234,567|1 234 567', '12,34,567|1,234,567',
        '.5|0.5|½|1/2|0,5', '1½|1 1/2|1.5',
        '-5|−5|－5|minus 5|-5.0|minus five', '+5|5|five', 'three|3|Three',
        'twenty-five|25|twenty five', 'zero|0|-0',
        'five hundred|500', '2.5 million|2,500,000',
        'five million|5 million|5,000,000|5 million.', '3万|30,000',
        '1.5×10⁶|1.5 x 10^6|1.5e6|1,500,000',
        'third|3rd|3RD', 'twenty-first|21st',
        'the 19th century|nineteenth century', 'Formula One|Formula 1',
        'Seven Samurai|7 Samurai', '三|3', '第三|第3', 'second|2nd',
        '10⁵|10^5|100,000', '1e-5|0.00001',
    ),
    'units': (
        '5 km|5km|5 kilometres|5 kilometers|5-km|5 KM|five kilometers|'
        '5 ㎞|5 km.',
        '50%|50 %|50 percent|50 per cent|fifty percent|50％|50 pct',
        '1 m|1 metre', '80 km/h|80 kph|80 km per hour|80 kilometers per hour',
        '60 mph|60 miles/hour',
        '5 km²|5 km2|5 sq km|5 square kilometers|5 km^2|5 square kilometres',
        '20 °C|20°C|20℃|20 degrees Celsius|20 C', '90°|90 degrees',
        '5 lbs|5 pounds', '5\'10"|5 ft 10 in|5 feet 10 inches|5′10″',
        '6 ft|6 feet|6 foot', '10 MW|10 megawatts', '10 mW|10 milliwatts',
        '5 s|5 sec|5 seconds', '3 hours|3 h|3 hrs|3-hour',
        '9 years old|9-year-old|9 year old', '44 BC|44 B.C.|44 BCE|44 B.C.E.',
        '79 AD|79 CE|AD 79|A.D. 79', '5 L|5 litres', '3 day|3 days',
        '5 ton|5 tons|5 tonnes', '1.2M|1.2 million', '4K|4k|4,000',
        '$5|5 dollars|US$5|5 USD|USD 5|$5.00|$ 5',
        '€5|5 €|5 euros|EUR 5|5 euro', '£5|5 pounds|GBP 5',
        '$5 million|$5M|5 million dollars|$5,000,000', '-$5|$-5|−$5',
        '100円|100 yen|JPY 100', '₹500|500 rupees|Rs. 500',
    ),
    'dates and times': (
        'July 4, 1776|4 July 1776|1776-07-04|July 4th, 1776|'
        '4th of July 1776|Jul. 4, 1776|the 4th of July, 1776|1776/07/04|'
        '1776年7月4日|4 Jul 1776|1776-07-04T00:00:00Z|4-Jul-1776|'
        'JULY 4 1776',
        '13/07/1776|07/13/1776|13.7.1776|July 13, 1776',
        '05/05/2020|May 5, 2020', 'July 1776|Jul 1776|1776年7月|July, 1776',
        'July 4|4 July|7月4日|Jul 4th', '1989年|1989|1989년|1989.',
        '04/07/1776|4/7/1776|4-7-1776',
        '1939–1945|1939-1945|1939 - 1945|1939 to 1945|1939~1945|1939至1945',
        "the 1980s|1980s|1980's|1980’s", '10:30 am|10:30 a.m.|10:30AM',
        '10:30 pm|10:30 P.M.|10:30PM', '7:30|07:30', '10 pm|10 p.m.',
    ),
}  # fmt: skip
# Each line holds answers no two of which say the same.
DIFFERENT = {
    'marks in numbers': (
        '3.5|35|-3.5|3.05|3.51', '-5|5', '10:30|1030|10.30|10-30',
        '1,000|1.000|100', '1/2|12|1:2', '9/11|911', '24/7|247|168', '5!|5.1',
        '5+|5|>5|<5|~5', '007|7', '1.2.3|123|1.23', '6/8|3/4', '4/4|1',
        '10⁵|105|10', '1.5|1 5|15', '1.2M|1.2 m', 'A 4|4', '1,2,3|123|1.23',
        '199853.5|199854|199853', '0.1|0.10000000000000001', '1e5|15|1e-5',
        '02134|2134', '12345678901234567890|12345678901234567891', '5 -3|5 3',
        '2-1|21|1-2', '1990-|1990', '555-1234|5551234', '$5|5|€5|£5',
        'A$5|$5', 'Python 3.10|Python 3.1', '1989|19 89', '10^-5|10^5',
    ),
    'marks in names': (
        'C#|C++|C|C-', 'F#|F|F♭', 'A+|A|A-', 'O−|O+|O', 'AB-|AB+|AB',
        'Na+|Na', '.NET|net', 'Google+|Google', 'UTC-3|UTC+3|UTC 3', '#1|1',
        '😀|😢', 'Henry VIII|Henry 8|Henry VII', 'Ⅷ|8',
    ),
    'words': (
        'Hepatitis A|hepatitis|Hepatitis B', 'Vitamin A|vitamin',
        'Plan A|Plan', 'A|B|C', 'first|one', 'May|June', 'か|が',
        'resumé|resume the', 'Å|A', 'má|mà|mả', 'Müller|Möller', 'й|и',
        '北京|南京', 'Paris|Pari', 'US|USA',
        'Lord of the Rings|Lord of Rings', 'Paris|Paris, Texas', 'yes|no',
    ),
    'units': (
        '5|5 km|5 miles|5 m', '1 km|1000 m',
        '50%|50|0.5|50 percentage points', '20 °C|20 °F|20°|20',
        '10 MW|10 mW', '5 km|5 km²|5 km/h', '44 BC|44|44 AD',
        '5 million|5 billion|5', '5 hours|5 minutes', '5 feet|5 feet 1 inch',
        '100 Mb|100 MB', '$5|5 cents', '5 GB|5 MB',
    ),
    'dates and times': (
        'July 4, 1776|July 5, 1776|June 4, 1776|July 4, 1777|July 1776|'
        '1776|July 4',
        '04/07/1776|July 4, 1776|April 7, 1776|07/04/1776',
        '10:30 am|10:30 pm|10:30', '1980s|1980|1970s|80s',
        '1939-1945|1939|19391945', '2001-02|February 2001',
        '1989年|1988年|89年', '1989年7月|1989', '5年|5',
        '2023-02-30|March 2, 2023', '45/45/2020|2020', 'circa 1503|1503',
        '12 am|12 pm',
    ),
}  # fmt: skip


def pairs(table, *, all_pairs):
  for kind, lines in table.items():
    for line in lines:
      first, *others = line.split('|')
      for one in [first, *others] if all_pairs else [first]:
        for other in others:
          if one != other:
            yield pytest.param(one, other, id=f'{kind}: {one} / {other}')


@pytest.mark.parametrize(
    ('one', 'other'), [*pairs(EQUAL, all_pairs=False)]
)
def test_equal(one, other):
  assert answers.match(one, (other,)) == answers.match(other, ('x', one)) == 1
  assert answers.token_f1(one, (other,)) > 0


@pytest.mark.parametrize(
    ('one', 'other'), [*pairs(DIFFERENT, all_pairs=True)]
)
def test_different(one, other):
  assert answers.match(one, (other,)) == 0


def test_the_table_is_long():
  assert sum(1 for _ in pairs(EQUAL, all_pairs=False)) >= 120
  assert sum(1 for _ in pairs(DIFFERENT, all_pairs=True)) >= 120


def test_a_form_of_marks_alone_has_to_be_spelled():
  assert answers.match('!!!', ('?', '!!!')) == 1
  for nothing in ('', ' ', '...'):
    assert answers.match(nothing, ('!!!', 'a', '')) == 0
  assert answers.match('the', ('a', 'an')) == 0


def test_f1_counts_characters_where_there_are_no_words():
  assert answers.token_f1('首都是巴黎', ('巴黎',)) == pytest.approx(4 / 7)
  assert answers.token_f1('กรุงเทพ', ('กรุงเทพมหานคร',)) > 0.6
  assert answers.token_f1('大阪', ('巴黎',)) == 0
  assert answers.token_f1('7月4日', ('July 4, 1776',)) == pytest.approx(0.8)


def test_exact_match_is_squads():
  for one, other, same in (
      ('3.5', '35', 1), ('The cat', 'cat', 1), ('Hepatitis A', 'hepatitis', 1),
      ('5 km', '5 kilometres', 0), ('巴黎。', '巴黎', 0), ('A', 'A', 0),
      ('Lord of the Rings', 'lord of rings!', 1), ('three', '3', 0),
  ):  # fmt: skip
    assert answers.exact_match(one, (other,)) == same


def test_the_worlds_answers_are_scored_as_squad_scores_them():
  said = {
      *vocabulary.COLOURS, *vocabulary.SHAPES,
      *vocabulary.CITIES, *vocabulary.FOUNDERS, *map(str, vocabulary.YEARS),
      vocabulary.UNKNOWN, *map(str, range(30)),
      *(name for s in knowledge.SPLITS for name in knowledge.names_of(s)),
  }  # fmt: skip
  ours, squads = (
      collections.Counter(map(normalise, said))
      for normalise in (
          lambda one: tuple(answers.keys(one)), answers.squad_normalise
      )
  )
  assert len(ours) == len(squads) == len(said) > 1000
  assert all(answers.match(one, (one,)) for one in said)


WIDE = {c: c + 0xFEE0 for c in range(0x21, 0x7F)}
REWRITES = {
    'upper': str.upper,
    'lower': str.lower,
    'decomposed': lambda text: unicodedata.normalize('NFD', text),
    'composed': lambda text: unicodedata.normalize('NFC', text),
    'wide': lambda text: text.translate(WIDE),
    'quoted': '“{}”'.format,
    'bracketed': '({})'.format,
    'ended': '{}.'.format,
    'ended in Chinese': '{}。'.format,
    'bold': '**{}**'.format,
    'spaced': lambda text: ' ' + text.replace(' ', '\u00a0 ') + '\n',
    'marked': '\u200e{}\ufeff'.format,
}  # fmt: skip
MEANT = [
    line.split('|')[0]
    for lines in EQUAL.values() for line in lines if ' mw' not in line.lower()
] + [
    'Nguyễn Văn A', 'ภาษาไทย', 'हिन्दी', '3.14 m/s', 'Ünïcödé Straße',
    '-273.15 °C',
]  # fmt: skip
NUMBERS = st.builds(
    lambda sign, whole, point: f'{sign}{whole}{point}',
    st.sampled_from(['', '-']),
    st.integers(1, 10**15),
    st.just('') | st.integers(1, 10**12).map('.{}'.format),
)
AROUND = st.sampled_from(
    ['{}', '{} km', '{}%', 'about {} people', '({})', '{} °C', '{} BC', '“{}”',
     '{}.', 'minimum {}', '{}kg', '${}', '{} years', '約{}', '{}元']
)  # fmt: skip


@pytest.mark.long
@given(
    meant=st.sampled_from(MEANT)
    | st.builds('{}'.format, NUMBERS)
    | st.builds(lambda n, around: around.format(n), NUMBERS, AROUND),
    names=st.lists(st.sampled_from(sorted(REWRITES)), min_size=1, max_size=3),
    article=st.sampled_from(['', 'the ', 'The ', 'an ']),
)
def test_rewrites_say_the_same(meant, names, article):
  other = meant
  if meant[0].isalpha() and meant.split()[0].lower() not in ('a', 'an', 'the'):
    other = article + meant
  for name in names:
    other = REWRITES[name](other)
  assert answers.match(other, (meant,)) == 1
  assert answers.match(meant, (other,)) == 1


@pytest.mark.long
@given(number=NUMBERS, around=AROUND, data=st.data())
def test_another_digit_sign_or_point_says_another_thing(number, around, data):
  other = data.draw(st.sampled_from(sorted(changes(number))))
  assume(other != number)
  one, other = around.format(number), around.format(other)
  assert answers.match(one, (other,)) == answers.match(other, (one,)) == 0


def changes(number: str) -> set[str]:
  """Every number that differs in a digit, the sign or the decimal point."""
  found = {number[1:] if number.startswith('-') else f'-{number}'}
  bare = number.replace('.', '')
  for i, digit in enumerate(number):
    if digit.isdecimal():
      for other in '0123456789':
        found.add(number[:i] + other + number[i + 1 :])
  for i in range(1 + bare.startswith('-'), len(bare)):
    found.add(f'{bare[:i]}.{bare[i:]}')
  # Those of the same value: 1.50 and 1.5, 0 and -0.
  value = fractions.Fraction(number)
  return {
      one for one in found
      if float(one) and not one.endswith('.')
      and fractions.Fraction(one) != value
  }  # fmt: skip


@pytest.mark.long
@given(
    text=st.text(
        st.characters() | st.sampled_from("0159.,-−+:/^x½⁵'\"%$#A三万年月日th"),
        max_size=40,
    )
)
def test_no_text_is_refused_and_each_says_itself(text):
  assert answers.match(text, (text,)) == bool(text.strip())
  assert 0 <= answers.token_f1(text, ('a 1',)) <= 1
