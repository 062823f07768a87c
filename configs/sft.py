"""Reflective behaviour alignment: SFT on an expert's trajectories.

    python -m gog_jax.main --config=configs/sft.py
    python -m gog_jax.main --config=configs/sft.py:qwen2_5_vl_7b \
      --config.model.path=FOLDER

Every field is in gog_jax/config/, its value in configs/common.py; change one
with --config.FIELD=VALUE.
"""

from gog_jax.config import sibling

common = sibling(__file__, 'common')


def get_config(profile: str = 'toy'):
  c = common.get_base(profile)
  c.stage = 'sft'
  return c
