"""Reads FVQA's pickled image searches in a process of its own.

    python -I gog_jax/questions/fvqa_unpickle.py CACHE.pkl FOLDER MEMORY_BYTES

`fvqa_cache` starts it and nothing imports it, since a pickle is a program. This
one may only name a few containers and Pillow's image classes; for an image
class it gets a stand-in that just holds the state. Any other name ends the
process before the pickle has run anything. The system limits memory, time and
open files. It writes JSON lines and PNG files, and prints the outcome as JSON
on its last line.
"""

from __future__ import annotations

import base64
import binascii
import collections
import hashlib
import io
import itertools
import json
import os
import pickle
import resource
import sys

from PIL import Image

MAX_PIXELS = 80_000_000
_CPU_S = 1800
_OPEN_FILES = 64
_MODES = ('1', 'L', 'LA', 'P', 'PA', 'RGB', 'RGBA', 'CMYK', 'YCbCr')
_TITLES = 'tool_returned_web_title_list'
_IMAGES = ('tool_returned_images', 'tool_returned_images_urls')


class Refused(Exception):
  """The pickle wants what it must not have."""


class Stored:
  """Stands in for an image, and for what Pillow keeps in its `info`."""

  state = None

  def __new__(cls, *unused_args, **unused_kwargs):
    return object.__new__(cls)

  def __setstate__(self, state):
    self.state = state


def _encode(text: str, encoding: str = 'latin1') -> bytes:
  """How old protocols write bytes: `_codecs.encode(text, 'latin1')`."""
  if encoding != 'latin1':
    raise Refused(f'wants bytes of encoding {encoding!r}')
  return text.encode('latin1')


# Built by their names, from arguments; none of them runs what it is given.
_CONTAINERS = {
    ('builtins', name): getattr(__import__('builtins'), name)
    for name in ('list', 'dict', 'set', 'frozenset', 'tuple', 'complex')
} | {
    ('builtins', 'bytes'): lambda: b'',
    ('collections', 'OrderedDict'): collections.OrderedDict,
    ('_codecs', 'encode'): _encode,
}
_PILLOW = {
    'PIL.Image': ('Image',),
    'PIL.JpegImagePlugin': ('JpegImageFile',),
    'PIL.PngImagePlugin': ('PngImageFile', 'iTXt'),
    'PIL.WebPImagePlugin': ('WebPImageFile',),
    'PIL.GifImagePlugin': ('GifImageFile',),
    'PIL.BmpImagePlugin': ('BmpImageFile',),
    'PIL.MpoImagePlugin': ('MpoImageFile',),
    'PIL.TiffImagePlugin': ('TiffImageFile', 'IFDRational'),
    'PIL.AvifImagePlugin': ('AvifImageFile',),
}


class Restricted(pickle.Unpickler):
  """Knows the names above and no others."""

  def find_class(self, module: str, name: str):
    if module == '__builtin__':  # Its name where protocols are old.
      module = 'builtins'
    if (module, name) in _CONTAINERS:
      return _CONTAINERS[module, name]
    if name in _PILLOW.get(module, ()):
      return Stored
    raise Refused(
        f'wants {module}.{name}, which no cache of titles and images needs: '
        'it may be an attack; nothing of it was run'
    )


def main(path: str, folder: str, memory: str) -> dict:
  """Converts one cache; returns counts, or an error in one line."""
  for what, most in (
      (resource.RLIMIT_AS, int(memory)),
      (resource.RLIMIT_CPU, _CPU_S),
      (resource.RLIMIT_NOFILE, _OPEN_FILES),
      (resource.RLIMIT_CORE, 0),
  ):
    resource.setrlimit(what, (most, most))
  try:
    with open(path, 'rb') as f:
      cache = Restricted(f).load()
  except Refused as error:
    return {'error': str(error)}
  except MemoryError:
    return {'error': f'needs more than {memory} bytes of memory'}
  except Exception as error:  # A pickle can make any part of it raise any.
    why = _one_line(f'{type(error).__name__}: {error}')
    return {'error': f'is cut off, or no pickle ({why})'}
  if not isinstance(cache, dict):
    return {'error': f'holds a {type(cache).__name__}, not a dict of searches'}
  return _write(cache, folder)


def _one_line(said) -> str:
  return ' '.join(str(said)[:300].split())


def _write(cache: dict, folder: str) -> dict:
  counts = {'n_searches': 0, 'n_documents': 0, 'n_images': 0}
  drops = []
  os.makedirs(os.path.join(folder, 'images'), exist_ok=True)
  partial = os.path.join(folder, 'docs.jsonl.partial')
  with open(partial, 'w', encoding='utf-8') as out:
    for data_id, entry in cache.items():
      try:
        documents = list(_documents(data_id, entry, folder))
      except (ValueError, TypeError, LookupError) as error:
        drops.append([_one_line(data_id), _one_line(error)])
        continue
      counts['n_searches'] += 1
      for document in documents:
        counts['n_documents'] += 1
        counts['n_images'] += bool(document['image'])
        out.write(json.dumps(document) + '\n')
    out.flush()
    os.fsync(out.fileno())
  os.replace(partial, os.path.join(folder, 'docs.jsonl'))
  return {'counts': counts, 'drops': drops}


def _documents(data_id, entry, folder: str):
  """Each result of a search: {id, title, text, image, url}."""
  if not isinstance(data_id, str) or not isinstance(entry, dict):
    raise ValueError('is no search: {data_id: {titles, images}}')
  titles = entry.get(_TITLES)
  columns = [entry[name] for name in _IMAGES if entry.get(name) is not None]
  if not isinstance(titles, list | tuple) or not all(
      isinstance(column, list | tuple) for column in columns
  ):
    raise ValueError(f'has no lists {_TITLES} and {_IMAGES[1]}')
  results = itertools.zip_longest(titles, *columns, fillvalue='')
  for rank, (title, *found) in enumerate(results):
    if not isinstance(title, str):
      raise ValueError(f'title {rank} is {type(title).__name__}, no text')
    url, image = '', ''
    for held in found:
      if isinstance(held, str) and not held.startswith('data:'):
        url = url or held
      elif held is not None:
        image = image or _store(held, folder)
    title = ' '.join(title.split())
    yield dict(
        id=f'{data_id}/{rank}', title=title, text=title, image=image, url=url
    )


def _store(held, folder: str) -> str:
  """Writes an image as a PNG file named by its content; returns its name."""
  if isinstance(held, str):
    try:
      held = base64.b64decode(held.partition(',')[2], validate=True)
    except binascii.Error as error:
      raise ValueError(f'an image is no base64 ({error})') from error
  if isinstance(held, bytes):
    try:
      image = Image.open(io.BytesIO(held), formats=['PNG', 'JPEG', 'WEBP'])
      if image.width * image.height > MAX_PIXELS:
        raise ValueError(f'an image of {image.size} pixels')
      image.load()
    except (OSError, SyntaxError) as error:
      raise ValueError(f'an image cannot be read ({error})') from error
  elif isinstance(held, Stored):
    image = _picture(held.state)
  else:
    raise ValueError(f'an image is {type(held).__name__}')
  buffer = io.BytesIO()
  # Nothing beside the pixels: what else a file said is of no use here.
  image.convert('RGB').save(buffer, format='PNG')
  data = buffer.getvalue()
  name = f'{hashlib.sha256(data).hexdigest()}.png'
  path = os.path.join(folder, 'images', name)
  if not os.path.exists(path):
    with open(f'{path}.partial', 'wb') as f:
      f.write(data)
    os.replace(f'{path}.partial', path)
  return name


def _picture(state) -> Image.Image:
  """The image of a state as Pillow writes it: info, mode, size, palette, data.
  """
  if not isinstance(state, list | tuple) or len(state) < 5:
    raise ValueError("an image has no state of Pillow's")
  _, mode, size, palette, data = state[:5]
  if mode not in _MODES or not isinstance(data, bytes):
    raise ValueError(f'an image of mode {mode!r}')
  width, height = size
  if type(width) is not int or type(height) is not int:
    raise ValueError(f'an image of size {size!r}')
  if min(width, height) < 1 or width * height > MAX_PIXELS:
    raise ValueError(f'an image of {width} x {height} pixels')
  image = Image.frombytes(mode, (width, height), data)
  if mode in ('P', 'PA') and palette:
    image.putpalette(bytes(palette))
  return image


if __name__ == '__main__':
  print(json.dumps(main(*sys.argv[1:])))
