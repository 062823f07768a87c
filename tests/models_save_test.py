"""What is written: bit for bit, in shards, and whatever interrupts it."""

from __future__ import annotations

import json
import sys

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors

from gog_jax import errors
from gog_jax import models
from gog_jax.models.families import FAMILIES
from tests import helpers
from tests.hf_helpers import hf_model

# What a save does to the folder, and after how much of it a kill comes.
_events = {'folder': None, 'left': 0}


class Killed(BaseException):
  """Nothing of ours may catch it."""


def _kill(event, args):
  if not _events['folder'] or event not in ('open', 'os.rename', 'os.remove'):
    return
  if not str(args[0]).startswith(_events['folder']):
    return
  if event == 'open' and 'w' not in str(args[1]):
    return
  _events['left'] -= 1
  if _events['left'] < 0:
    raise Killed


sys.addaudithook(_kill)


def contents(folder):
  """(dtype, shape, bytes) of every tensor, as the library reads them."""
  return {
      key: (entry['dtype'], list(entry['shape']), bytes(entry['data']))
      for path in sorted(folder.glob('*.safetensors'))
      for key, entry in safetensors.deserialize(path.read_bytes())
  }


@pytest.mark.parametrize('max_shard_bytes', [10**9, 30_000])
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('tied', [True, False], ids=['tied', 'untied'])
@pytest.mark.parametrize('family', FAMILIES)
def test_there_and_back_is_bit_for_bit(
    family, tied, dtype, max_shard_bytes, tmp_path
):
  torch = helpers.require_torch()
  config = helpers.tiny_config(family=family, tied=tied)
  theirs = hf_model(tmp_path / 'theirs', config).to(getattr(torch, dtype))
  theirs.save_pretrained(tmp_path / 'theirs')
  ours, _ = models.from_pretrained(tmp_path / 'theirs', dtype=jnp.dtype(dtype))
  models.save_pretrained(
      ours, tmp_path / 'ours', max_shard_bytes=max_shard_bytes
  )
  assert contents(tmp_path / 'ours') == contents(tmp_path / 'theirs')
  written = json.loads((tmp_path / 'ours' / 'config.json').read_text())
  assert written['dtype'] == dtype
  if max_shard_bytes == 10**9:
    return
  shards = list((tmp_path / 'ours').glob('model-*-of-*.safetensors'))
  assert len(shards) > 3
  assert not (tmp_path / 'ours' / 'model.safetensors').exists()
  _, info = type(theirs).from_pretrained(
      tmp_path / 'ours', output_loading_info=True
  )
  assert not any(info[key] for key in ('missing_keys', 'unexpected_keys'))
  index = json.loads(
      (tmp_path / 'ours' / 'model.safetensors.index.json').read_text()
  )
  assert index['metadata']['total_size'] == sum(
      len(data) for *_, data in contents(tmp_path / 'ours').values()
  )


def test_shards_stay_below_their_limit(tmp_path):
  model = helpers.tiny_model(helpers.tiny_config())
  models.save_pretrained(model, tmp_path, max_shard_bytes=40_000)
  for path in tmp_path.glob('*.safetensors'):
    sizes = [
        len(entry['data'])
        for _, entry in safetensors.deserialize(path.read_bytes())
    ]
    assert sum(sizes) <= 40_000 or len(sizes) == 1


def test_the_last_save_wins_and_leaves_nothing_of_others(tmp_path):
  for tied, limit in ((True, 30_000), (False, 10**9), (True, 60_000)):
    config = helpers.tiny_config(tied=tied)
    models.save_pretrained(
        helpers.tiny_model(config), tmp_path, max_shard_bytes=limit
    )
    assert models.from_pretrained(tmp_path)[1] == config
    weights = {path.name for path in tmp_path.glob('model*')}
    if limit == 10**9:
      assert weights == {'model.safetensors'}
    else:
      text = (tmp_path / 'model.safetensors.index.json').read_text()
      named = set(json.loads(text)['weight_map'].values())
      assert weights == named | {'model.safetensors.index.json'}


@pytest.mark.parametrize('limits', [(30_000, 10**9), (10**9, 60_000)])
def test_a_kill_leaves_one_model_or_none(tmp_path, limits):
  config = helpers.tiny_config()
  before, after = (helpers.tiny_model(config, seed=seed) for seed in (0, 1))
  embeddings = [np.asarray(m.text.embedding) for m in (before, after)]
  assert (embeddings[0] != embeddings[1]).any()
  outcomes = []
  for n in range(100):
    models.save_pretrained(before, tmp_path, max_shard_bytes=limits[0])
    _events.update(folder=str(tmp_path), left=n)
    try:
      models.save_pretrained(after, tmp_path, max_shard_bytes=limits[1])
      finished = True
    except Killed:
      finished = False
    finally:
      _events.update(folder=None)
    try:
      model, _ = models.from_pretrained(tmp_path, dtype=jnp.float32)
    except errors.UserError as error:
      assert 'interrupted' in str(error)
      outcomes.append('none')
      continue
    which = [np.array_equal(model.text.embedding[...], e) for e in embeddings]
    assert any(which)
    outcomes.append('before' if which[0] else 'after')
    if finished:
      break
  # In this order, and each of them.
  assert list(dict.fromkeys(outcomes)) == ['before', 'none', 'after']
