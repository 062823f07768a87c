"""Does a judge say what people say? Its agreement with labels made by hand.

    python -m gog_jax.main --config=configs/judge.py \
      --config.labels=labels.jsonl \
      --config.judge.url=http://127.0.0.1:8080/v1 --config.judge.model=NAME

Each line of the file is an answer that somebody has judged:

    {"question": "..", "answers": ["..", ".."], "answer": "..", "right": true}

The figures are printed, and written to WORKDIR/agreement.json with every
disagreement. The judge is the one that --config.reward.accuracy=judge has on
the other pages, if it is given the same fields of `judge`.
"""

from ml_collections import ConfigDict

from gog_jax.config import sibling

sections = sibling(__file__, 'sections')


def get_config():
  c = ConfigDict()
  c.stage = 'judge'
  c.profile = 'judge'
  c.labels = ''  # A file of JSON lines.
  c.judge = sections.judge()
  return c
