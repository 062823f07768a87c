"""A benchmark as a source of questions, see questions/sources.py."""

from __future__ import annotations

from gog_jax.config.evaluation import BenchmarkConfig
from gog_jax.errors import UserError
from gog_jax.questions.benchmarks import loading
from gog_jax.questions.benchmarks import registry
from gog_jax.questions.fetched import Fetched
from gog_jax.storage.records import Loaded
from gog_jax.types import Example


def read(place: str, *, images: str, fetched: Fetched) -> Loaded[Example]:
  """Reads NAME:PATH: the items that configs/benchmark.py finds by default.

  Args:
    place: A benchmark that is read from files, and its path or hub id.
    images: The folder of images that it names or links to.
    fetched: Images that it links to.

  Raises:
    UserError: As `loading.open`, or there are no two such parts.
  """
  name, _, path = place.partition(':')
  if not path or registry.find(name, field='config.questions').read is None:
    raise UserError(
        f'config.questions has benchmark:{place}; it takes benchmark:NAME:PATH '
        'of a published set; the world and functions are sources themselves'
    )
  section = BenchmarkConfig(
      name=name, path=path, images=images, ids='', n=0, seed=0, scope='',
      fetch_images=False, fetch=fetched.config, options=False, date='',
  )  # fmt: skip
  whole = loading.open(section, fetched=fetched)
  return Loaded(name=name, items=whole.examples, drops=whole.drops)
