"""What a published set of questions holds, before anything is run on it.

    python -m gog_jax.main --config=configs/benchmark.py \
      --config.benchmark.name=fvqa_test --config.benchmark.path=FOLDER

Prints how many questions there are and how many were left out, and why; the
hash of their contents, which is kept and compared the next time; whether they
are the paper's; and three of them. Reads files alone, unless
--config.benchmark.fetch_images asks for images that are only linked to.
"""

from ml_collections import ConfigDict

from gog_jax.config import sibling

sections = sibling(__file__, 'sections')


def get_config():
  c = ConfigDict()
  c.stage = 'benchmark'
  c.profile = 'benchmark'
  c.benchmark = sections.benchmark()
  return c
