"""What a model folder holds, and what will and won't work with it.

    python -m gog_jax.main --config=configs/inspect.py \
      --config.model.path=FOLDER

Prints only; nothing is written. Damaged and incomplete folders are looked at as
far as they go. Without a path it is the toy base that ships with the package.
"""

from gog_jax.config import sibling

common = sibling(__file__, 'common')


def get_config(profile: str = 'toy'):
  c = common.get_base(profile)
  c.stage = 'inspect'
  return c
