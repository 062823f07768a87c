"""What the first owner of a machine or of weights runs, and sends others."""

from __future__ import annotations

from collections.abc import Callable, Generator
import math
import platform
import time
from typing import Any

from etils import epath
import jax
import numpy as np
from PIL import Image

import gog_jax
from gog_jax import images
from gog_jax.app import parity
from gog_jax.config.pages import CheckPage
from gog_jax.errors import first_line
from gog_jax.models import hf_config
from gog_jax.rollout.policy import Conversation
from gog_jax.rollout.sampler import JaxPolicy
from gog_jax.run import build
from gog_jax.run import Run
from gog_jax.storage import files
from gog_jax.storage import metrics
from gog_jax.train import losses
from gog_jax.train import state as state_lib
from gog_jax.train import steps
from gog_jax.train.batches import to_batches
from gog_jax.train.optimizer import make_optimizer
from gog_jax.types import Example
from gog_jax.types import StopReason
from gog_jax.types import TokenChunk
from gog_jax.types import Trajectory

_QUESTION = 'What is in this picture?'
# Of the mean |difference| of a sampled token's logprob, sampler to trainer:
# other shapes are rounded otherwise, by a tenth of this; a shift by one
# position is above 1.
_MOST_GAP = {'float32': 0.01, 'bfloat16': 0.1}
_N_UPDATES = 2  # The first compiles.


def check(config: CheckPage, workdir: epath.Path) -> bool:
  """Makes all checks, prints them and writes check.json; whether none failed.

  Raises:
    UserError: The model folder, the image or the workdir cannot be used.
  """
  run = build(config, workdir)
  files.check_writable(workdir)
  picture = _drawn()
  if config.image:
    with files.readable(f'--config.image={config.image}'):
      picture = epath.Path(config.image).read_bytes()
    images.decode(picture)
  found: list[dict[str, Any]] = []

  def note(name: str, make: Callable[[], tuple[bool | None, str]]) -> None:
    began = time.monotonic()
    try:
      passed, said = make()
    except Exception as error:  # pylint: disable=broad-except
      # Whatever it is, out of memory above all, is what was to be found out.
      passed, said = False, f'{type(error).__name__}: {first_line(error)}'
    word = {True: 'ok', False: 'FAILED', None: '--'}[passed]
    print(f'{word:6}  {name}: {said}', flush=True)
    seconds = round(time.monotonic() - began, 1)
    found.append(
        {'name': name, 'ok': passed, 'said': said, 'seconds': seconds}
    )

  trained = _training(run, picture)
  for name in ('sampler', 'sampler and trainer', 'update'):
    note(name, lambda: next(trained, (None, 'not reached')))
  trained.close()  # Theirs needs the memory.
  note('memory', lambda: (True, metrics.shown(metrics.peak_memory())))
  note('transformers', lambda: _compared(run, picture))
  device = jax.devices()[0]
  files.write_json(workdir / 'check.json', {
      'gog_jax': gog_jax.__version__,
      'jax': jax.__version__,
      'python': platform.python_version(),
      'machine': platform.machine(),
      'device': f'{jax.device_count()} {device.platform} {device.device_kind}',
      'profile': config.profile,
      'trainable': config.trainable,
      'dtype': config.model.dtype,
      'model': hf_config.to_dict(run.model_config),
      'checks': found,
  })  # fmt: skip
  metrics.say(f'check: {workdir / "check.json"}, to be sent to others')
  return all(one['ok'] is not False for one in found)


def _training(
    run: Run, picture: bytes
) -> Generator[tuple[bool, str], None, None]:
  """What a step of RL is made of, at the profile's size, part by part."""
  c = run.config
  variant = losses.variant_of(c.rl)
  n_updates = c.rl.steps * c.rl.updates_per_batch
  optimizer = make_optimizer(c.rl.optimizer, n_steps=n_updates)
  model, state, frozen = state_lib.start_state(
      run, optimizer, start_from='base'
  )
  policy = run.make_policy(model, greedy=False)
  del model
  _sample(run, policy, picture, again=0)  # Compiles.
  began = time.monotonic()
  trajectories = _sample(run, policy, picture, again=1)
  seconds = time.monotonic() - began
  n_tokens = sum(int(t.loss_mask.sum()) for t in trajectories)
  values = np.concatenate([t.sampler_logprobs for t in trajectories])
  yield bool(n_tokens and np.isfinite(values).all()), (
      f'{n_tokens / seconds:.1f} tokens a second, of {len(trajectories)} '
      f'conversations, prefill included; prompts of '
      f'{int((trajectories[0].loss_mask == 0).sum())} tokens'
  )
  reference = frozen.kept(state.params)
  step = steps.make_grpo_step(frozen, optimizer, state, variant)
  before = jax.device_get(state.params)
  measured: list[dict[str, Any]] = []
  for _ in range(_N_UPDATES):
    batches = to_batches(
        run,
        trajectories,
        micro_rows=c.rl.micro_rows,
        aggregation=variant.aggregation,
        advantages=np.resize([1.0, -1.0], len(trajectories)),
    )
    began = time.monotonic()
    state, _, values = step(state, reference, batches)
    measured.append(jax.device_get(values))
    seconds = time.monotonic() - began
  gap, most = float(measured[0]['sampler_gap']), _MOST_GAP[c.model.dtype]
  yield gap <= most, (
      f'mean difference of a logprob {gap:.2e} (at most {most:g}), largest '
      f'{measured[0]["sampler_gap_max"]:.2e}, over {n_tokens} tokens'
  )
  norms = [float(one['grad_norm']) for one in measured]
  moved = any(
      not np.array_equal(old, new)
      for old, new in zip(
          jax.tree.leaves(before), jax.tree.leaves(jax.device_get(state.params))
      )
  )
  finite = all(math.isfinite(norm) and norm for norm in norms)
  yield finite and moved, (
      f'{c.trainable}, gradient norm {norms[-1]:.3g}, parameters '
      f'{"moved" if moved else "DID NOT MOVE"}, {seconds:.1f} s: '
      f'{values["n_tokens"] / seconds:.0f} tokens a second'
  )


def _sample(
    run: Run, policy: JaxPolicy, picture: bytes, *, again: int
) -> list[Trajectory]:
  """A message about a picture in each slot."""
  example = Example(
      id='check', images=(picture,), question=_QUESTION, answers=(),
      source='', scope='',
  )  # fmt: skip
  conversations = [
      Conversation(
          request=run.request(example, seed=('check', again, slot)), slot=slot
      )
      for slot in range(policy.capacity)
  ]
  for conversation in conversations:
    conversation.append(run.chat.prompt(example))
  for conversation, said in zip(conversations, policy.sample(conversations)):
    chunk = TokenChunk(token_ids=said.token_ids)
    conversation.append(chunk, target=True, logprobs=said.logprobs)
  return [
      conversation.trajectory(example.id, StopReason.ANSWER)
      for conversation in conversations
  ]


def _compared(run: Run, picture: bytes) -> tuple[bool | None, str]:
  try:
    return parity.compare(run, picture, _QUESTION)
  except ImportError as error:
    return None, (
        f'not compared, as {error.name} is missing: pip install torch '
        'transformers'
    )


def _drawn() -> bytes:
  """A picture with something at every scale."""
  rows, columns = np.mgrid[:360, :480]
  waves = [np.sin(rows / n) * np.cos(columns * n / 300) for n in (7, 23, 90)]
  pixels = (127.5 * (1 + np.stack(waves, axis=-1))).astype(np.uint8)
  return images.encode_png(Image.fromarray(pixels))
