"""The paper's table beside ours, from what runs have evaluated.

    python -m gog_jax.main --config=configs/table.py --workdir=runs/toy
    python -m gog_jax.main --config=configs/table.py --workdir=runs/table \
      --config.table.workdirs="('runs/qwen2_5_vl_7b', 'runs/qwen3_vl_8b')"

Writes WORKDIR/table.json and table.md and prints the latter. Needs no model;
evaluations that are under way are read as far as they are.
"""

from ml_collections import ConfigDict


def get_config():
  c = ConfigDict()
  c.stage = 'table'
  c.profile = 'toy'  # Its runs are in runs/toy.
  c.table = ConfigDict()
  c.table.workdirs = ()  # Of the runs to read; the --workdir itself if none.
  c.table.seed = 0  # Of the bootstrap.
  return c
