"""A user's documents and pictures on disk.

Documents are JSON lines, in either of two forms: Search-R1's
`{"id", "contents"}`, whose contents are `"title"\\ntext`, or
`{"id", "title", "text", "image"}`, where title and image may be missing.
Pictures are the image files of a folder and of the folders in it, whatever
their suffix; `photo.txt` beside `photo.jpg` is its caption. What they say is
untrusted text and stays text; what they name must lie within the folder.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
import dataclasses
import mimetypes
import os
import pathlib
import re
from typing import Any

from PIL import Image

from gog_jax import images
from gog_jax.errors import UserError
from gog_jax.storage.records import json_lines
from gog_jax.storage.records import Line
from gog_jax.storage.records import Unusable

# A longer line is not a passage; the file is broken.
MAX_LINE_BYTES = 8 * 2**20
MAX_IMAGE_BYTES = 64 * 2**20
MAX_CAPTION_BYTES = 64 * 2**10
# Characters of a linked document that stand in for a caption.
CAPTION_LENGTH = 500

# Fields of a document, and other names for them.
_FIELDS = {
    'id': ('id', '_id', 'docid', 'doc_id', 'pid'),
    'contents': ('contents',),
    'title': ('title',),
    'text': ('text', 'content', 'page_content', 'passage', 'body'),
    'image': ('image', 'image_path', 'img'),
}
_HEIC = re.compile(rb'....ftyp(?:hei|hev|mif|msf)', re.DOTALL)
# No pictures, and there may be many beside pictures.
_TEXT = ('text/', 'application/json', 'audio/', 'video/')
_GUESSED = ('TGA', 'MPEG')  # Formats without a mark of their own.
_RAW = {'.dng', '.raw', '.arw', '.tga', '.jxl', '.heic', '.heif', '.mpo'}
_SUFFIXES = {
    '.jpg', '.jpeg', '.png', '.webp', '.gif', '.bmp', '.tif', '.tiff', '.avif',
    '.jp2', '.ppm', '.pgm',
}  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Document:
  """One passage.

  Attributes:
    id: Unique within its file.
    title: Plain text, possibly empty.
    text: Plain text.
    contents: `"title"\\ntext`, or as the file had it.
    image: Name of the picture it refers to, or ''.
    line: Where it stands in the file, from 1.
  """

  id: str
  title: str
  text: str
  contents: str
  image: str = ''
  line: int = 0

  @property
  def row(self) -> dict[str, str]:
    """What an index holds of it."""
    names = ('id', 'title', 'text', 'contents')
    return {name: getattr(self, name) for name in names}

  @property
  def empty(self) -> bool:
    return not (self.title.strip() or self.text.strip())


def read_documents(
    path: pathlib.Path, images: Collection[str]
) -> Iterator[Document]:
  """Yields the documents of a file, in order, empty ones included.

  Args:
    path: A file of JSON lines.
    images: Names of the image files that documents may refer to.

  Raises:
    UserError: The file cannot be read, or a line is too long, not UTF-8, not
      JSON, not a document, repeats an id or names no such image; names it.
  """
  seen: dict[str, int] = {}
  advice = 'give --config.docs=FILE'
  for line in json_lines(path, max_bytes=MAX_LINE_BYTES, advice=advice):
    where = f'{path}, line {line.number}'
    document = _document(line, where)
    first = seen.setdefault(document.id, line.number)
    if first != line.number:
      raise UserError(
          f'{where}: the id {document.id!r} is that of line {first} too; '
          'give each document its own'
      )
    if document.image and document.image not in images:
      raise UserError(
          f'{where}, refers to the image {document.image!r}, which is not '
          'among those of --config.images=FOLDER; name it as seen from there'
      )
    yield document


def _document(line: Line, where: str) -> Document:
  row = line.value
  if not isinstance(row, dict):
    wrong = row.detail if isinstance(row, Unusable) else 'is not a JSON object'
    raise UserError(
        f'{where}, {wrong}; each line is one passage, a JSON object in UTF-8'
    )
  given = row
  if isinstance(row.get('metadata'), dict):
    given = {**row['metadata'], **row}
  row = {
      field: given[name]
      for field, names in _FIELDS.items()
      for name in reversed(names)
      if given.get(name) is not None
  }
  if type(row.get('id')) in (int, float):
    row['id'] = f'{row["id"]:.17g}'
  if not (name := _text(row, 'id', where)):
    raise UserError(f'{where}: its "id" is missing or empty; give it one')
  if 'contents' in row:
    contents = _text(row, 'contents', where)
    title, newline, text = contents.partition('\n')
    if not newline:
      title, text = '', contents
    title = title.strip()
    if len(title) > 1 and title[0] == title[-1] == '"':
      title = title[1:-1]
  elif 'text' in row:
    title, text = _text(row, 'title', where), _text(row, 'text', where)
    contents = f'"{title}"\n{text}'
  else:
    raise UserError(
        f'{where}, has neither "contents" nor "text", but '
        f'{", ".join(given)}; a document is '
        '{"id", "contents"} or {"id", "title", "text"}'
    )
  return Document(
      id=name,
      title=title,
      text=text,
      contents=contents,
      image=_text(row, 'image', where),
      line=line.number,
  )


def _text(row: Mapping[str, Any], field: str, where: str) -> str:
  value = row.get(field)
  if value is None:
    return ''
  if not isinstance(value, str):
    raise UserError(f'{where}: its "{field}" is no text; put it in quotes')
  # JSON can spell halves of surrogate pairs, which UTF-8 cannot.
  return value.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')


def image_names(
    folder: pathlib.Path,
) -> tuple[list[str], dict[str, str]]:
  """Names of the image files below a folder; and why others are not read.

  Hidden files and folders are left out; links to folders are not followed.

  Raises:
    UserError: There is no such folder.
  """
  if not folder.is_dir():
    raise UserError(f'{folder} is no folder; give --config.images=FOLDER')
  names, refused = [], {}
  for place, folders, files in os.walk(folder, onerror=_raise_unreadable):
    folders[:] = sorted(f for f in folders if not f.startswith('.'))
    for file in files:
      path = pathlib.Path(place, file)
      name = path.relative_to(folder).as_posix()
      reason = _refusal(folder, name, MAX_IMAGE_BYTES)
      kind = _looks_like(path, within=not reason)
      if file.startswith('.') or not kind:
        continue
      if not reason and kind not in images.KINDS:
        reason = f'{kind} is not read: save it as JPEG or PNG'
      if reason:
        refused[name] = reason
      else:
        names.append(name)
  return sorted(names), refused


def _looks_like(path: pathlib.Path, *, within: bool) -> str:
  """A picture's format, whatever its name; '' for a file that is none.

  Only files `within` the folder are opened.
  """
  suffix = path.suffix.lower()
  if suffix in _SUFFIXES:
    return 'JPEG'  # Or what it says: it is read, or said to be unreadable.
  kind, _ = mimetypes.guess_type(path.name)
  if (kind or '').startswith(_TEXT):
    return ''
  found = _format_of(path) if within else ''
  if found and found not in _GUESSED:
    return found
  return suffix if (kind or '').startswith('image/') or suffix in _RAW else ''


def _format_of(path: pathlib.Path) -> str:
  """The format of an image file; '' if it is none that Pillow knows."""
  try:
    with path.open('rb') as f:
      if _HEIC.match(f.read(12)):
        return 'HEIC'
      f.seek(0)
      found = Image.open(f).format or ''
  except Exception:  # Of many kinds, in Pillow.
    return ''
  return 'JPEG' if found == 'MPO' else found


def _raise_unreadable(error: OSError) -> None:
  raise UserError(
      f'{error.filename} cannot be read ({error.strerror}); let it be read, or '
      'move it out of the images folder'
  ) from error


def _refusal(folder: pathlib.Path, name: str, max_bytes: int) -> str:
  """Why a file of the folder is not read; '' if it can be."""
  if name != name.encode(errors='replace').decode():
    return 'its name is not UTF-8'
  try:
    target = (folder / name).resolve(strict=True)
  except (OSError, RuntimeError):
    return 'a link to nowhere'
  if not target.is_relative_to(folder.resolve()):
    return 'a link that leads out of the folder'
  if not target.is_file():
    return 'not a plain file'
  if target.stat().st_size > max_bytes:
    return f'over {max_bytes} bytes'
  return ''


def caption_of(folder: pathlib.Path, name: str) -> str:
  """The text of an image's sidecar, '' without one.

  Raises:
    UserError: It is not UTF-8, too long, or leads out of the folder.
  """
  path = (folder / name).with_suffix('.txt')
  if not path.is_file():
    return ''
  sidecar = path.relative_to(folder).as_posix()
  if reason := _refusal(folder, sidecar, MAX_CAPTION_BYTES):
    raise UserError(
        f'{path} is taken for the caption of an image, but cannot be one: '
        f'{reason}; replace or rename it'
    )
  data = path.read_bytes()
  try:
    return data.decode('utf-8-sig').strip()
  except UnicodeDecodeError as error:
    line = data[: error.start].count(b'\n') + 1
    raise UserError(
        f'{path}, line {line}, is not UTF-8 ({error.reason}); save the file as '
        'UTF-8'
    ) from error


def readable(name: str) -> str:
  """A title out of a file's name: 'trip/old_tower-2.jpg' -> 'old tower 2'."""
  stem = pathlib.PurePosixPath(name).stem
  return ' '.join(re.split(r'[\s_\-.]+', stem)).strip() or stem
