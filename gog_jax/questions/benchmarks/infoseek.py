"""InfoSeek: MMSearch-R1's subset in verl's parquet, or the authors' JSON lines.

Which 2,000 questions the paper has is not published. MMSearch-R1's, which its
peers use, are; they count as the paper's, and a note says that this is a guess.
Of the authors' file as many are drawn, and said not to be the paper's.
"""

from __future__ import annotations

import os

from gog_jax.errors import UserError
from gog_jax.questions import infoseek
from gog_jax.questions import parquet
from gog_jax.questions import verl
from gog_jax.questions.benchmarks import reading

_SUBSET = 'mmsearch_r1_infoseek_sub_2k'
# The validation set alone has answers that anyone can look at.
_FILES = ('infoseek_val.jsonl', 'infoseek_val_withkb.jsonl')


def read(request: reading.Request) -> reading.Reading:
  """Reads the parquet file if there is one, else the JSON lines.

  Raises:
    UserError: There is neither, or as their readers say.
  """
  name, path = request.spec.name, request.path
  if parquet.files_of(path) if os.path.isdir(path) else path.endswith(
      ('.parquet', '.pq')
  ):
    records = verl.read(
        path, name=name, images=request.images, prefer=('infoseek', '')
    )
    files = ' '.join(parquet.files_of(path, prefer=('infoseek', '')))
    published = _SUBSET in files
    note = (
        "MMSearch-R1's published subset; that the paper has the same 2,000 is "
        'likely, and said nowhere'
    )
    return reading.of(
        records, published=published, notes=(note,) if published else ()
    )
  return reading.of(
      infoseek.read(_file(path), name=name, images=request.images)
  )


def _file(path: str) -> str:
  if os.path.isfile(path):
    return path
  for place, folders, names in os.walk(path):
    folders.sort()
    for name in _FILES:
      if name in names:
        return os.path.join(place, name)
  raise UserError(
      f'{path} holds neither {_SUBSET}.parquet nor {_FILES[0]}; give '
      '--config.benchmark.path the file itself if it has another name'
  )
