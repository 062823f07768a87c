"""The review page: what it shows, what it exports, and what is read again."""

from __future__ import annotations

import base64
import hashlib
import html.parser
import json
import re
import shutil
import subprocess

import pytest

from gog_jax.conversations.record import Record
from gog_jax.errors import UserError
from gog_jax.instruct import review
from gog_jax.questions.benchmarks import choice
from gog_jax.types import Hit
from tests import report_helpers as helpers

pytestmark = pytest.mark.quick

EVIL_ID = '"><script>alert(1)</script>'


def record(name, *turns, **facts):
  known = {
      'kind': 'search', 'direct_answers': 4, 'direct_answers_right': 1,
      'review': '', 'note': '',
  }  # fmt: skip
  return Record(
      example=helpers.example(name, question=helpers.EVIL),
      trajectory=helpers.trajectory(name, *turns),
      facts=known | facts,
  )


def page_of(*records):
  return review.render(records, fingerprint='f1', teacher=helpers.EVIL)


class Reader(html.parser.HTMLParser):
  """Scripts, sections and the policy of a page."""

  def __init__(self, page):
    super().__init__()
    self.scripts, self.ids, self.tags, self.policy = [], [], [], ''
    self._in_script = False
    self.feed(page)

  def handle_starttag(self, tag, attrs):
    fields = dict(attrs)
    self.tags.append((tag, fields))
    self._in_script = tag == 'script'
    if tag == 'script':
      self.scripts.append('')
    if 'data-id' in fields:
      self.ids.append(fields['data-id'])
    if fields.get('http-equiv') == 'Content-Security-Policy':
      self.policy = fields['content']

  def handle_endtag(self, tag):
    self._in_script = False

  def handle_data(self, data):
    if self._in_script:
      self.scripts[-1] += data


def test_one_script_runs_and_whatever_is_untrusted_is_text():
  hit = Hit(title=helpers.EVIL, text='</script><script>x', score=1.0)
  page = Reader(
      page_of(
          record(EVIL_ID, (helpers.text(helpers.EVIL, hits=(hit,)),)),
          record('b', note=helpers.EVIL, review='reject'),
      )
  )
  (script,) = page.scripts
  digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
  directives = [part.strip() for part in page.policy.split(';')]
  assert "default-src 'none'" in directives
  assert f"script-src 'sha256-{digest}'" in directives
  assert page.ids == [EVIL_ID, 'b']
  tags = {tag for tag, _ in page.tags}
  assert not tags & {'link', 'iframe', 'object', 'form', 'base'}
  for tag, fields in page.tags:
    assert not [name for name in fields if name.startswith('on')]
    for address in (fields.get('src'), fields.get('href')):
      assert address is None or address.startswith('data:'), (tag, address)
  noted = [f for _, f in page.tags if f.get('class') == 'remark']
  assert [f['value'] for f in noted] == ['', helpers.EVIL]
  chosen = [f for t, f in page.tags if t == 'input' and 'checked' in f]
  assert [f['value'] for f in chosen] == ['reject']
  # The script builds no markup and asks nobody.
  assert not re.search('innerHTML|outerHTML|eval|fetch|XMLHttp|write', script)


# What the page's script needs of a browser.
_BROWSER = """
const fs = require('fs');
const [script, spec] = [process.argv[2], JSON.parse(process.argv[3])];
const texts = {count: {}, kept: {}, export: {}, file: {}};
let pressed, edited, blob, stored = spec.stored;
texts.export.addEventListener = (_, f) => { pressed = f; };
texts.file.click = () => {};
const sections = spec.samples.map((s) => {
  const boxes = ['accept', 'reject'].map(
    (value) => ({value, checked: s.verdict === value}));
  const remark = {value: s.note};
  return {
    dataset: {id: s.id}, boxes, remark,
    querySelector: (q) =>
      q === '.remark' ? remark : boxes.find((b) => b.checked) || null,
    querySelectorAll: () => boxes,
  };
});
global.document = {
  getElementById: (id) => id === 'samples'
    ? {dataset: {fingerprint: 'f1'},
       addEventListener: (_, f) => { edited = f; }}
    : texts[id],
  querySelectorAll: () => sections,
};
global.localStorage = {
  getItem: () => stored,
  setItem: (_, value) => {
    if (spec.full) throw new Error('full');
    stored = value;
  },
};
global.Blob = class { constructor(parts) { blob = parts.join(''); } };
global.URL = {createObjectURL: () => 'blob:x'};
(0, eval)(fs.readFileSync(script, 'utf8'));
for (const [i, verdict] of Object.entries(spec.clicks || {})) {
  for (const b of sections[i].boxes) b.checked = b.value === verdict;
  edited();
}
pressed();
console.log(JSON.stringify({blob, stored, count: texts.count.textContent,
  kept: texts.kept.textContent || ''}));
"""


def browse(tmp_path, **spec):
  if shutil.which('node') is None:
    pytest.skip('node is not installed')
  (tmp_path / 'browser.js').write_text(_BROWSER)
  done = subprocess.run(
      ['node', tmp_path / 'browser.js', str(review._SCRIPT), json.dumps(spec)],
      capture_output=True,
      text=True,
      check=True,
  )
  return json.loads(done.stdout)


def test_what_the_page_exports_is_what_the_builder_reads(tmp_path):
  samples = [
      {'id': EVIL_ID, 'verdict': '', 'note': ' the box is too wide '},
      {'id': 'b', 'verdict': '', 'note': ''},
      {'id': 'c', 'verdict': 'accept', 'note': ''},
  ]
  first = browse(
      tmp_path, samples=samples, stored=None, clicks={0: 'reject'}
  )
  assert first['count'] == '1 accepted, 1 rejected, 1 to do.'
  # Opened again, the page has what was said.
  blank = [{**sample, 'verdict': '', 'note': ''} for sample in samples]
  again = browse(tmp_path, samples=blank, stored=first['stored'])
  assert again['blob'] == first['blob']
  assert again['count'] == first['count']
  full = browse(
      tmp_path, samples=samples, stored=None, full=True, clicks={0: 'reject'}
  )
  assert full['blob'] == first['blob']
  assert 'export before you close' in full['kept']
  path = tmp_path / 'review.json'
  path.write_text(first['blob'])
  read = review.read(str(path), fingerprint='f1')
  assert read.samples == {
      EVIL_ID: review.Said('reject', 'the box is too wide'),
      'c': review.Said('accept', ''),
  }
  assert read.with_verdict('reject') == {EVIL_ID}
  assert read.with_verdict('accept') == {'c'}
  read.check({EVIL_ID, 'b', 'c'})


def exported(**samples):
  return {'gog_jax_review': 1, 'fingerprint': 'f1', 'samples': samples}


@pytest.mark.parametrize(
    ('value', 'message'),
    [
        ('no JSON', 'cannot be read .*export it anew'),
        ({}, 'gog_jax_review is missing.*; export it anew'),
        ([], 'must be an object.*; export it anew'),
        ({**exported(), 'fingerprint': 'f2'}, 'another build .f2, this one is'),
        (exported(a={'verdict': 'maybe', 'note': ''}), 'a.verdict must be one'),
        (exported(a={'verdict': 'accept'}), 'samples.a.note is missing'),
        (exported(a={'verdict': 'accept', 'note': 3}), 'a.note must be text'),
        (exported(a=[]), 'samples.a must be an object'),
        (exported(a={'verdict': [], 'note': ''}), 'a.verdict must be one of'),
    ],
)
def test_a_file_that_is_no_review_of_this_build(value, message, tmp_path):
  path = tmp_path / 'review.json'
  path.write_text(value if isinstance(value, str) else json.dumps(value))
  with pytest.raises(UserError, match=message) as caught:
    review.read(str(path), fingerprint='f1')
  assert str(path) in str(caught.value)
  with pytest.raises(UserError, match='cannot be read'):
    review.read(str(tmp_path / 'absent'), fingerprint='f1')


def test_a_review_of_samples_that_there_are_not(tmp_path):
  path = tmp_path / 'review.json'
  path.write_text(json.dumps(exported(
      a={'verdict': 'reject', 'note': ''}, z={'verdict': '', 'note': 'odd'}
  )))  # fmt: skip
  read = review.read(str(path), fingerprint='f1')
  with pytest.raises(UserError, match="1 samples .*not have, e.g. 'z'"):
    read.check({'a', 'b'})


def test_who_is_shown_is_drawn_by_id_alone():
  entries = [f'q{i}' for i in range(200)]

  def drawn(entries, n=20, seed=0):
    return list(choice.draw(entries, n=n, seed=seed, id_of=str))

  shown = drawn(entries)
  assert len(shown) == 20 and shown == drawn(entries)
  assert sorted(shown, key=entries.index) == shown
  assert shown != drawn(entries, seed=1)
  assert shown != entries[:20]
  # Without some of the others, those that stay are shown still.
  fewer = [e for i, e in enumerate(entries) if i % 2 or e in shown]
  assert drawn(fewer) == shown
  assert drawn(entries, n=999) == entries
