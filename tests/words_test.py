"""Words in the world's scripts: found in an index, and shown in excerpts."""

from __future__ import annotations

import json
import pathlib
import unicodedata

from hypothesis import given
from hypothesis import strategies as st
import pytest

from gog_jax.errors import UserError
from gog_jax.index import text_index
from gog_jax.index.backend import LocalIndex
from gog_jax.index.build import build
from gog_jax.language import words
from gog_jax.tools.excerpt import excerpt
from tests.index_helpers import write_docs

# By script or language: titles, a text of each, and other spellings of the
# title that people search by.
CORPUS = {
    'latin': [
        ('Kraków', 'Dawna stolica leży nad Wisłą.', ['krakow', 'KRAKÓW']),
        ('Łódź', 'Miasto włókniarzy w środku kraju.', ['Lodz', 'lódz']),
        ('São Paulo', 'A maior cidade do Brasil.', ['sao paulo', 'SAO PAULO']),
        ('Đà Nẵng', 'Thành phố biển ở miền Trung.', ['Da Nang', 'đà nẵng']),
        ('Straße', 'Ein Weg für Wagen.', ['STRASSE', 'strasse']),
        ('Smørrebrød', 'Rugbrød med pålæg.', ['smorrebrod', 'SMØRREBRØD']),
    ],
    'turkish': [
        ('İstanbul', "Türkiye'nin en kalabalık şehri.", ['istanbul']),
        ('Diyarbakır', 'Surları ile bilinir.', ['DİYARBAKIR', 'diyarbakir']),
        ('Türkiye', 'Başkenti Ankara olan ülke.', ['turkiye', 'TÜRKİYE']),
    ],
    'cyrillic': [
        ('Королёв', 'Конструктор ракет.', ['королев', 'КОРОЛЁВ']),
        ('Москва́', 'Столица и крупнейший город.', ['москва', 'МОСКВА']),
        ('Київ', 'Місто на Дніпрі.', ['київ', 'КИЇВ']),
    ],
    'greek': [
        ('Αθήνα', 'Η πρωτεύουσα της χώρας.', ['ΑΘΗΝΑ', 'αθηνα']),
        ('Όλυμπος', 'Το ψηλότερο βουνό.', ['ΟΛΥΜΠΟΣ', 'ολυμπος']),
    ],
    'arabic': [
        ('مَدِينَة', 'مَدِينَةٌ كَبِيرَةٌ عَلَى النَّهْرِ', ['مدينة', 'مـديـنة']),
        ('القاهرة', 'عاصمة مصر على النيل.', ['القَاهِرَة', 'القاهره']),
        ('أحمد', 'اسم علم شائع.', ['احمد', 'أَحْمَد']),
        ('ایران', 'کشوری در خاورمیانه.', ['ايران']),
    ],
    'hebrew': [
        ('יְרוּשָׁלַיִם', 'עיר בירה עתיקה.', ['ירושלים']),
        ('תל אביב', 'עיר על חוף הים.', ['תֵּל אָבִיב']),
    ],
    'hindi': [
        ('हिन्दी', 'भारत की एक भाषा।', ['हिन्दी']),
        ('दिल्ली', 'यमुना के किनारे बसी राजधानी।', ['दिल्ली']),
        ('दिला', 'एक और शब्द।', []),
    ],
    'bengali': [('ঢাকা', 'বাংলাদেশের রাজধানী।', []), ('কলকাতা', 'নদীর তীরে।', [])],
    'tamil': [
        ('தமிழ்', 'ஒரு மொழி.', []), ('சென்னை', 'கடற்கரை நகரம்.', []),
    ],
    'thai': [
        ('ประเทศไทย', 'ประเทศไทยมีเมืองหลวงชื่อกรุงเทพมหานคร', []),
        ('เชียงใหม่', 'เมืองใหญ่ทางภาคเหนือมีวัดมากมาย', []),
        ('น้ำตก', 'สายน้ำที่ไหลจากหน้าผา', ['นํ้าตก']),
    ],
    'khmer': [('ភ្នំពេញ', 'រាជធានីនៃប្រទេសកម្ពុជា', [])],
    'lao': [('ວຽງຈັນ', 'ນະຄອນຫຼວງຂອງລາວ', [])],
    'myanmar': [('ရန်ကုန်', 'မြန်မာနိုင်ငံ၏ မြို့ကြီး', [])],
    'chinese': [
        ('紫禁城', '明清两代的皇宫，位于北京中心。', []),
        ('長江', '亞洲最長的河流。', []),
        ('北京大学', '中国的一所大学。', ['北京 大学']),
    ],
    'japanese': [
        ('東京タワー', '港区にある電波塔。', ['東京ﾀﾜｰ']),
        ('ガンダム', '人気のアニメ作品。', ['ｶﾞﾝﾀﾞﾑ']),
        ('さくら', '春に咲く花。', []),
    ],
    'korean': [
        ('서울', '서울은 대한민국의 수도이다.', []),
        ('부산', '부산에서 열리는 영화제가 있다.', []),
    ],
    'georgian': [('თბილისი', 'საქართველოს დედაქალაქი.', ['ᲗᲑᲘᲚᲘᲡᲘ'])],
    'armenian': [('Երևան', 'Հայաստանի մայրաքաղաքը։', [])],
    'digits': [
        ('ميناء ١٩٨٩', 'سنة.', ['ميناء 1989']),
        ('Ａｂｃ９', 'x', ['abc9']),
    ],
}  # fmt: skip
DOCUMENTS = [
    (script, f'{script}-{number}', *document)
    for script, documents in CORPUS.items()
    for number, document in enumerate(documents)
]
CASES = [
    pytest.param(name, title, text, query, id=f'{name}-{query}')
    for _, name, title, text, others in DOCUMENTS
    for query in dict.fromkeys(
        [title, *others, *(unicodedata.normalize(form, title)
                           for form in ('NFC', 'NFD'))]
    )
]  # fmt: skip
GIVEN = pathlib.Path(__file__).parents[2] / 'shared' / 'cases' / 'lang.jsonl'


@pytest.fixture(name='index', scope='module')
def index_of_scripts(tmp_path_factory) -> LocalIndex:
  folder = tmp_path_factory.mktemp('scripts')
  docs = write_docs(
      folder / 'c.jsonl',
      *(
          {'id': name, 'title': title, 'text': long_text(script, title, text)}
          for script, name, title, text, _ in DOCUMENTS
      ),
  )
  build(str(folder / 'ix'), docs=docs)
  return LocalIndex(str(folder / 'ix'))


def long_text(script: str, title: str, text: str) -> str:
  """The title in the middle of much else, in a script like its own."""
  other = {'chinese': '国際空港', 'japanese': 'これは国際', 'thai': 'กขคฆ',
           'khmer': 'កខគ', 'korean': '가나다라'}.get(script, '')  # fmt: skip
  between = '' if other else ' '
  filler = between.join([other, 'lorem ipsum', '12 345', '']) * 200
  return between.join((filler, title, text, filler))


@pytest.mark.parametrize(('name', 'title', 'text', 'query'), CASES)
def test_a_title_finds_its_document_and_is_shown(
    index, name, title, text, query
):
  (first, _), *_ = index.text(query, 3)
  assert first['id'] == name
  for n_characters in (60, 200, 1000):
    shown = excerpt(first['text'], query, n_characters=n_characters)
    assert title in shown and len(shown) <= n_characters
    assert shown.strip('.').strip() in first['text']


@pytest.mark.quick
@pytest.mark.parametrize(
    ('one', 'other'),
    [
        ('Größe', 'GRÖSSE'), ('ΟΔΟΣ', 'οδός'), ('İ', 'i'), ('ISI', 'ısı'),
        ('naïve', 'naive'), ('co\u00adop', 'coop'), ('\ufeffab', 'ab'),
        ('ﬁne', 'fine'), ('Ｆｕｌｌ', 'full'), ('٣٤', '34'), ('३४', '34'),
        ('آب', 'اب'), ('مـلك', 'مَلِك'), ('שָׁלוֹם', 'שלום'), ('ｶﾞ', 'ガ'),
        ('か\u3099', 'が'), ('Ångström', 'angstrom'), ('Æsir', 'aesir'),
        ('e\u0301', 'é'), ('\u1112\u1161\u11ab', '한'),
        ('می\u200cشود', 'ميشود'),
        ('ПЬЁТ', 'пьет'), ('x₂', 'x2'), ('don’t', "don't"), ('Ǆ', 'dž'),
    ],
)  # fmt: skip
def test_spellings_of_one_word(one, other):
  assert words.same(one) == words.same(other) != ''


@pytest.mark.quick
@pytest.mark.parametrize(
    ('one', 'other'),
    [
        ('か', 'が'), ('हिन्दी', 'हन्द'), ('กา', 'กี'), ('й', 'и'), ('한', '하'),
        ('மி', 'ம'), ('C#', 'C++'), ('C', 'C#'), ('-5', '5'), ('5%', '5'),
        ('ハ', 'バ'), ('ка', 'ko'), ('$5', '€5'), ('😀', '😢'),
    ],
)  # fmt: skip
def test_what_differs_in_more_than_spelling(one, other):
  assert words.same(one) != words.same(other)


@pytest.mark.quick
def test_marks_and_format_characters_do_not_cut_words():
  text = 'हिन्दी தமிழ் ประเทศ שָׁלוֹם مَدِينَة co\u00adop'
  keys = [key for _, _, key in words.words(text)]
  assert keys == ['हिन्दी', 'தமிழ்', *'ประเทศ', 'שלום', 'مدينه', 'coop']


@pytest.mark.quick
@given(
    text=st.text(
        st.characters() | st.sampled_from('aİßΣé日本がไมีكَ한 -#\u0301'),
        max_size=60,
    )
)
def test_words_stand_in_the_text_and_survive_rewriting(text):
  found = list(words.words(text, symbols=True))
  assert all(0 <= start < end <= len(text) for start, end, _ in found)
  assert [end for _, end, _ in found] <= sorted(end for _, end, _ in found)
  for single in (True, False):
    spans = [(s, e) for s, e, _ in words.terms(text, single=single)]
    assert spans == sorted(spans)
  assert words.plain(words.fold(text)) == words.plain(
      words.fold(unicodedata.normalize('NFD', text))
  )


@pytest.mark.quick
@given(
    title=st.sampled_from([title for _, _, title, _, _ in DOCUMENTS]),
    before=st.integers(0, 400),
    n=st.integers(40, 300),
    between=st.sampled_from(['', ' ', '、']),
)
def test_an_excerpt_shows_the_match_wherever_it_stands(
    title, before, n, between
):
  filler = f'zz{between}国際{between}'
  text = filler * before + between + title + between + filler * 400
  spaced = text.replace(title, f' {title} ')  # Letters must not touch it.
  assert title in excerpt(spaced, title, n_characters=n)


@pytest.mark.quick
def test_the_cases_that_were_given(tmp_path):
  if not GIVEN.exists():
    pytest.skip('the examples are not beside the repository')
  rows = [json.loads(line) for line in GIVEN.read_text().splitlines()]
  build(str(tmp_path / 'ix'), docs=str(GIVEN))
  index = LocalIndex(str(tmp_path / 'ix'))
  for row in rows:
    assert index.text(row['title'], 1)[0][0]['id'] == row['id']


@pytest.mark.quick
def test_an_index_of_another_tokeniser_is_refused_then_built_again(tmp_path):
  document = {'id': 'a', 'title': 'T', 'text': 'x'}
  docs = write_docs(tmp_path / 'c.jsonl', document)
  build(str(tmp_path / 'ix'), docs=docs)
  path = tmp_path / 'ix' / 'manifest.json'
  row = json.loads(path.read_text())
  assert row['words'] == text_index.VERSION
  for then in ({}, {'words': 'bm25-1'}):
    old = {key: value for key, value in row.items() if key != 'words'} | then
    path.write_text(json.dumps(old))
    with pytest.raises(UserError, match='apart .* configs/index.py again'):
      LocalIndex(str(tmp_path / 'ix'))
    build(str(tmp_path / 'ix'), docs=docs)
    assert LocalIndex(str(tmp_path / 'ix')).text('t', 1)
