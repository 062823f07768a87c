"""Serves an index over HTTP: Search-R1's protocol, for text and for images.

    python -m gog_jax.main --config=configs/retrieve.py \
      --config.index=DIR --config.port=8000

DIR is what configs/index.py made. Prints one line when it is ready; Ctrl-C ends
it. Whoever sets GOG_JAX_RETRIEVER_KEY in its environment demands that key of
every request ("Authorization: Bearer KEY"), of 8 characters at least. A request
holds at most 1,024 queries or 64 images of 16 megapixels, 32 MB in all, and
asks for at most 100 results each.
"""

from ml_collections import ConfigDict


def get_config():
  c = ConfigDict()
  c.stage = 'retrieve'
  c.profile = 'retrieve'
  c.index = 'runs/index'
  c.encoder = ''  # A folder of weights, if the index was built with it.
  c.host = '127.0.0.1'  # This machine alone; 0.0.0.0 is everyone.
  c.port = 8000
  return c
