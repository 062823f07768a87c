"""An index over your own documents and photographs, to search on this machine.

    python -m gog_jax.main --config=configs/index.py \
      --config.docs=corpus.jsonl --config.images=FOLDER [--config.index=DIR]

Needs no model and no network. Run again after a change, only what changed is
done; after a stop, it goes on from there.
"""

from ml_collections import ConfigDict


def get_config():
  c = ConfigDict()
  c.stage = 'index'
  c.profile = 'index'
  # JSON lines: {"id", "contents"} as Search-R1 has them, contents being
  # '"title"\ntext'; or {"id", "title", "text", "image"}, where title and image
  # (a file of the folder below) may be missing.
  c.docs = ''
  # A folder of image files; photo.txt beside photo.jpg is its caption.
  c.images = ''
  # Where the index goes.
  c.index = 'runs/index'
  # A folder of CLIP or SigLIP weights, to find like pictures too; '' for none.
  c.encoder = ''
  return c
