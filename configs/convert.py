"""Training data from one format to another; what is of no use is counted.

    python -m gog_jax.main --config=configs/convert.py \
      --config.input=data.json --config.output=data.jsonl --config.format=swift

Reads LLaMA-Factory's ShareGPT and ms-swift's messages (.json, .jsonl), folders
with trajectories.jsonl, and TFDS sets of trajectories; writes the same. Where
words become tokens or tokens words, it is those of the profile's model.
"""

from configs import common


def get_config(profile: str = 'toy'):
  c = common.get_base(profile)
  c.stage = 'convert'
  c.input = ''  # A file or a folder.
  c.output = ''  # A .json or .jsonl file for sharegpt and swift; or a folder.
  c.format = 'sharegpt'  # Or 'swift', 'trajectories', 'tfds'.
  c.split = 'train'  # Of a TFDS set that is read.
  c.name = 'gog_instruct'  # Of a TFDS set that is written, and
  c.description = ''  # what it is.
  return c
