"""Models by the id they have on the Hugging Face hub, without a network."""

from __future__ import annotations

import shutil

from huggingface_hub import constants
import jax.numpy as jnp
import numpy as np
import pytest

from gog_jax import errors
from gog_jax import models
from gog_jax.models.folders import model_folder
from gog_jax.run import build
from tests import helpers
from tests import mini

CONFIG = helpers.tiny_config()
COMMIT = 'c0ffee' + '0' * 34


@pytest.fixture
def cache(tmp_path, monkeypatch):
  """The hub's own cache, in which there is org/tiny at one commit."""
  monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path))
  repository = tmp_path / 'models--org--tiny'
  models.save_pretrained(
      helpers.tiny_model(CONFIG), repository / 'snapshots' / COMMIT
  )
  refs = repository / 'refs'
  refs.mkdir()
  for name in ('main', 'v1'):
    (refs / name).write_text(COMMIT)
  return tmp_path


@pytest.mark.parametrize('at', ['', '@main', '@v1', f'@{COMMIT}'])
def test_a_cached_model_is_loaded_by_its_id(cache, at):
  model, config = models.from_pretrained(f'org/tiny{at}', dtype=jnp.float32)
  assert config == CONFIG == models.read_config(f'org/tiny{at}')
  np.testing.assert_array_equal(
      model.text.embedding[...],
      helpers.tiny_model(CONFIG).text.embedding[...],
  )


@pytest.mark.parametrize(
    'name', ['org/other', 'org/tiny@v2', 'org/tiny--x']
)
def test_what_cannot_be_fetched_is_one_line(cache, name):
  with pytest.raises(errors.UserError, match='network') as raised:
    models.from_pretrained(name)
  assert name in str(raised.value)
  assert 'config.model.path' in str(raised.value)
  assert '\n' not in str(raised.value)


@pytest.mark.parametrize(
    'name', ['/no/such', './no/such', 'no', 'org/name/more', 'org/@main']
)
def test_what_is_no_id_is_a_missing_folder(name):
  with pytest.raises(errors.UserError, match='does not exist: set --config.mo'):
    models.from_pretrained(name)


def test_weights_in_a_bucket_are_to_be_copied():
  with pytest.raises(errors.UserError, match='gs://b/model is not on this mac'):
    models.from_pretrained('gs://b/model')


def test_a_folder_of_the_name_comes_first(cache, tmp_path, monkeypatch):
  other = helpers.tiny_config(tied=False)
  monkeypatch.chdir(tmp_path)
  models.save_pretrained(helpers.tiny_model(other), 'org/tiny')
  _, config = models.from_pretrained('org/tiny')
  assert config == other


def test_a_run_takes_an_id(cache, tmp_path):
  config = mini.make_config('rl', model__path='org/tiny')
  assert models.read_config(model_folder(config)) == CONFIG
  shutil.rmtree(cache / 'models--org--tiny')
  with pytest.raises(errors.UserError, match='org/tiny .*cannot be fetched'):
    build(config, tmp_path)
