"""From a user's files to an index; only what changed is done again."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
import contextlib
import dataclasses
import hashlib
import pathlib
import shutil

from gog_jax import interrupt
from gog_jax.errors import UserError
from gog_jax.index import corpora
from gog_jax.index import descriptor
from gog_jax.index import features
from gog_jax.index import image_index
from gog_jax.index import manifest
from gog_jax.index import text_index
from gog_jax.index.corpora import Document
from gog_jax.index.encoder import Encoder
from gog_jax.storage import files
from gog_jax.storage import metrics

# How many skipped lines or images a warning names.
_MAX_NAMED = 10
_UNLINKED = Document(id='', title='', text='', contents='')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary:
  """What a build made.

  Attributes:
    version: Of the index, 16 hex digits.
    n_documents: Documents that can be found.
    n_images: Images that can be found.
    rebuilt: False if all was up to date.
    warnings: What was skipped and why, a line each.
  """

  version: str
  n_documents: int
  n_images: int
  rebuilt: bool
  warnings: Sequence[str] = ()

  def __str__(self) -> str:
    made = 'built' if self.rebuilt else 'up to date'
    return '\n'.join([
        f'index {self.version}: {made}, {self.n_documents} documents, '
        f'{self.n_images} images',
        *self.warnings,
    ])


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Documents:
  """What a file of documents holds.

  Attributes:
    copy: Folder with a copy of the documents that are not empty.
    n: Number of documents in the copy.
    digest: Changes with any document in the copy.
    empty: Line numbers of empty documents.
    links: By the name of an image, the first document that refers to it, with
      only the beginning of its text.
  """

  copy: pathlib.Path
  n: int = 0
  digest: str = ''
  empty: Sequence[int] = ()
  links: Mapping[str, Document] = dataclasses.field(default_factory=dict)


def build(
    index: str,
    *,
    docs: str = '',
    images: str = '',
    encoder: Encoder | None = None,
) -> Summary:
  """Brings the index in a folder up to date with documents and images.

  Args:
    index: The folder; made if there is none.
    docs: A file of JSON lines, or ''.
    images: A folder of images, or ''.
    encoder: Finds similar pictures too, not only the same picture.

  Raises:
    UserError: There is nothing to index, the documents are not what they
      should be, or another build is at work on the folder.
    Interrupted: Between chunks; the next build goes on from there.
  """
  if not docs and not images:
    raise UserError(
        'there is nothing to index; give --config.docs=FILE, '
        '--config.images=FOLDER or both'
    )
  if '://' in str(index):
    raise UserError(f'{index} is no local folder; give --config.index=FOLDER')
  folder = pathlib.Path(index)
  with manifest.lock(folder):
    return _build(folder, docs, images, encoder)


def _build(
    index: pathlib.Path,
    docs: str,
    images: str,
    encoder: Encoder | None,
) -> Summary:
  current = manifest.NOTHING
  with contextlib.suppress(UserError):  # A damaged one is as good as none.
    current = manifest.read(index)
  damaged = current.damaged(index)
  for name in damaged:
    (index / name).unlink(missing_ok=True)

  folder = pathlib.Path(images)
  names, refused = corpora.image_names(folder) if images else ([], {})
  documents = _read_documents(index, docs, {*names, *refused})
  found = features.extract(index, folder, names, encoder)
  unreadable = refused | found.unreadable
  pictures = [
      _picture(folder, name, key, documents.links.get(name, _UNLINKED))
      for name, key in found.keys.items()
      if name not in unreadable
  ]
  warnings = (
      *_left_out(
          'empty document(s)',
          [f'{docs}, line {line}' for line in documents.empty],
      ),
      *_left_out(
          'unreadable image(s)',
          [f'{name} ({why})' for name, why in sorted(unreadable.items())],
      ),
  )
  if not documents.n and not pictures:
    nothing = 'there is nothing to index: no document and no image'
    raise UserError('; '.join([nothing, *warnings]))
  for part, n, what, flag in (
      (current.texts, documents.n, 'documents', 'docs'),
      (current.images, len(pictures), 'images', 'images'),
  ):
    # Was a flag forgotten, or a disk not mounted? Features took long.
    if part and not n:
      raise UserError(
          f'{index} holds {what}, and now there are none: give '
          f'--config.{flag}, or delete the folder for an index without them'
      )

  kept = {
      part
      for part in (current.texts, current.images)
      if not any(name.startswith(f'{part}/') for name in damaged)
  }
  version = encoder.version if encoder is not None else ''
  texts_part = _texts(index, documents, kept)
  images_part = _images(index, pictures, found, version, kept)
  used = found.paths([picture['key'] for picture in pictures])
  made = manifest.Manifest(
      texts=texts_part,
      images=images_part,
      encoder=version,
      words=text_index.VERSION if texts_part else '',
      files=manifest.describe(index, (texts_part, images_part), used),
  )
  if made != current:
    made.write(index)
  made.delete_others(index)
  return Summary(
      version=made.version,
      n_documents=documents.n,
      n_images=len(pictures),
      rebuilt=made != current or bool(damaged),
      warnings=warnings,
  )


def _read_documents(
    index: pathlib.Path, docs: str, images: Collection[str]
) -> _Documents:
  """Checks and copies the documents; the file may change afterwards."""
  copy = index / manifest.PARTS / 'texts.partial'
  if not docs:
    return _Documents(copy=copy)
  copy.mkdir(parents=True, exist_ok=True)
  digest, n, empty = hashlib.sha256(), 0, []
  links: dict[str, Document] = {}
  with (copy / text_index.DOCUMENTS).open('wb') as f:
    for document in corpora.read_documents(pathlib.Path(docs), images):
      interrupt.check()
      if document.empty:
        empty.append(document.line)
        continue
      line = files.dumps(document.row).encode() + b'\n'
      f.write(line)
      digest.update(line)
      n += 1
      if document.image:
        beginning = document.text[: corpora.CAPTION_LENGTH].strip()
        links.setdefault(
            document.image, dataclasses.replace(document, text=beginning)
        )
  return _Documents(
      copy=copy, n=n, digest=digest.hexdigest(), empty=empty, links=links
  )


def _picture(
    folder: pathlib.Path, name: str, key: str, linked: Document
) -> dict[str, str]:
  """A line of image_index's `pictures.jsonl`."""
  caption = corpora.caption_of(folder, name) or linked.text
  # A hit shows how the document begins, but not twice.
  parts = dict.fromkeys((caption, linked.text))
  return {
      'id': name,
      'title': linked.title.strip() or corpora.readable(name),
      'caption': caption,
      'image': name,
      'link': linked.id,
      'text': '\n'.join(filter(None, parts)),
      'key': key,
  }


def _texts(
    index: pathlib.Path, documents: _Documents, kept: Collection[str]
) -> str:
  """The part that holds the documents, written if it is not there."""
  if not documents.n:
    return ''
  part = _name('texts', text_index.VERSION, documents.digest)
  if part not in kept:
    shutil.rmtree(index / part, ignore_errors=True)  # Unfinished.
    documents.copy.rename(index / part)
    text_index.build(index / part, documents.n)
  return part


def _images(
    index: pathlib.Path,
    pictures: Sequence[Mapping[str, str]],
    found: features.Extracted,
    encoder: str,
    kept: Collection[str],
) -> str:
  """The part that holds the pictures, written if it is not there."""
  if not pictures:
    return ''
  versions = image_index.VERSION, descriptor.VERSION, encoder
  part = _name('images', *versions, files.dumps(pictures))
  if part not in kept:
    metrics.say(f'index of {len(pictures)} images: putting it together')
    shutil.rmtree(index / part, ignore_errors=True)  # Unfinished.
    image_index.build(index / part, pictures, found)
  return part


def _name(kind: str, *made_from: str) -> str:
  return f'{manifest.PARTS}/{kind}-{manifest.digest(" ".join(made_from))}'


def _left_out(what: str, names: Sequence[str]) -> list[str]:
  """One line with the number and the names; none if nothing was left out."""
  if not names:
    return []
  more = ', ...' if len(names) > _MAX_NAMED else ''
  shown = ', '.join(names[:_MAX_NAMED])
  return [f'left out {len(names)} {what}: {shown}{more}']
