"""Greedy evaluation of the policies on held-out questions, and the report.

    python -m gog_jax.main --config=configs/eval.py
    python -m gog_jax.main --config=configs/eval.py:hard
    python -m gog_jax.main --config=configs/eval.py:qwen2_5_vl_7b \
      --config.model.path=FOLDER

Every field is in configs/common.py; change one with --config.FIELD=VALUE.
"""

from configs import common


def get_config(profile: str = 'toy'):
  c = common.get_base(profile)
  c.stage = 'eval'
  return c
