"""Training data from one format to another; what is of no use is counted.

    python -m gog_jax.main --config=configs/convert.py \
      --config.input=data.json --config.output=data.jsonl --config.format=swift

Reads LLaMA-Factory's ShareGPT and ms-swift's messages (.json, .jsonl), TFDS
sets of conversations, and folders with trajectories.jsonl, which the profile's
model must have made; writes all but the last. Nothing is encoded: what is
written trains any model. Calls that their tools would refuse are left out:
`--config.sft.data_box` says in what boxes are, where a row does not.
"""

from gog_jax.config import sibling

common = sibling(__file__, 'common')


def get_config(profile: str = 'toy'):
  c = common.get_base(profile)
  c.stage = 'convert'
  c.input = ''
  c.output = ''
  c.format = 'sharegpt'
  c.split = 'train'
  c.name = 'gog_instruct'
  c.description = ''
  return c
