"""Pass rates of the frozen SFT policy, query by query -> levels.

    python -m gog_jax.main --config=configs/grade.py
    python -m gog_jax.main --config=configs/grade.py:qwen2_5_vl_7b \
      --config.model.path=FOLDER

Every field is in gog_jax/config/, its value in configs/common.py; change one
with --config.FIELD=VALUE.
"""

from gog_jax.config import sibling

common = sibling(__file__, 'common')


def get_config(profile: str = 'toy'):
  c = common.get_base(profile)
  c.stage = 'grade'
  return c
