"""From a user's files to an index: only what changed is done again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import contextlib
import dataclasses
import functools
import hashlib
import pathlib
import shutil

from gog_jax.errors import UserError
from gog_jax.index import chunks
from gog_jax.index import corpora
from gog_jax.index import descriptor
from gog_jax.index import features
from gog_jax.index import image_index
from gog_jax.index import store
from gog_jax.index import text_index
from gog_jax.index.corpora import Document
from gog_jax.index.corpora import Picture
from gog_jax.storage import files
from gog_jax.storage import metrics

TEXTS = 'texts'
IMAGES = 'images'
# How many skipped lines or images a warning names.
_MAX_NAMED = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary:
  """What a build made.

  Attributes:
    version: Of the index, 16 hex digits.
    n_documents: How many can be found.
    n_images: How many can be found.
    rebuilt: False if all was up to date.
    warnings: One line each: what was skipped, and why.
  """

  version: str
  n_documents: int
  n_images: int
  rebuilt: bool
  warnings: tuple[str, ...] = ()

  def __str__(self) -> str:
    made = 'built' if self.rebuilt else 'up to date'
    return '\n'.join([
        f'index {self.version}: {made}, {self.n_documents} documents, '
        f'{self.n_images} images',
        *self.warnings,
    ])


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Documents:
  """A file of documents, read once.

  Attributes:
    path: The file; '' if there is none.
    digest: Changes with any of them.
    n: How many are not empty.
    empty: Lines of those that are.
    links: The first document that refers to an image, by the image's name.
  """

  path: str
  digest: str = ''
  n: int = 0
  empty: tuple[int, ...] = ()
  links: Mapping[str, Document] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Content:
  """What an index is to hold; `encoder` is the version of its encoder."""

  documents: _Documents
  pictures: list[Picture]
  encoder: str

  @property
  def texts(self) -> str:
    """What the index of texts is made from, and how."""
    return f'{text_index.VERSION} {self.documents.digest}'

  @functools.cached_property
  def version(self) -> str:
    """16 hex digits of all that answers depend on."""
    parts = {
        'format': store.FORMAT,
        'texts': text_index.VERSION,
        'images': image_index.VERSION,
        'descriptor': descriptor.VERSION,
        'encoder': self.encoder,
        'documents': self.documents.digest,
        'pictures': [dataclasses.asdict(picture) for picture in self.pictures],
    }
    return hashlib.sha256(files.dumps(parts).encode()).hexdigest()[:16]


def build(
    index: str,
    *,
    docs: str = '',
    images: str = '',
    encoder: features.ImageEncoder | None = None,
) -> Summary:
  """Brings the index in a folder up to date with documents and images.

  Args:
    index: The folder; made if there is none.
    docs: A file of JSON lines, or ''.
    images: A folder of images, or ''.
    encoder: Adds pictures of like things to those that show the same one.

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
  with store.locked(pathlib.Path(index)):
    return _build(pathlib.Path(index), docs, images, encoder)


def _build(
    index: pathlib.Path,
    docs: str,
    images: str,
    encoder: features.ImageEncoder | None,
) -> Summary:
  folder = pathlib.Path(images)
  names, refused = corpora.image_names(folder) if images else ([], {})
  documents = _scan(docs, images, {*names, *refused})
  keys, bad = features.keys_of(folder, names)
  current = None
  with contextlib.suppress(UserError):  # A damaged one is as good as none.
    current = store.read(index)
  damaged = list(store.damaged_files(index, current)) if current else []
  for name in damaged:
    if name.startswith(chunks.FOLDER):  # Its features are computed again.
      (index / name).unlink(missing_ok=True)
  stores = features.stores(index, encoder)
  bad |= refused | features.update(folder, keys, stores, encoder)
  unlinked = Document(id='', title='', text='', contents='')
  pictures = [
      _picture(folder, name, keys[name], documents.links.get(name, unlinked))
      for name in names
      if name not in bad
  ]
  warnings = _warnings(documents, bad)
  if not documents.n and not pictures:
    nothing = 'there is nothing to index: no document and no image'
    raise UserError('; '.join([nothing, *warnings]))
  if current:
    _check_nothing_vanishes(index, current, documents.n, len(pictures))
  content = _Content(
      documents=documents,
      pictures=pictures,
      encoder=encoder.version if encoder is not None else '',
  )
  made = current
  if (
      not current
      or current.version != content.version
      or any(store.damaged_files(index, current))
  ):
    # Nobody uses what an earlier build left unfinished.
    store.delete_others(index, current.generation if current else '')
    texts = None  # The present index of texts, if it can be kept.
    if current and current.texts == content.texts:
      place = f'{current.generation}/{TEXTS}'
      if not any(name.startswith(f'{place}/') for name in damaged):
        texts = index / place
    made = _write(index, content, stores, texts)
  assert made is not None
  store.delete_others(index, made.generation)
  chunks.delete_unnamed(index, made.files)
  return Summary(
      version=made.version,
      n_documents=made.n_documents,
      n_images=made.n_images,
      rebuilt=made is not current,
      warnings=warnings,
  )


def _check_nothing_vanishes(
    index: pathlib.Path,
    current: store.Manifest,
    n_documents: int,
    n_images: int,
) -> None:
  """Refuses to throw away all images, or all documents, of an index.

  A flag was forgotten, or a disk is not mounted; their features took long.

  Raises:
    UserError: Says which are missing.
  """
  for had, has, what, flag in (
      (current.n_documents, n_documents, 'documents', 'docs'),
      (current.n_images, n_images, 'images', 'images'),
  ):
    if had and not has:
      raise UserError(
          f'{index} holds {had} {what}, and now there are none: give '
          f'--config.{flag}, or delete the folder for an index without them'
      )


def _scan(docs: str, images: str, known: set[str]) -> _Documents:
  """Checks every document before anything is written."""
  if not docs:
    return _Documents(path='')
  digest, n, empty = hashlib.sha256(), 0, []
  links: dict[str, Document] = {}
  for document in corpora.read_documents(pathlib.Path(docs)):
    corpora.check_image(document, pathlib.Path(docs), images, known)
    if document.empty:
      empty.append(document.line)
      continue
    digest.update(_digest_of(document))
    n += 1
    if document.image:
      beginning = document.text[: corpora.CAPTION_LENGTH]
      links.setdefault(
          document.image, dataclasses.replace(document, text=beginning)
      )
  return _Documents(
      path=docs,
      digest=digest.hexdigest(),
      n=n,
      empty=tuple(empty),
      links=links,
  )


def _digest_of(document: Document) -> bytes:
  fields = dataclasses.asdict(document)
  del fields['line']
  return files.dumps(fields).encode()


def _picture(
    folder: pathlib.Path, name: str, key: str, linked: Document
) -> Picture:
  beginning = linked.text.strip()
  return Picture(
      id=name,
      title=linked.title.strip() or corpora.readable(name),
      caption=corpora.caption_of(folder, name) or beginning,
      link=linked.id,
      beginning=beginning,
      key=key,
  )


def _write(
    index: pathlib.Path,
    content: _Content,
    stores: Mapping[str, chunks.ChunkStore],
    texts: pathlib.Path | None,
) -> store.Manifest:
  """Writes a generation and, last, the manifest that makes it count.

  Args:
    index: The index's folder.
    content: What it is to hold.
    stores: With the features of the pictures.
    texts: A finished index of the documents, if there is one.
  """
  documents, pictures = content.documents, content.pictures
  generation = store.new_generation(index)
  try:
    if documents.n and texts:
      store.link_tree(texts, generation / TEXTS)
    elif documents.n:
      text_index.build(generation / TEXTS, _read_again(documents))
    named: dict[str, list[str]] = {}
    if pictures:
      metrics.say(f'index of {len(pictures)} images: putting it together')
      named = image_index.build(generation / IMAGES, pictures, stores)
    needed = [name for kind in named.values() for name in kind]
    manifest = store.Manifest(
        version=content.version,
        generation=generation.name,
        n_documents=documents.n,
        n_images=len(pictures),
        encoder=content.encoder,
        texts=content.texts,
        chunks=named,
        files=store.describe(index, generation, needed),
    )
    manifest.write(index)
    return manifest
  except BaseException:
    shutil.rmtree(generation, ignore_errors=True)
    raise


def _read_again(documents: _Documents) -> Iterator[Document]:
  """The documents that are not empty, if they still are those of `_scan`."""
  digest = hashlib.sha256()
  with metrics.Progress('texts', total=documents.n) as progress:
    for document in corpora.read_documents(pathlib.Path(documents.path)):
      if not document.empty:
        digest.update(_digest_of(document))
        yield document
        progress.advance()
  if digest.hexdigest() != documents.digest:
    raise UserError(
        f'{documents.path} changed while the index was built; run it again'
    )


def _warnings(
    documents: _Documents, bad: Mapping[str, str]
) -> tuple[str, ...]:
  lines = []
  if n := len(documents.empty):
    verb = 'document is' if n == 1 else 'documents are'
    lines.append(
        f'{n} {verb} empty: {documents.path}, line '
        + _listed([str(line) for line in documents.empty])
    )
  if n := len(bad):
    noun = 'image' if n == 1 else 'images'
    named = [f'{name} ({reason})' for name, reason in sorted(bad.items())]
    lines.append(f'{n} {noun} could not be read: {_listed(named)}')
  return tuple(lines)


def _listed(names: list[str]) -> str:
  more = ', ...' if len(names) > _MAX_NAMED else ''
  return ', '.join(names[:_MAX_NAMED]) + more
