"""The toy base: a tiny Qwen2.5-VL that sees, grounds and reads, from nothing.

It stands where a downloaded backbone would: it sees, thinks, calls tools in
their format and reads what they reply, one step of a conversation at a time.
Which questions need which steps, and when to stop, SFT and RL teach. Written as
an ordinary Hugging Face folder.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from etils import epath
import jax
import jax.numpy as jnp

from gog_jax import models
from gog_jax.chat.codec import Codec
from gog_jax.models import hf_config
from gog_jax.models.layers import Execution
from gog_jax.toy.lessons import Lessons
from gog_jax.toy.lessons import PHASES
from gog_jax.toy.lessons import PretrainRun
from gog_jax.toy.probe import probe
from gog_jax.train import state as state_lib
from gog_jax.train import steps
from gog_jax.train.batches import to_batches
from gog_jax.train.fit import fit
from gog_jax.train.optimizer import make_optimizer
from gog_jax.train.pipeline import endless_batches

# The files of a model folder besides weights and config.
_COPIED = (
    'tokenizer.json', 'tokenizer_config.json', 'preprocessor_config.json',
)  # fmt: skip


def _token_ids(folder: epath.Path) -> dict[str, int | None]:
  """The fields of config.json that depend on the tokenizer."""
  codec = Codec(folder)
  names = {
      'image_token_id': '<|image_pad|>',
      'video_token_id': '<|video_pad|>',
      'vision_start_token_id': '<|vision_start|>',
      'vision_end_token_id': '<|vision_end|>',
      'eos_token_id': '<|im_end|>',
      'pad_token_id': '<|endoftext|>',
  }
  ids = {key: codec.id_of(token) for key, token in names.items()}
  return ids | {'vocab_size': -(-codec.vocab_size // 64) * 64}


def train(run: PretrainRun, folder: epath.Path) -> dict[str, Any]:
  """Pretrains all parameters, writes `folder/model` and measures it.

  Without steps, the base to start from is measured as it is.
  """
  c = run.config.pretrain
  n_steps = sum(getattr(c, name).steps for name in PHASES)
  if c.start_from:
    base, config = models.from_pretrained(c.start_from, dtype=jnp.float32)
  else:
    config = hf_config.from_dict(
        dict(c.architecture) | _token_ids(run.model_folder)
    )
    base = models.init(
        config, jax.random.key(run.seed('init')), dtype=jnp.float32
    )
  optimizer = make_optimizer(c.optimizer, n_steps=n_steps)
  state, model = state_lib.create(
      base,
      trainable='full',
      optimizer=optimizer,
      mesh=run.mesh,
      seed=run.seed('pretrain'),
      execution=Execution(scan=run.config.model.scan),
      logprob_chunk=run.config.model.logprob_chunk,
  )
  state = fit(
      state,
      steps.make_sft_step(model, optimizer, state),
      endless_batches(
          Lessons(run, seed=run.seed('lessons')),
          batch_size=c.batch_size,
          seed=None,
          transform=functools.partial(
              to_batches,
              dataclasses.replace(run, model_config=config),
              micro_rows=c.micro_rows,
          ),
      ),
      what='pretrain',
      config=run.config,
      folder=folder,
      n_steps=n_steps,
      checkpoint_every=c.checkpoint_every,
  )
  trained = state_lib.merged(model, state.params)
  models.save_pretrained(trained, folder / 'model', dtype=jnp.bfloat16)
  for name in _COPIED:
    data = (run.model_folder / name).read_bytes()
    (folder / 'model' / name).write_bytes(data)
  sizes = [x.size for x in jax.tree.leaves(state.params)]
  written, _ = models.from_pretrained(folder / 'model', dtype=run.dtype)
  return {
      'steps': int(state.step),
      'parameters': sum(sizes),
      **probe(run, written, n=c.n_probes),
  }
