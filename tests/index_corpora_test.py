"""Documents and pictures of a local index: what is read and what is refused."""

from __future__ import annotations

import json
import os
import struct
import zlib

import pytest

from gog_jax.errors import UserError
from gog_jax.index import corpora
from gog_jax.index.build import build
from tests.index_helpers import encoded
from tests.index_helpers import picture
from tests.index_helpers import write_docs
from tests.index_helpers import write_images


def read(tmp_path, *rows) -> list[corpora.Document]:
  write_docs(tmp_path / 'c.jsonl', *rows)
  return list(corpora.read_documents(tmp_path / 'c.jsonl', {'a.png'}))


def test_both_forms_of_documents(tmp_path):
  searched, plain, bare = read(
      tmp_path,
      {'id': 7, 'contents': '"A \\"quoted\\" title"\nTwo\nlines'},
      {'id': 'b', 'title': 'T', 'text': 'x', 'image': 'a.png', 'more': [1]},
      {'id': 'c', 'contents': 'no title'},
  )
  assert (searched.id, searched.text) == ('7', 'Two\nlines')
  assert searched.title == 'A \\"quoted\\" title'
  assert (plain.title, plain.text, plain.image) == ('T', 'x', 'a.png')
  assert plain.contents == '"T"\nx'
  assert (bare.title, bare.text, bare.line) == ('', 'no title', 3)


def test_a_byte_order_mark_and_blank_lines_do_no_harm(tmp_path):
  path = tmp_path / 'c.jsonl'
  path.write_bytes(b'\xef\xbb\xbf{"id":"a","text":"x"}\r\n\r\n')
  assert [d.id for d in corpora.read_documents(path, ())] == ['a']


def test_half_a_surrogate_pair_is_replaced(tmp_path):
  path = tmp_path / 'c.jsonl'
  path.write_text('{"id":"a","text":"x \\ud800 \\ud83d\\ude00"}\n')
  assert next(corpora.read_documents(path, ())).text == 'x \ufffd \U0001f600'


def claim_size(png: bytes, side: int) -> bytes:
  """A PNG file whose header claims so many pixels a side."""
  header = b'IHDR' + struct.pack('>II', side, side) + png[24:29]
  return png[:12] + header + struct.pack('>I', zlib.crc32(header)) + png[33:]


@pytest.mark.parametrize(
    ('line', 'said'),
    [
        ('{"id": "b"', 'is not JSON'),
        ('[' * 100_000, 'is not JSON'),
        ('{"id": ' + '9' * 5000 + '}', 'is not JSON'),
        ('["b"]', 'is not a JSON object'),
        ('{"text": "x"}', 'its "id"'),
        ('{"id": true, "text": "x"}', 'its "id"'),
        ('{"id": "", "text": "x"}', 'its "id"'),
        ('{"id": "b"}', 'neither "contents" nor "text"'),
        ('{"id": "b", "text": 3}', 'its "text" is no text'),
        ('{"id": "b", "text": "x", "image": ["a.png"]}', 'its "image"'),
        ('{"id": "a", "text": "x"}', "the id 'a' is that of line 1"),
        ('{"id": "b", "text": "' + 'x' * 5000 + '"}', 'over the 4096'),
    ],
)
def test_a_bad_line_is_named(tmp_path, monkeypatch, line, said):
  if '4096' in said:
    monkeypatch.setattr(corpora, 'MAX_LINE_BYTES', 4096)
  with pytest.raises(UserError, match='c.jsonl, line 2') as error:
    read(tmp_path, {'id': 'a', 'text': 'x'}, line)
  assert said in str(error.value) and '\n' not in str(error.value)


def test_not_utf8_is_named(tmp_path):
  path = tmp_path / 'c.jsonl'
  path.write_bytes(b'{"id":"a","text":"x"}\n{"id":"b","text":"\xff"}\n')
  with pytest.raises(UserError, match='line 2, is not UTF-8'):
    list(corpora.read_documents(path, ()))


def test_titles_captions_and_links(tmp_path):
  images = write_images(
      tmp_path / 'im', {'a.png': 1, 'sub/old_tower-2.png': 2, 'c.png': 3}
  )
  (images / 'c.txt').write_text('what c shows\n')
  docs = write_docs(
      tmp_path / 'c.jsonl',
      {'id': 'first', 'title': 'The A', 'text': 'y' * 600, 'image': 'a.png'},
      {'id': 'second', 'title': 'Other', 'text': 'x', 'image': 'a.png'},
      {'id': 'third', 'title': 'C', 'text': 'about c', 'image': 'c.png'},
  )
  build(str(tmp_path / 'ix'), docs=docs, images=str(images))
  [path] = (tmp_path / 'ix').glob('parts/images-*/pictures.jsonl')
  rows = {row['id']: row for row in map(json.loads, path.open())}
  a, c, tower = rows['a.png'], rows['c.png'], rows['sub/old_tower-2.png']
  assert (a['title'], a['link'], a['caption']) == ('The A', 'first', 'y' * 500)
  assert (c['title'], c['link'], c['caption']) == ('C', 'third', 'what c shows')
  assert (tower['title'], tower['link']) == ('old tower 2', '')


@pytest.mark.parametrize(
    'name',
    [
        'missing.png',
        '/etc/passwd',
        '../secret.png',
        'sub/../../secret.png',
        'C:\\secret.png',
        '..\\secret.png',
    ],
)
def test_an_image_elsewhere_is_refused(tmp_path, name):
  images = write_images(tmp_path / 'im', {'a.png': 1})
  write_images(tmp_path, {'secret.png': 2})
  docs = write_docs(
      tmp_path / 'c.jsonl', {'id': 1, 'text': 'x', 'image': name}
  )
  with pytest.raises(UserError, match='line 1, refers to .* not among those'):
    build(str(tmp_path / 'ix'), docs=docs, images=str(images))


def test_an_image_without_a_folder_is_refused(tmp_path):
  docs = write_docs(
      tmp_path / 'c.jsonl', {'id': 1, 'text': 'x', 'image': 'a.png'}
  )
  with pytest.raises(UserError, match='not among those of --config.images'):
    build(str(tmp_path / 'ix'), docs=docs)


def test_links_out_of_the_folder_are_not_read(tmp_path):
  images = write_images(tmp_path / 'im', {'a.png': 1})
  write_images(tmp_path / 'elsewhere', {'b.png': 2})
  os.symlink(tmp_path / 'elsewhere' / 'b.png', images / 'b.png')
  os.symlink(tmp_path / 'elsewhere', images / 'folder')
  os.symlink(images / 'a.png', images / 'inside.png')
  os.symlink(tmp_path / 'nowhere.png', images / 'dangling.png')
  os.mkfifo(images / 'pipe.png')
  names, refused = corpora.image_names(images)
  assert names == ['a.png', 'inside.png']
  assert refused == {
      'b.png': 'a link that leads out of the folder',
      'dangling.png': 'a link to nowhere',
      'pipe.png': 'not a plain file',
  }


def test_a_sidecar_that_leads_out_is_refused(tmp_path):
  images = write_images(tmp_path / 'im', {'a.png': 1})
  (tmp_path / 'secret').write_text('secret')
  os.symlink(tmp_path / 'secret', images / 'a.txt')
  with pytest.raises(UserError, match=r'a\.txt .* a link that leads out of'):
    build(str(tmp_path / 'ix'), images=str(images))


def test_a_bad_sidecar_is_named(tmp_path):
  images = write_images(tmp_path / 'im', {'a.png': 1})
  (images / 'a.txt').write_bytes(b'fine\nbad \xff')
  with pytest.raises(UserError, match=r'a\.txt, line 2, is not UTF-8'):
    build(str(tmp_path / 'ix'), images=str(images))
  (images / 'a.txt').write_text('x' * (corpora.MAX_CAPTION_BYTES + 1))
  with pytest.raises(UserError, match=r'a\.txt .* over 65536 bytes'):
    build(str(tmp_path / 'ix'), images=str(images))


def test_what_is_skipped_is_counted_and_named(tmp_path, monkeypatch):
  images = write_images(tmp_path / 'im', {'a.png': 1, 'big.png': 2})
  (images / 'bad.jpg').write_bytes(b'no image')
  whole = encoded(picture(3, 900, 600), 'JPEG')
  (images / 'cut.jpg').write_bytes(whole[: len(whole) // 2])
  (images / 'bomb.png').write_bytes(claim_size(encoded(picture(4)), 9000))
  (images / 'big.png').write_bytes(encoded(picture(2)) + bytes(2**21))
  monkeypatch.setattr(corpora, 'MAX_IMAGE_BYTES', 2**21)
  docs = write_docs(
      tmp_path / 'c.jsonl',
      {'id': 1, 'text': ' '},
      {'id': 2, 'text': 'x', 'image': 'bad.jpg'},
  )
  summary = build(str(tmp_path / 'ix'), docs=docs, images=str(images))
  assert (summary.n_documents, summary.n_images) == (1, 1)
  empty, unread = summary.warnings
  assert empty == f'left out 1 empty document(s): {docs}, line 1'
  assert unread.startswith('left out 4 unreadable image(s): bad.jpg (no ')
  assert 'big.png (over 2097152 bytes)' in unread
  assert 'bomb.png (9000 x 9000 pixels are more' in unread
  assert 'cut.jpg (' in unread


def test_pictures_are_found_by_their_content(tmp_path):
  """Whatever their suffix; what only looks like one is named."""
  folder = tmp_path / 'im'
  folder.mkdir()
  jpeg, png = encoded(picture(1), 'JPEG'), encoded(picture(2))
  read = {
      'a.jfif': jpeg, 'b.jpe': jpeg, 'd': jpeg, 'e': png, 'f.dat': png,
      'g.JPG_large': jpeg, 'h.txt.bak': jpeg, 'm.PNG': png,
      'c.mpo': encoded(picture(3), 'MPO', save_all=True,
                       append_images=[picture(4)]),
      'w': encoded(picture(5), 'WEBP'), 'wrong.heic': jpeg,
  }  # fmt: skip
  heic = b'\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic' + bytes(40)
  unread = {
      'p.HEIC': heic, 'q.heif': b'x', 'r': heic, 's.svg': b'<svg/>',
      't.ico': encoded(picture(6), 'ICO'), 'u.psd': b'8BPS', 'v.jxl': b'x',
      'y.nef': b'x', 'z.dng': b'x',
  }  # fmt: skip
  none = {
      'notes.txt': b'x', 'data.json': b'[]', 'README': b'P6 is a format',
      'a.npy': bytes(200), 'empty': b'', '.hidden': jpeg, 'x.bin': b'\xff\xd8',
  }  # fmt: skip
  for name, data in {**read, **unread, **none}.items():
    (folder / name).write_bytes(data)
  names, refused = corpora.image_names(folder)
  assert names == sorted(read)
  assert sorted(refused) == sorted(unread)
  assert 'HEIC is not read: save it as JPEG' in refused['r']
  summary = build(str(tmp_path / 'ix'), images=str(folder))
  assert summary.n_images == len(read)
  (said,) = summary.warnings
  assert said.startswith(f'left out {len(unread)} unreadable image(s): p.HEIC')


def test_nothing_to_index_is_said(tmp_path):
  index, empty = str(tmp_path / 'ix'), tmp_path / 'empty'
  empty.mkdir()
  with pytest.raises(UserError, match='nothing to index; give --config.docs'):
    build(index)
  with pytest.raises(UserError, match='nothing to index: no document'):
    build(index, images=str(empty))
  with pytest.raises(UserError, match='is no folder'):
    build(index, images=str(tmp_path / 'missing'))
  with pytest.raises(UserError, match='missing.jsonl cannot be read'):
    build(index, docs=str(tmp_path / 'missing.jsonl'))
