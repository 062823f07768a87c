"""What an evaluation takes per item, beside the policy and its searches.

    python -m scripts.bench_eval [--items=2000] [--workdir=FOLDER]

Evaluates a scripted policy, which searches and then answers, on the embedded
world, through the same code as configs/eval.py: data set, prompts, rollout,
executor, scoring, and every item durable on disk. Searches find the same thing
at once, so that they take nothing; the policy's time is taken off.
"""

from __future__ import annotations

import shutil
import tempfile
import time

from absl import app
from absl import flags

from configs import eval as page
from gog_jax.app import walk
from gog_jax.config import from_page
from gog_jax.evaluation import evaluate
from gog_jax.evaluation import policies
from gog_jax.run import build
from gog_jax.run import Run
from gog_jax.toy.backend import WorldBackend
from gog_jax.types import Hit
from gog_jax.types import ToolResult

NAME = 'gog@script'
_FOUND = ToolResult(
    hits=(Hit(title='beldak', text='beldak year 132', score=1.0),)
)


def play(request, turns):
  """Searches with words in one question of two, then answers."""
  if not turns and request.seed % 2:
    return 'look', [('text_search', {'query': 'beldak'})], None
  return 'so', [], 'nothing'


def make_run(workdir: str, n: int) -> Run:
  """A run of configs/eval.py with a scripted policy alone."""
  config = page.get_config('toy')
  config.update_from_flattened_dict({
      'data.n_train': 16,
      'data.n_validation': 16,
      'data.n_hard': 16,
      'data.n_test': n,
      'eval.n_examples': n,
      'eval.policies': (NAME,),
      'eval.script': 'scripts.bench_eval:play',
  })
  return build(from_page(config), workdir)


def measure(run: Run) -> tuple[float, float]:
  """Seconds of an evaluation without its policy: by the wall, of processors."""
  own = policies.run_of(run, NAME)
  own.chat  # noqa: B018  Made once, however many items.
  in_policy = [0.0, 0.0]

  def make_policy():
    policy = policies.make(own, NAME)
    sample = policy.sample

    def timed(conversations):
      wall, cpu = time.perf_counter(), time.thread_time()
      turns = sample(conversations)
      in_policy[0] += time.perf_counter() - wall
      in_policy[1] += time.thread_time() - cpu
      return turns

    policy.sample = timed
    return policy

  folder = run.workdir / 'eval' / NAME
  wall, cpu = time.perf_counter(), time.process_time()
  evaluate.evaluate(own, folder, name=NAME, make_policy=make_policy)
  return (
      time.perf_counter() - wall - in_policy[0],
      time.process_time() - cpu - in_policy[1],
  )


async def _found(*unused_args, **unused_kwargs) -> ToolResult:
  return _FOUND


def main(unused_argv) -> None:
  n = flags.FLAGS.items
  workdir = flags.FLAGS.workdir or tempfile.mkdtemp()
  WorldBackend.search_text = _found
  try:
    run = make_run(workdir, n)
    walk.make(run, 'data')
    shutil.rmtree(run.workdir / 'eval', ignore_errors=True)
    wall, cpu = measure(run)
  finally:
    if not flags.FLAGS.workdir:
      shutil.rmtree(workdir)
  print(
      f'{n} items: {1000 * wall / n:.2f} ms per item beside policy and '
      f'searches, {1000 * cpu / n:.2f} ms of processor time'
  )


if __name__ == '__main__':  # The policy is found in here, too.
  flags.DEFINE_integer('items', 2000, 'Questions.')
  flags.DEFINE_string('workdir', '', 'Default: a temporary one.')
  app.run(main)
