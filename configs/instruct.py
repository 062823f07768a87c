"""A GoG-Instruct set: a teacher's trajectories, checked, as a TFDS data set.

    python -m gog_jax.main --config=configs/instruct.py
    python -m gog_jax.main --config=configs/instruct.py \
      --config.instruct.teacher=remote \
      --config.remote.url=http://127.0.0.1:8080/v1 --config.remote.model=NAME \
      --config.questions.train="('examples:FOLDER',)" \
      --config.tools.backend=index --config.tools.index=DIR --workdir=runs/mine

The first asks the embedded world's expert about the embedded world. Questions
-> which are too easy -> the teacher's trajectories, by the tools of this run ->
checks -> the mixture -> WORKDIR/instruct: `set`, the data set with its data
card; `drops.jsonl`, why the others are not in it; `review.html`, a page on
which people accept or reject, whose file --config.instruct.review=FILE takes.

With --dry_run it says what it would take. Stopped or killed, the
same command goes on; what the teacher has answered is not asked again.
"""

from gog_jax.config import sibling

common = sibling(__file__, 'common')
sections = sibling(__file__, 'sections')


def get_config(profile: str = 'toy'):
  c = common.get_base(profile)
  c.stage = 'instruct'
  c.seeds = ()
  c.instruct = sections.instruct()
  c.remote.temperature = 0.7  # Or a second attempt would be the first.
  c.remote.seeded = True
  c.untouched.update({'seeds': c.seeds, 'remote': c.remote})  # For it alone.
  return c
