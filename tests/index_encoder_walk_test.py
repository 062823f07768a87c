"""An index with an encoder: by the flag, and what it then finds."""

import numpy as np
from PIL import Image
import pytest

from configs import index as index_page
from gog_jax import images
from gog_jax.app import commands
from gog_jax.config import from_page
from gog_jax.errors import UserError
from gog_jax.index import backend
from tests import index_encoder_helpers

_N = 6


def _flat(seed):
  """A soft gradient: it has no keypoints, and colours of its own."""
  rng = np.random.default_rng(seed)
  corners = rng.integers(0, 256, (2, 2, 3), dtype=np.uint8)
  return Image.fromarray(corners).resize((96, 80), Image.Resampling.BICUBIC)


def test_what_the_encoder_says_is_like_is_found(tmp_path, capsys):
  (tmp_path / 'pictures').mkdir()
  for i in range(_N):
    _flat(i).save(tmp_path / 'pictures' / f'{i}.png')
  weights = tmp_path / 'weights'
  weights.mkdir()
  index_encoder_helpers.write(weights, 'siglip')
  config = index_page.get_config()
  config.images = str(tmp_path / 'pictures')
  config.index = str(tmp_path / 'index')
  config.encoder = str(weights)
  commands.do(from_page(config), tmp_path)
  assert f'{_N} images' in capsys.readouterr().out

  encoder = backend.load_encoder(str(weights))
  opened = backend.LocalIndex(config.index, encoder)
  query = _flat(99)
  found = opened.image(images.encode_png(query), _N)
  vectors = encoder.encode([query, *map(_flat, range(_N))])
  cosines = vectors[1:] @ vectors[0]
  scores = {picture['id']: hit.score for picture, hit in found}
  # Nothing could be verified, so the encoder has the word, at its weight.
  assert len(scores) == _N
  for i in range(_N):
    assert scores[f'{i}.png'] >= 0.3 * cosines[i] - 1e-6

  with pytest.raises(UserError, match='was built with siglip/'):
    backend.LocalIndex(config.index)
  commands.do(from_page(config), tmp_path)
  assert 'up to date' in capsys.readouterr().out
