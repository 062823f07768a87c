"""FVQA's pickled image searches -> a corpus that `configs/index.py` takes.

FVQA comes with `fvqa_{train,test}_image_search_results_cache.pkl`, which holds
what a reverse image search found for each question: titles, and pictures or
their addresses. It becomes `docs.jsonl`, with a document {id, title, text,
image, url} for each result (`fvqa_test_12/0` is the first of `fvqa_test_12`),
and a folder of the pictures as PNG files, each once. An index over both answers
image and text searches without a network:

    python -m gog_jax.main --config=configs/index.py \\
      --config.docs=OUT/docs.jsonl --config.images=OUT/images

A result with an address but no picture is found by its title.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import subprocess
import sys

from gog_jax.errors import UserError
from gog_jax.storage.records import Drop

_CHILD = pathlib.Path(__file__).with_name('fvqa_unpickle.py')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Converted:
  """What a cache became.

  Attributes:
    n_searches: Questions that have results.
    n_documents: Results.
    n_images: Results that have a picture.
    drops: Questions whose results cannot be used.
  """

  n_searches: int
  n_documents: int
  n_images: int
  drops: tuple[Drop, ...]


def convert(
    path: str,
    folder: str,
    *,
    memory_gb: float = 16.0,
    timeout_s: float = 3600.0,
) -> Converted:
  """Converts a cache in a child process, which alone unpickles it.

  Args:
    path: The pickle.
    folder: Where docs.jsonl and images/ go.
    memory_gb: The child's limit; it holds the whole cache in memory.
    timeout_s: The child's time limit.

  Raises:
    UserError: The cache cannot be read, names what no cache needs, or holds
      something else.
  """
  if not pathlib.Path(path).is_file():
    raise UserError(f'{path} is no file; give the cache that comes with FVQA')
  # -I: neither this folder nor the user's own packages.
  command = [sys.executable, '-I', str(_CHILD), str(path), str(folder)]
  try:
    child = subprocess.run(
        [*command, str(int(memory_gb * 2**30))],
        capture_output=True,
        env={},
        stdin=subprocess.DEVNULL,
        timeout=timeout_s,
    )
  except subprocess.TimeoutExpired as error:
    raise UserError(
        f'{path} was not read within {timeout_s:g} seconds'
    ) from error
  try:
    said = json.loads(child.stdout.decode().strip().split('\n')[-1])
  except ValueError as error:
    why = child.stderr.decode(errors='replace').strip().split('\n')[-1]
    raise UserError(
        f'{path} ended the process that read it (exit code {child.returncode}'
        f'{": " + why if why else ""}); with a larger memory_gb it may do'
    ) from error
  if 'error' in said:
    raise UserError(f'{path} {said["error"]}')
  return Converted(
      **said['counts'],
      drops=tuple(
          Drop(where=f'{path}, {id}', reason='bad search', detail=detail)
          for id, detail in said['drops']
      ),
  )
