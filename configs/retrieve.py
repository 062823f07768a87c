"""Serves searches over HTTP: Search-R1's protocol, for text and for images.

    python -m gog_jax.main --config=configs/retrieve.py \
      --config.index=DIR --config.port=8000
    python -m gog_jax.main --config=configs/retrieve.py \
      --config.tools.backend=FILE.py:NAME

DIR is what configs/index.py made; any other `tools.backend`, `tools.text` and
`tools.image` are served as well. Prints one line when it is ready; Ctrl-C ends
it. Start it with JAX_PLATFORMS=cpu in its environment where training has the
accelerator. Whoever sets GOG_JAX_RETRIEVER_KEY there demands that key of every
request ("Authorization: Bearer KEY"), of 8 characters at least. A request holds
at most 1,024 queries or 64 images of 16 megapixels, 32 MB in all, and asks for
at most 100 results each.
"""

from ml_collections import ConfigDict

from gog_jax.config import sibling

sections = sibling(__file__, 'sections')


def get_config():
  c = ConfigDict()
  c.stage = 'retrieve'
  c.profile = 'retrieve'
  c.tools = sections.tools()
  c.tools.update(backend='index', index='runs/index', top_k=3)
  c.index = c.tools.get_ref('index')
  c.encoder = c.tools.get_ref('encoder')  # If the index was built with one.
  c.host = '127.0.0.1'  # This machine alone; 0.0.0.0 is everyone.
  c.port = 8000
  return c
