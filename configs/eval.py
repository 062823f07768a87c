"""Greedy evaluation of policies, and the report.

What is evaluated is a PARADIGM@MODEL, or a short name for one
(gog_jax/config/paradigms.py), on `eval.benchmark`, with any
`tools.backend`:

    python -m gog_jax.main --config=configs/eval.py
    python -m gog_jax.main --config=configs/eval.py:hard

    # Models of one's own, trained or as they are, on a published benchmark.
    python -m gog_jax.main --config=configs/eval.py:qwen2_5_vl_7b \
      --config.model.path=FOLDER --workdir=RUN \
      --config.eval.policies="('direct@base', 'gog@base', 'gog@rl')" \
      --config.eval.benchmark=simplevqa --config.benchmark.path=DATA \
      --config.tools.backend=index --config.tools.index=INDEX

    # A model behind an OpenAI-compatible endpoint; what it would cost, first.
    python -m gog_jax.main --config=configs/eval.py --dry_run \
      --config.eval.policies="('direct@remote', 'full_search@remote', \
      'gog@remote', 'mmsearch_r1@remote')" \
      --config.remote.url=http://127.0.0.1:8080/v1 --config.remote.model=NAME \
      --config.remote.price_in=0.4 --config.remote.price_out=1.2 \
      --config.remote.max_spend=20.0

    # A policy of one's own in Python (gog_jax/evaluation/policies.py).
    python -m gog_jax.main --config=configs/eval.py \
      --config.eval.policies="('gog@script',)" \
      --config.eval.script=my_plays:answer_no

Every item is durable as it finishes: stopped or killed, the same command goes
on. WORKDIR/eval*/POLICY/progress.json says how far it is and what it shows so
far.

Remote models are given the values in `general` in place of the toy's. Every
field is in gog_jax/config/, its value in configs/common.py; change one with
--config.FIELD=VALUE.
"""

from gog_jax.config import sibling

common = sibling(__file__, 'common')


def get_config(profile: str = 'toy'):
  c = common.get_base(profile)
  c.stage = 'eval'
  return c
