"""The JAX policy: a fixed number of slots, their KV cache kept across turns.

A turn costs a prefill of the new tokens only (a prompt, once for all slots that
begin with it, or an observation) and a decode loop that stays on the device
until every sampling slot has closed its turn. All shapes are fixed, so that
nothing is compiled after its first use. Parameters are the trainer's own
arrays, by reference.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import functools
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from gog_jax.images import ImageProcessor
from gog_jax.models import sharding
from gog_jax.models.rope import mrope_positions
from gog_jax.models.text import KVCache
from gog_jax.models.vlm import VLM
from gog_jax.rollout import features
from gog_jax.rollout.policy import Conversation
from gog_jax.rollout.policy import SampledTurn
from gog_jax.types import TokenChunk

_ROWS_AT_ONCE = 16  # Rows of one prefill.


class JaxPolicy:
  """Samples turns from a `VLM`. Implements `Policy`.

  Args:
    model: Defines the graph and the first parameters; `update` brings later
      ones.
    processor: Makes patches.
    n_slots: Conversations under way at once.
    max_context: Tokens of a conversation, and the KV cache's length.
    max_turn_tokens: Tokens of one sampled turn; fewer where the context ends.
    chunk: Tokens prefilled at once; longer observations take several.
    stop_ids: Tokens that close a turn.
    greedy: Take the most likely token instead of sampling. Sampling is always
      at temperature 1 from the whole distribution: importance ratios would be
      wrong otherwise.
    banned_ids: Tokens never taken, if greedy.
    attention: Of the ViT, one of attention.BACKENDS.
    mesh: Where the parameters lie, if on several devices; slots are split over
      them.
  """

  def __init__(
      self,
      model: VLM,
      *,
      processor: ImageProcessor,
      n_slots: int,
      max_context: int,
      max_turn_tokens: int,
      chunk: int,
      stop_ids: Sequence[int],
      greedy: bool,
      banned_ids: Sequence[int] = (),
      attention: str = 'xla',
      mesh: jax.sharding.Mesh | None = None,
  ):
    if banned_ids and not greedy:
      raise ValueError('tokens can be banned from greedy decoding only')
    self.capacity = n_slots
    self._max_context = max_context
    self._config = model.config
    self._processor = processor
    self._chunk = chunk
    # Rows are split over several devices only.
    self._mesh = mesh if mesh is not None and mesh.size > 1 else None
    self._by_rows = self._mesh and jax.sharding.NamedSharding(
        self._mesh, sharding.row_spec(n_slots, self._mesh)
    )
    self._rows = n_slots if self._mesh else min(_ROWS_AT_ONCE, n_slots)
    dtype = model.text.embedding.dtype  # That of activations.
    self._features = features.FeatureCache(
        processor,
        model.config.vision,
        attention=attention,
        images_at_once=features.images_at_once(self._mesh),
        dtype=dtype,
    )
    self._graph, self._state = nnx.split(model)
    self._cache: KVCache = model.text.init_cache(
        n_slots, max_context, dtype, mesh=self._mesh
    )
    self._hidden = jnp.zeros((n_slots, model.config.text.width), dtype)
    self._lengths = np.zeros(n_slots, np.int32)
    self._next_position = np.zeros(n_slots, np.int32)
    self._held: dict[int, Conversation] = {}  # By slot.
    self._decode_limits = {
        'stop_ids': tuple(stop_ids),
        'max_turn_tokens': max_turn_tokens,
        'greedy': greedy,
        'banned_ids': tuple(banned_ids),
    }

  def update(self, state: nnx.State, *, vision_changed: bool) -> None:
    """Takes the trainer's parameters, by reference.

    Args:
      state: All of the model's state.
      vision_changed: Whether cached image features are stale.
    """
    self._state = state
    if vision_changed:
      self._features.clear()

  @contextlib.contextmanager
  def greedily(self) -> Iterator[None]:
    """Takes the most likely tokens meanwhile, in the same cache."""
    limits = self._decode_limits
    self._decode_limits = limits | {'greedy': True}
    try:
      yield
    finally:
      self._decode_limits = limits

  def sample(
      self, conversations: Sequence[Conversation]
  ) -> list[SampledTurn]:
    seeds = np.zeros(self.capacity, np.uint32)
    room = np.zeros(self.capacity, np.int32)
    unread: dict[int, TokenChunk] = {}
    for conversation in conversations:
      slot, n_tokens = conversation.slot, len(conversation.chunk.token_ids)
      room[slot] = self._max_context - n_tokens
      if room[slot] < 1:
        raise ValueError(
            f'{n_tokens} tokens leave no room in a context of '
            f'{self._max_context}'
        )
      if self._held.get(slot) is not conversation:
        self._held[slot] = conversation
        self._lengths[slot] = self._next_position[slot] = 0
      seeds[slot] = conversation.request.seed
      unread[slot] = conversation.chunk.after(int(self._lengths[slot]))
    sampling = np.zeros(self.capacity, bool)
    sampling[list(unread)] = True
    split = self._mesh is not None
    with jax.set_mesh(self._mesh) if split else contextlib.nullcontext():
      self._prefill(unread)
      result = decode(
          self._graph,
          self._state,
          self._cache,
          self._hidden,
          sampling,
          self._next_position.copy(),
          seeds,
          room,
          **self._decode_limits,
      )
    self._cache = result.pop('cache')
    tokens, logprobs, n_sampled, closed = jax.device_get(
        [result[k] for k in ('tokens', 'logprobs', 'n_sampled', 'closed')]
    )
    self._lengths += n_sampled
    self._next_position += n_sampled
    return [
        SampledTurn(
            token_ids=tuple(tokens[slot, : n_sampled[slot]].tolist()),
            logprobs=logprobs[slot, : n_sampled[slot]].tolist(),
            truncated=not closed[slot],
        )
        for slot in unread
    ]

  def _prefill(self, unread: Mapping[int, TokenChunk]) -> None:
    """Feeds each slot its chunk; equal prompts are fed once, and copied."""
    self._features.add(
        self._graph,
        self._state,
        (view.data for chunk in unread.values() for view in chunk.images),
    )
    # The host's lengths are the truth: the slot of a new conversation is empty.
    # A copy: the device may read it only after the host has changed its own.
    self._cache = self._cache._replace(
        lengths=jnp.asarray(self._lengths.copy())
    )
    alike: dict[Any, list[int]] = {}
    for slot, chunk in unread.items():
      # Over a mesh all slots are fed at once, and copying rows between devices
      # would put the whole cache on each of them.
      begun = slot if self._lengths[slot] or self._mesh is not None else None
      alike.setdefault((begun, chunk), []).append(slot)
    firsts = [slots[0] for slots in alike.values()]
    for start in range(0, len(firsts), self._rows):
      some = firsts[start : start + self._rows]
      self._prefill_rows({slot: unread[slot] for slot in some})
    if len(firsts) < len(unread):
      source = np.arange(self.capacity)
      for slots in alike.values():
        source[slots] = slots[0]
      self._cache, self._hidden = fork(self._cache, self._hidden, source)
      self._lengths = self._lengths[source]
      self._next_position = self._next_position[source]
    self._features.forget_oldest()

  def _prefill_rows(self, chunks: Mapping[int, TokenChunk]) -> None:
    """Feeds a few slots their chunks, `self._chunk` tokens of each at a time.

    The number of rows is fixed, so that neighbours never change a row's
    rounding.
    """
    longest = max(len(chunk.token_ids) for chunk in chunks.values())
    width = -(-longest // self._chunk) * self._chunk
    n, f = self._rows, self._config.vision.feature_width
    tokens = np.zeros((n, width), np.int32)
    positions = np.zeros((n, 3, width), np.int32)
    embeds = np.zeros((n, width, f), self._hidden.dtype)
    is_image = np.zeros((n, width), bool)
    n_new = np.zeros(n, np.int32)
    rows = np.full(n, self.capacity)  # Beyond the last: dropped.
    all_slots = n == self.capacity
    for row, (slot, chunk) in enumerate(chunks.items()):
      row = slot if all_slots else row
      length = len(chunk.token_ids)
      tokens[row, :length] = chunk.token_ids
      positions[row, :, :length], self._next_position[slot] = mrope_positions(
          length,
          chunk.placements,
          merge_size=self._processor.merge_size,
          start=int(self._next_position[slot]),
      )
      n_new[row] = length
      rows[row] = slot
      for placement in chunk.placements:
        here = slice(placement.start, placement.start + placement.n_tokens)
        data = chunk.images[placement.image].data
        embeds[row, here] = self._features[data]
        is_image[row, here] = True
      self._lengths[slot] += length
    for first in range(0, width, self._chunk):
      jax.block_until_ready(self._hidden)  # One chunk's features at a time.
      here = slice(first, first + self._chunk)
      # Feature i of a row is that of the row's token i.
      index = np.where(is_image[:, here], np.arange(self._chunk), -1)
      self._cache, self._hidden = extend_rows(
          self._graph,
          self._state,
          self._cache,
          self._hidden,
          None if all_slots else rows,
          tokens[:, here],
          positions[:, :, here],
          np.clip(n_new - first, 0, self._chunk),
          jax.device_put(embeds[:, here], self._by_rows),
          index.astype(np.int32),
      )


# Compiled programs are shared by all samplers of one graph and shape: the graph
# and the limits are static arguments.


@functools.partial(jax.jit, static_argnums=0, donate_argnums=(2, 3))
def extend_rows(
    graph,
    state,
    cache,
    last_hidden,
    rows,
    tokens,
    positions,
    n_valid,
    embeds,
    index,
):
  """Appends a chunk to some rows, or to all in their order (rows is None).

  Returns the cache and the last hidden states.
  """
  model = nnx.merge(graph, state)

  def of_rows(leaf):
    return leaf if rows is None else leaf.at[rows].get(mode='clip')

  def put_rows(leaf, new):
    return new if rows is None else leaf.at[rows].set(new, mode='drop')

  hidden, some = model.text.extend(
      tokens, positions, n_valid, embeds, index, jax.tree.map(of_rows, cache)
  )
  cache = jax.tree.map(put_rows, cache, some)
  at = jnp.maximum(n_valid - 1, 0)[:, None, None]
  newest = jnp.take_along_axis(hidden, at, axis=1)[:, 0]
  newest = jnp.where((n_valid > 0)[:, None], newest, of_rows(last_hidden))
  return cache, put_rows(last_hidden, newest)


@functools.partial(jax.jit, donate_argnums=(0, 1))
def fork(cache, hidden, source):
  """Copies the contents of slot `source[i]` into slot i, for all slots."""
  return jax.tree.map(lambda leaf: leaf[source], (cache, hidden))


@functools.partial(
    jax.jit,
    static_argnums=0,
    static_argnames=('stop_ids', 'max_turn_tokens', 'greedy', 'banned_ids'),
    donate_argnums=2,
)
def decode(
    graph,
    state,
    cache,
    hidden,  # [B, D], after each slot's last token.
    sampling,  # bool[B]: slots that sample now.
    position,  # int32[B]: M-RoPE position of the next token.
    seeds,  # uint32[B].
    room,  # int32[B]: tokens that the context of each still holds.
    *,
    stop_ids: tuple[int, ...],
    max_turn_tokens: int,
    greedy: bool,
    banned_ids: tuple[int, ...],
):
  """Decodes until every sampling slot has closed its turn or filled its room.
  """
  model = nnx.merge(graph, state)
  batch = hidden.shape[0]
  keys = jax.vmap(jax.random.key)(seeds)
  stops = jnp.asarray(stop_ids)

  def unfinished(carry):
    return (carry['t'] < max_turn_tokens) & carry['open'].any()

  def step(carry):
    logits = model.text.logits(carry['hidden']).astype(jnp.float32)
    if greedy:
      allowed = logits.at[:, list(banned_ids)].set(-jnp.inf)
      token = allowed.argmax(axis=-1)
    else:
      # Keyed by the conversation and its length only: neither neighbours nor
      # slots nor rounds change what is sampled.
      step_keys = jax.vmap(jax.random.fold_in)(keys, carry['cache'].lengths)
      token = jax.vmap(jax.random.categorical)(step_keys, logits)
    token = token.astype(jnp.int32)
    logprob = jnp.take_along_axis(
        jax.nn.log_softmax(logits), token[:, None], axis=1
    )[:, 0]
    is_open = carry['open']
    closes = is_open & jnp.isin(token, stops)
    t = carry['t']
    fed = is_open.astype(jnp.int32)
    new_hidden, new_cache = model.text.extend(
        token[:, None],
        jnp.broadcast_to(carry['position'][:, None, None], (batch, 3, 1)),
        fed,
        None,
        None,
        carry['cache'],
    )
    return {
        't': t + 1,
        'open': is_open & ~closes & (t + 1 < room),
        'closed': carry['closed'] | closes,
        'hidden': new_hidden[:, 0],
        'cache': new_cache,
        'position': carry['position'] + fed,
        'tokens': carry['tokens'].at[:, t].set(jnp.where(is_open, token, 0)),
        'logprobs': carry['logprobs']
        .at[:, t]
        .set(jnp.where(is_open, logprob, 0.0)),
        'n_sampled': carry['n_sampled'] + fed,
    }

  carry = jax.lax.while_loop(
      unfinished,
      step,
      {
          't': jnp.int32(0),
          'open': sampling,
          'closed': jnp.zeros(batch, bool),
          'hidden': hidden,
          'cache': cache,
          'position': position,
          'tokens': jnp.zeros((batch, max_turn_tokens), jnp.int32),
          'logprobs': jnp.zeros((batch, max_turn_tokens), jnp.float32),
          'n_sampled': jnp.zeros(batch, jnp.int32),
      },
  )
  results = ('cache', 'tokens', 'logprobs', 'n_sampled', 'closed')
  return {k: carry[k] for k in results}


def n_compilations() -> int:
  """How many programs samplers have compiled in this process."""
  jitted = (extend_rows, fork, decode, features.encode)
  return sum(f._cache_size() for f in jitted)  # pyright: ignore
