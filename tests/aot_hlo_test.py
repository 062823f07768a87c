"""What a compiled program sends, against sums worked out by hand."""

from __future__ import annotations

import jax
from jax import lax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
import pytest

from gog_jax.aot import hlo
from gog_jax.models import sharding

pytestmark = pytest.mark.quick


def sent(body, n_floats, in_spec, out_spec):
  """By kind, of a function of f32[n_floats] on eight devices."""
  if jax.device_count() != 8:
    pytest.skip('needs the eight devices that conftest.py asks for')
  mesh = sharding.make_mesh(1, 8, 1)
  mapped = jax.shard_map(
      body, mesh=mesh, in_specs=in_spec, out_specs=out_spec, check_vma=False
  )
  shape = jax.ShapeDtypeStruct((n_floats,), jnp.float32)
  text = jax.jit(mapped).lower(shape).compile().as_text()
  return {k: n for k, n in hlo.collective_bytes(text).items() if n}


SPLIT, WHOLE = PartitionSpec('fsdp'), PartitionSpec()
FLOATS = 8 * 104  # 3,328 bytes, 416 on each device.


def test_each_kind():
  # 7 parts of 416 bytes go out of each device.
  gather = lambda x: lax.all_gather(x, 'fsdp', tiled=True)
  assert sent(gather, FLOATS, SPLIT, WHOLE) == {'all-gather': 2912}
  # Of 3,328 bytes, twice 7 eighths.
  add = lambda x: lax.psum(x, 'fsdp')
  assert sent(add, FLOATS, WHOLE, WHOLE) == {'all-reduce': 5824}
  scatter = lambda x: lax.psum_scatter(x, 'fsdp', tiled=True)
  assert sum(sent(scatter, FLOATS, WHOLE, SPLIT).values()) == 2912
  around = [(i, (i + 1) % 8) for i in range(8)]
  permute = lambda x: lax.ppermute(x, 'fsdp', around)
  assert sent(permute, FLOATS, SPLIT, SPLIT) == {'collective-permute': 416}
  swap = lambda x: lax.all_to_all(x.reshape(8, -1), 'fsdp', 0, 0).reshape(-1)
  # 7 eighths of 416 bytes.
  assert sent(swap, FLOATS, SPLIT, SPLIT) == {'all-to-all': 364}


def test_loops_count_as_often_as_they_run():
  around = [(i, (i + 1) % 8) for i in range(8)]

  def inner(x):
    step = lambda _, y: lax.ppermute(y, 'fsdp', around) * 2
    return lax.fori_loop(0, 3, step, x)

  def outer(x):
    return lax.scan(lambda y, _: (inner(y), None), x, None, length=5)[0]

  assert sent(outer, FLOATS, SPLIT, SPLIT) == {
      'collective-permute': 3 * 5 * 416
  }


LOOP = """HloModule m

%sum (a: f32[], b: f32[]) -> f32[] {
  ROOT %add.9 = f32[] add(%a, %b)
}

%body (p: (f32[800], u32[])) -> (f32[800], u32[]) {
  %p = (f32[800], u32[]) parameter(0)
  %x = f32[800] get-tuple-element(%p), index=0
  %i = u32[] get-tuple-element(%p), index=1
  %two = u32[]{:T(128)} constant(2)
  %next = u32[]{:T(128)} add(%i, %two)
  %kernel = f32[8] custom-call(%x), frontend_attributes={kernel_metadata={
"of":"itself"
}}, metadata={op_name="splash"}
  %part = f32[800] fusion(%x), calls=%middle
  ROOT %t = (f32[800], u32[]) tuple(%part, %next)
}

%condition (p: (f32[800], u32[])) -> pred[] {
  %p = (f32[800], u32[]) parameter(0)
  %bound = u32[]{:T(128)} constant(8)
  %i = u32[]{:T(128)} get-tuple-element(%p), index=1
  ROOT %lt = pred[] compare(%i, %bound), direction=LT
}

%begin (p: f32[100]) -> f32[800] {
  %g.1 = f32[800] all-gather(%p), channel_id=7, replica_groups=[1,8]<=[8]
}

%middle (p: f32[800]) -> f32[800] {
  %g.2 = f32[800] all-gather(%p), channel_id=7, replica_groups=[1,8]<=[8]
  %r = f32[100] collective-permute(%p), channel_id=9, source_target_pairs={{0,1}}
}

%all-reduce-scatter (p: f32[800]) -> f32[100] {
  %r.1 = f32[800] all-reduce(%p), channel_id=8, replica_groups={{0,1,2,3,4,5,6,7}}, to_apply=%sum
}

ENTRY %main (a: f32[100]) -> f32[800] {
  %splash_mha_fwd.1 = f32[8] custom-call(%a), frontend_attributes={kernel_metadata={
"of":"itself"
}}, metadata={op_name="x"}
  %start = f32[800] fusion(%a), calls=%begin
  %w = (f32[800], u32[]) while(%start), condition=%condition, body=%body
  %s = f32[100] fusion(%w), kind=kCustom, calls=%all-reduce-scatter
  %ar = f32[800] all-reduce(%s), channel_id=3, replica_groups=mesh['axis_0'=8] {'axis_0'}, to_apply=%sum
}
"""  # noqa: E501


def test_as_the_tpu_compiler_writes_it():
  """A counter in twos; a gather beside a loop; a sum that is scattered.

  The lines that kernels break must not end a computation.
  """
  assert hlo.collective_bytes(LOOP) == {
      'all-gather': 2800,  # Once, not in each turn of the loop beside it.
      'all-reduce': 5600,
      'reduce-scatter': 2800,
      'all-to-all': 0,
      'collective-permute': 4 * 400,  # 8 / 2 turns.
  }


def test_kernels_by_their_mask():
  call = (
      '}}}}, metadata={{op_name="jit(add)/transpose(jvp({mask}))/vmap(x)/'
      'splash_mha_{kernel}_segmented/pallas_call" stack_frame_id=2}}\n'
  )
  text = call.format(mask='causal', kernel='dq') * 2
  text += call.format(mask='bidirectional', kernel='fwd')
  text += call.format(mask='acausal', kernel='fwd')  # Not a scope of ours.
  text += 'op_name="causal/splash_mha_dkv"\n'  # Around it, not the call.
  assert hlo.splash_kernels(text) == {'causal dq', 'bidirectional fwd'}


def test_a_loop_of_unknown_length_is_not_guessed():
  text = LOOP.replace('constant(8)', 'parameter(1)')
  with pytest.raises(ValueError, match='body does not say how often'):
    hlo.collective_bytes(text)
  once = hlo.collective_bytes(text, of_unknown=1)
  assert once['collective-permute'] == 400
