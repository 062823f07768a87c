"""A check of one's machine and one's weights, in minutes.

    python -m gog_jax.main --config=configs/check.py:qwen3_vl_8b \
      --config.model.path=FOLDER --workdir=runs/check

Samples with the profile's cache, compares the sampler's logprobs with the
trainer's, makes two updates of what the profile trains, at its size, and, where
torch and transformers are installed, compares logits with theirs. A line a
check, with speed and memory; WORKDIR/check.json holds the same, to be sent to
others. Exit code 1: a check has failed.

`image` is a file; without one it is a picture that is drawn. Logits are
compared in `model.dtype`: closely in float32, and by first choices alone in
bfloat16.
"""

from gog_jax.config import sibling

common = sibling(__file__, 'common')


def get_config(profile: str = 'toy'):
  c = common.get_base(profile)
  c.stage = 'check'
  c.image = ''
  c.seeds = ()
  # Minutes on a CPU, too.
  c.rollout.max_turn_tokens = min(c.rollout.max_turn_tokens, 64)
  return c
