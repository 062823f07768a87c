"""A gigabyte in a field of a published set's file."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gog_jax.storage.records import TOO_LARGE
from tests import benchmark_fixtures as fixtures


@pytest.mark.slow
def test_a_field_of_a_gigabyte(tmp_path):
  """It is dropped; what Arrow unpacks is all the memory that it takes."""
  n = 2**30
  zeros = pa.py_buffer(np.zeros(n, np.uint8))  # Pages nobody has touched.
  small = np.frombuffer(fixtures.picture(0), np.uint8)
  schema = pa.schema([
      ('prompt', fixtures.PROMPT),
      ('images', pa.list_(pa.struct([('bytes', pa.binary())]))),
      ('reward_model', fixtures.REWARD),
  ])
  path = tmp_path / 'big.parquet'
  with pq.ParquetWriter(
      path, schema, use_dictionary=False, write_statistics=False
  ) as writer:
    for buffer, length in ((pa.py_buffer(small), len(small)), (zeros, n)) * 2:
      offsets = pa.py_buffer(np.array([0, length], np.int32))
      data = pa.Array.from_buffers(pa.binary(), 1, [None, offsets, buffer])
      pictures = pa.ListArray.from_arrays(
          [0, 1], pa.StructArray.from_arrays([data], ['bytes'])
      )
      row = fixtures.verl_row(0)
      table = pa.Table.from_arrays(
          [
              pa.array([row['prompt']], fixtures.PROMPT),
              pictures,
              pa.array([row['reward_model']], fixtures.REWARD),
          ],
          schema=schema,
      )
      writer.write_table(table)
  code = f"""
import json, re
from gog_jax.questions import verl
def peak():  # Not ru_maxrss, which begins at the parent's.
  status = open('/proc/self/status').read()
  return int(re.search('VmHWM:\\s*([0-9]+) kB', status)[1]) / 2**20
before = peak()
records = verl.read({str(path)!r}, name='big')
images = [len(one.images[0]()) for one in records.items]
print(json.dumps([images, records.reasons(), peak() - before]))
"""
  done = subprocess.run(
      [sys.executable, '-c', code], capture_output=True, check=True
  )
  images, reasons, gigabytes = json.loads(done.stdout)
  assert images == [len(small)] * 2
  assert reasons == {TOO_LARGE: 2}
  # Pages unpacked, and arrays made of them; of two fields, not all at once.
  # How much the allocator holds on to differs from run to run.
  assert 0.5 < gigabytes < 4.5
