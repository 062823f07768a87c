"""Stage 1: reflective behaviour alignment. SFT on expert trajectories.

The expert plays through the same rollout loop, chat and executor as the policy
will, so that its trajectories have the tokens, masks and images of a rollout.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from etils import epath
import numpy as np

from gog_jax import checkpoint
from gog_jax import metrics
from gog_jax.data.pipeline import endless_batches
from gog_jax.images import size_of
from gog_jax.rollout import trajectories as trajectories_lib
from gog_jax.rollout.policy import Request
from gog_jax.rollout.scripted import ScriptedPolicy
from gog_jax.run import Run
from gog_jax.train import steps
from gog_jax.train.fit import fit
from gog_jax.train.fit import supervised_batch
from gog_jax.train.optimizer import make_optimizer
from gog_jax.train.optimizer import OptimizerConfig
from gog_jax.train.start import start_state
from gog_jax.types import Example
from gog_jax.types import Turn
from gog_jax.world import expert
from gog_jax.world.exchange import ToModelBox


def make_demos(run: Run, folder: epath.Path) -> dict[str, Any]:
  """Rolls the scripted expert out on the first `sft.n_demos` examples."""
  examples = run.demo_examples()

  def to_model_box(example: Example) -> ToModelBox:
    return run.to_model_box(size_of(example.images[0]))

  def script(request: Request, turns: tuple[Turn, ...]) -> Sequence[int]:
    rng = np.random.default_rng((request.seed, len(turns)))
    thought, calls, answer = expert.expert_turn(
        request.example, turns, to_model_box(request.example), rng
    )
    return run.chat.encode_turn(thought=thought, calls=calls, answer=answer)

  policy = ScriptedPolicy(
      script,
      capacity=run.config.sampler.n_slots,
      max_context=run.config.rollout.max_context,
  )
  with metrics.Progress('demos', total=len(examples)) as progress:
    groups = run.rollout(
        policy,
        examples,
        samples=1,
        seed=('demos',),
        on_trajectory=lambda _: progress.advance(),
    )
  demos = [demo for (demo,) in groups]
  trajectories_lib.write(folder / 'trajectories.jsonl', demos, examples)
  return {
      'n': len(demos),
      'expert_accuracy': float(
          np.mean([demo.reward_parts['accuracy'] for demo in demos])
      ),
      'no_search': float(np.mean([len(demo.turns) == 1 for demo in demos])),
  }


def train(run: Run, folder: epath.Path) -> dict[str, Any]:
  """Trains the adapters (or what `trainable` names) on the demos."""
  c = run.config.sft
  demos = trajectories_lib.read(run.workdir / 'demos' / 'trajectories.jsonl')
  optimizer = make_optimizer(OptimizerConfig(**c.optimizer), n_steps=c.steps)
  _, state, model = start_state(run, optimizer, start_from=None)
  sft_step = steps.make_sft_step(model, optimizer, state)
  batches = endless_batches(
      demos,
      batch_size=c.batch_size,
      seed=run.seed('sft'),
      transform=lambda some: supervised_batch(
          run,
          some,
          vision_config=run.model_config.vision,
          row_multiple=c.row_multiple,
      ),
  )
  state = fit(
      state,
      lambda state, batch: sft_step(state, model.frozen, batch),
      batches,
      what='sft',
      folder=folder,
      n_steps=c.steps,
      checkpoint_every=c.checkpoint_every,
      mesh=run.mesh,
  )
  checkpoint.save_pytree(folder / 'params', state.params)
  return {'steps': int(state.step), 'n_demos': len(demos)}
