"""The toy base: a tiny Qwen2.5-VL that sees, grounds and reads, from nothing.

It stands where a downloaded backbone would: it knows words, boxes and how to
look a fact up in a text it is shown, but has never seen a tool used. Written
as an ordinary Hugging Face folder.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
from typing import Any

from etils import epath
import jax
import jax.numpy as jnp
import numpy as np

from gog_jax import models
from gog_jax.chat.codec import Codec
from gog_jax.data.pipeline import endless_batches
from gog_jax.models.config import VLMConfig
from gog_jax.run import Run
from gog_jax.train import state as state_lib
from gog_jax.train import steps
from gog_jax.train.fit import fit
from gog_jax.train.fit import supervised_batch
from gog_jax.train.optimizer import make_optimizer
from gog_jax.train.optimizer import OptimizerConfig
from gog_jax.train.probe import probe
from gog_jax.types import StopReason
from gog_jax.types import TokenChunk
from gog_jax.types import Trajectory
from gog_jax.world import grounding
from gog_jax.world import reading
from gog_jax.world import scenes
from gog_jax.world.exchange import Exchange

# Everything of a model folder but its weights and its config.
_TOKENIZER_FILES = (
    'tokenizer.json',
    'tokenizer_config.json',
    'preprocessor_config.json',
)


# Of the lessons, in this order: each is a section of the config.
PHASES = ('read', 'look', 'refer')


class Lessons(Sequence[Trajectory]):
  """Endless lessons, each a function of its index.

  They come in PHASES. The first are reading lessons: copying is learnt far
  sooner when there is nothing to look at, and pointing needs what copying is
  made of. Then to see: what is where. Last, what is meant by 'the left emblem',
  which is not learnt before the others are (measured: docs/log.md).
  """

  def __init__(self, run: Run, *, seed: int):
    c = run.config.pretrain
    self._chat = run.chat
    self._content_ids = np.array(run.chat.content_ids)
    self._to_model_box = run.to_model_box((scenes.SIZE, scenes.SIZE))
    self._phases = [c[name] for name in PHASES]
    self._ends = np.cumsum([p.steps * c.batch_size for p in self._phases])
    self._n_exchanges = c.n_exchanges
    self._max_tokens = run.config.batch.row_tokens
    self._copying = c.copying
    self._seed = seed

  def __len__(self) -> int:
    return max(int(self._ends[-1]), 1)  # Grain wants one at least.

  def __getitem__(self, index: int) -> Trajectory:
    rng = np.random.default_rng((self._seed, index))
    # With no steps at all the last phase stands for none.
    number = np.searchsorted(self._ends[:-1], index, side='right')
    phase = self._phases[int(number)]
    shares = np.array([phase[kind] for kind in grounding.KINDS])
    scene = None
    parts: list[tuple[TokenChunk, list[int]]] = []
    room = self._max_tokens
    for n in range(self._n_exchanges):
      reads, copies = rng.random(2) < (phase.reading, self._copying)
      if reads and copies:
        part = self._copy_tokens(rng, first=n == 0)
      elif reads:
        part = self._plain(reading.ask(rng), first=n == 0)
      else:
        show, scene = scene is None, scene
        scene = scene or grounding.draw_scene(rng, twins=phase.twins)
        exchange = grounding.ask(
            rng,
            scene,
            self._to_model_box,
            kind=str(rng.choice(grounding.KINDS, p=shares / shares.sum())),
            show=show,
        )
        part = self._plain(exchange, first=n == 0)
      prompt, answer = part
      room -= len(prompt.token_ids) + len(answer)
      if parts and room < 0:  # Of few lessons; the first always fits.
        break
      parts.append(part)
    return conversation(str(index), parts)

  def _plain(
      self, exchange: Exchange, *, first: bool
  ) -> tuple[TokenChunk, list[int]]:
    return self._chat.plain(
        exchange.images, exchange.question, exchange.answer, first=first
    )

  def _copy_tokens(
      self, rng: np.random.Generator, *, first: bool
  ) -> tuple[TokenChunk, list[int]]:
    """The world's request to copy, with random tokens for its text.

    The tags of the protocol are among them: no token may meet its first
    gradient in SFT, where adapters alone are trained.
    """
    ids = rng.choice(self._content_ids, size=rng.integers(2, 8)).tolist()
    request, _ = self._chat.plain(
        (), reading.COPY.format(text='\0'), None, first=first
    )
    marker = self._chat.encode_untrusted('\0')[0]
    at = request.token_ids.index(marker)
    before, after = request.token_ids[:at], request.token_ids[at + 1 :]
    return (
        TokenChunk(token_ids=(*before, *ids, *after)),
        [*ids, self._chat.stop_ids[0]],
    )


def conversation(
    name: str, parts: Sequence[tuple[TokenChunk, Sequence[int]]]
) -> Trajectory:
  """Joins exchanges, (prompt, answer) each; the answers are the targets."""
  ids: list[int] = []
  mask: list[int] = []
  images, placements = [], []
  for prompt, answer in parts:
    placements += [
        dataclasses.replace(
            placement,
            start=placement.start + len(ids),
            image=placement.image + len(images),
        )
        for placement in prompt.placements
    ]
    images += prompt.images
    ids += [*prompt.token_ids, *answer]
    mask += [0] * len(prompt.token_ids) + [1] * len(answer)
  return Trajectory(
      example_id=name,
      sample=0,
      token_ids=np.array(ids, np.int32),
      loss_mask=np.array(mask, np.int8),
      sampler_logprobs=np.zeros(len(ids), np.float32),
      images=tuple(images),
      placements=tuple(placements),
      turns=(),
      stop_reason=StopReason.ANSWER,
  )


def _token_ids(folder: epath.Path) -> dict[str, int | None]:
  """What a config.json says of the tokenizer."""
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


def train(run: Run, folder: epath.Path) -> dict[str, Any]:
  """Pretrains all parameters, writes `folder/model` and measures that.

  With no steps, a base to start from is measured as it is.
  """
  c = run.config.pretrain
  n_steps = sum(c[name].steps for name in PHASES)
  if c.start_from:
    base, config = models.from_pretrained(c.start_from, dtype=jnp.float32)
  else:
    config = VLMConfig.from_dict(
        c.architecture.to_dict() | _token_ids(run.model_folder)
    )
    base = models.init(
        config, jax.random.key(run.seed('init')), dtype=jnp.float32
    )
  optimizer = make_optimizer(OptimizerConfig(**c.optimizer), n_steps=n_steps)
  state, model = state_lib.create(
      base,
      trainable='full',
      optimizer=optimizer,
      mesh=run.mesh,
      seed=run.seed('pretrain'),
      scan=run.config.model.scan,
      remat='none',
      logprob_chunk=run.config.model.logprob_chunk,
  )
  step = steps.make_sft_step(model, optimizer, state)

  state = fit(
      state,
      lambda state, batch: step(state, model.frozen, batch),
      endless_batches(
          Lessons(run, seed=run.seed('lessons')),
          batch_size=c.batch_size,
          seed=None,
          transform=lambda some: supervised_batch(
              run,
              some,
              vision_config=config.vision,
              row_multiple=c.row_multiple,
          ),
      ),
      what='pretrain',
      folder=folder,
      n_steps=n_steps,
      checkpoint_every=c.checkpoint_every,
      mesh=run.mesh,
  )
  trained = state_lib.merged(model, state.params)
  models.save_pretrained(trained, config, folder / 'model', dtype=jnp.bfloat16)
  for name in _TOKENIZER_FILES:
    (folder / 'model' / name).write_bytes(
        (run.model_folder / name).read_bytes()
    )
  sizes = [x.size for x in jax.tree.leaves(state.params)]
  written, _ = models.from_pretrained(folder / 'model', dtype=run.dtype)
  return {
      'steps': int(state.step),
      'parameters': sum(sizes),
      **probe(run, written, n=c.n_probes),
  }
