"""From a user's files to an index: only what changed is done again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import dataclasses
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
# Of what was skipped, so many are named.
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
    digest: Changes with any of them.
    n: How many are not empty.
    empty: Lines of those that are.
    links: The first document that refers to an image, by the image's name.
  """

  digest: str = ''
  n: int = 0
  empty: tuple[int, ...] = ()
  links: Mapping[str, Document] = dataclasses.field(default_factory=dict)


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
  names, refused = corpora.image_names(folder) if images else ([], [])
  known = {*names, *(name for name, _ in refused)}
  documents = _scan(docs, images, known)
  keys, bad = features.keys_of(folder, names)
  _drop_damaged(index)
  stores = features.stores(index, encoder)
  bad |= dict(refused) | features.update(folder, keys, stores, encoder)
  pictures = [
      _picture(folder, name, keys[name], documents.links.get(name))
      for name in names
      if name not in bad
  ]
  warnings = _warnings(docs, documents, bad)
  if not documents.n and not pictures:
    nothing = 'there is nothing to index: no document and no image'
    raise UserError('; '.join([nothing, *warnings]))
  _check_nothing_vanishes(index, documents.n, len(pictures))
  version = _version(documents, pictures, encoder)
  summary = Summary(
      version=version,
      n_documents=documents.n,
      n_images=len(pictures),
      rebuilt=not _is_current(index, version),
      warnings=warnings,
  )
  if summary.rebuilt:
    _write(index, summary, docs, documents, pictures, stores, encoder)
  manifest = store.read(index)
  assert manifest is not None
  store.delete_others(index, manifest.generation)
  chunks.delete_unnamed(index, manifest.files)
  return summary


def _check_nothing_vanishes(
    index: pathlib.Path, n_documents: int, n_images: int
) -> None:
  """Refuses to throw away all images, or all documents, of an index.

  A flag was forgotten, or a disk is not mounted: their features took long.

  Raises:
    UserError: Says which are missing.
  """
  try:
    before = store.read(index)
  except UserError:
    return
  for had, has, what, flag in (
      (before.n_documents if before else 0, n_documents, 'documents', 'docs'),
      (before.n_images if before else 0, n_images, 'images', 'images'),
  ):
    if had and not has:
      raise UserError(
          f'{index} holds {had} {what}, and now there are none: give '
          f'--config.{flag}, or delete the folder for an index without them'
      )


def _drop_damaged(index: pathlib.Path) -> None:
  """Deletes chunks that are not what was written: they are done again."""
  manifest = _manifest(index)
  for name in store.damaged_files(index, manifest) if manifest else ():
    if name.startswith(chunks.FOLDER):
      (index / name).unlink(missing_ok=True)


def _scan(docs: str, images: str, known: set[str]) -> _Documents:
  """Checks every document before anything is written."""
  if not docs:
    return _Documents()
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
      digest=digest.hexdigest(), n=n, empty=tuple(empty), links=links
  )


def _digest_of(document: Document) -> bytes:
  fields = dataclasses.asdict(document)
  del fields['line']
  return files.dumps(fields).encode()


def _picture(
    folder: pathlib.Path, name: str, key: str, linked: Document | None
) -> Picture:
  caption = corpora.caption_of(folder, name)
  title = ''
  if linked is not None:
    caption = caption or linked.text.strip()
    title = linked.title.strip()
  return Picture(
      id=name,
      title=title or corpora.readable(name),
      caption=caption,
      link=linked.id if linked is not None else '',
      beginning=linked.text.strip() if linked is not None else '',
      key=key,
  )


def _version(documents, pictures, encoder) -> str:
  """16 hex digits of all that answers depend on."""
  parts = {
      'format': store.FORMAT,
      'texts': text_index.VERSION,
      'images': image_index.VERSION,
      'descriptor': descriptor.VERSION,
      'encoder': encoder.version if encoder is not None else '',
      'documents': documents.digest,
      'pictures': [dataclasses.asdict(picture) for picture in pictures],
  }
  return hashlib.sha256(files.dumps(parts).encode()).hexdigest()[:16]


def _is_current(index: pathlib.Path, version: str) -> bool:
  """Whether this version is there, and whole."""
  try:
    manifest = store.read(index)
    if manifest is None or manifest.version != version:
      return False
    store.check(index, manifest)
    return True
  except UserError:
    return False  # Damaged: that is what a build mends.


def _write(
    index: pathlib.Path,
    summary: Summary,
    docs: str,
    documents: _Documents,
    pictures: list[Picture],
    stores: Mapping[str, chunks.ChunkStore],
    encoder: features.ImageEncoder | None,
) -> None:
  """Writes a generation and, last, the manifest that makes it count."""
  # What an earlier build left unfinished is in nobody's use.
  current = _manifest(index)
  store.delete_others(index, current.generation if current else '')
  generation = store.new_generation(index)
  texts = f'{text_index.VERSION} {documents.digest}'
  try:
    if documents.n and current and _has_texts(index, current, texts):
      store.link_tree(index / current.generation / TEXTS, generation / TEXTS)
    elif documents.n:
      text_index.build(generation / TEXTS, _read_again(docs, documents))
    named: dict[str, list[str]] = {}
    if pictures:
      metrics.say(f'index of {len(pictures)} images: putting it together')
      named = image_index.build(generation / IMAGES, pictures, stores)
    needed = [name for kind in named.values() for name in kind]
    store.Manifest(
        version=summary.version,
        generation=generation.name,
        n_documents=summary.n_documents,
        n_images=summary.n_images,
        encoder=encoder.version if encoder is not None else '',
        texts=texts,
        chunks=named,
        files=store.describe(index, generation, needed),
    ).write(index)
  except BaseException:
    shutil.rmtree(generation, ignore_errors=True)
    raise


def _manifest(index: pathlib.Path) -> store.Manifest | None:
  """What counts so far; None if that is nothing, or damaged."""
  try:
    return store.read(index)
  except UserError:
    return None


def _has_texts(
    index: pathlib.Path, manifest: store.Manifest, texts: str
) -> bool:
  """Whether a generation's index of texts is the wanted one, and whole."""
  folder = f'{manifest.generation}/{TEXTS}/'
  harmed = store.damaged_files(index, manifest)
  return manifest.texts == texts and not any(
      name.startswith(folder) for name in harmed
  )


def _read_again(docs: str, documents: _Documents) -> Iterator[Document]:
  """The documents that are not empty, if they still are those of `_scan`."""
  digest = hashlib.sha256()
  with metrics.Progress('texts', total=documents.n) as progress:
    for document in corpora.read_documents(pathlib.Path(docs)):
      if not document.empty:
        digest.update(_digest_of(document))
        yield document
        progress.advance()
  if digest.hexdigest() != documents.digest:
    raise UserError(f'{docs} changed while the index was built; run it again')


def _warnings(
    docs: str, documents: _Documents, bad: Mapping[str, str]
) -> tuple[str, ...]:
  lines = []
  if n := len(documents.empty):
    lines.append(
        f'{_count(n, "document is", "documents are")} empty: {docs}, line '
        + _some(map(str, documents.empty), n)
    )
  if n := len(bad):
    named = (f'{name} ({reason})' for name, reason in sorted(bad.items()))
    lines.append(
        f'{_count(n, "image", "images")} could not be read: ' + _some(named, n)
    )
  return tuple(lines)


def _count(n: int, one: str, several: str) -> str:
  return f'{n} {one if n == 1 else several}'


def _some(names, n: int) -> str:
  shown = [name for name, _ in zip(names, range(_MAX_NAMED), strict=False)]
  return ', '.join(shown) + (', ...' if n > _MAX_NAMED else '')
