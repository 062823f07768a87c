"""What a Hugging Face processor returns, and what is wrong with it."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from gog_jax.models.families import FAMILIES
from tests import helpers

CONFIG = helpers.tiny_config()
IMAGE = helpers.IMAGE_TOKEN


@pytest.fixture(scope='module')
def model():
  return helpers.tiny_model(CONFIG)


def processed(**changes):
  """One row with two images, as the processor returns it."""
  [turn] = helpers.model_inputs([(2, (1, 4, 6), 1, (1, 2, 4), 3)], CONFIG)
  inputs = {
      'input_ids': turn.tokens[None].astype(np.int64),
      'attention_mask': np.ones((1, turn.tokens.size), int),
      'mm_token_type_ids': (turn.tokens[None] == IMAGE).astype(int),
      'pixel_values': np.concatenate([patches for patches, _ in turn.images]),
      'image_grid_thw': np.array([grid for _, grid in turn.images]),
  }
  return {**inputs, **changes}


def test_what_a_processor_returns_is_what_the_model_takes(model):
  inputs = processed()
  logits = model(**inputs)
  n_tokens = inputs['input_ids'].shape[1]
  assert logits.shape == (1, n_tokens, 128) and logits.dtype == np.float32
  # Neither is needed.
  del inputs['attention_mask'], inputs['mm_token_type_ids']
  np.testing.assert_array_equal(model(**inputs), logits)


def test_text_alone(model):
  tokens = np.arange(20, 29)[None]
  mask = np.ones_like(tokens)
  np.testing.assert_array_equal(model(tokens), model(tokens, mask))
  none = {'pixel_values': None, 'image_grid_thw': None}
  np.testing.assert_array_equal(model(tokens, **none), model(tokens))


def with_tokens(edit):
  tokens = processed()['input_ids'].copy()
  return processed(input_ids=edit(tokens), attention_mask=None)


def insert_text(tokens):
  return np.insert(tokens, 6, 50, axis=1)  # Among the first image's.


def drop_last_image_token(tokens):
  return np.delete(tokens, np.flatnonzero(tokens[0] == IMAGE)[-1], axis=1)


def over_two_rows(tokens):
  return tokens[:, :16].reshape(2, 8)  # The first ends in an image.


def one_image():
  inputs = processed()
  return {
      **inputs,
      'pixel_values': inputs['pixel_values'][:24],
      'image_grid_thw': inputs['image_grid_thw'][:1],
  }


PIXELS, GRIDS = (processed()[k] for k in ('pixel_values', 'image_grid_thw'))


@pytest.mark.parametrize(
    ('inputs', 'message'),
    [
        (one_image(), '8 image tokens, the 1 images have 6 features'),
        (
            processed(pixel_values=None, image_grid_thw=None),
            '8 image tokens, the 0 images have 0 features',
        ),
        (
            with_tokens(drop_last_image_token),
            '7 image tokens, the 2 images have 8 features',
        ),
        (
            with_tokens(lambda tokens: tokens[:, :12]),
            '6 image tokens, the 2 images have 8 features',
        ),
        (
            with_tokens(insert_text),
            'image 0 of row 0 do not stand together',
        ),
        (
            with_tokens(over_two_rows),
            'image 0 of row 0 do not stand together',
        ),
        (
            processed(pixel_values=PIXELS[:-4]),
            'grids of 32 patches, pixel_values has 28',
        ),
        (
            processed(pixel_values=PIXELS[:, :768]),
            r'float\[P, 1176\] for patch_size 14, 3 channels',
        ),
        (processed(image_grid_thw=None), 'belong together: pass both'),
        (processed(pixel_values=None), 'belong together: pass both'),
        (processed(image_grid_thw=GRIDS[0]), r'must be int\[I, 3\]'),
        (
            processed(image_grid_thw=np.array([[3, 4, 2], [1, 2, 4]])),
            'not that of a still image',
        ),
        (processed(image_grid_thw=GRIDS * 1.0), 'not float64'),
        (
            processed(image_grid_thw=np.array([[1, 0, 4], [1, 2, 4]])),
            r'\(1, 0, 4\) is not that of a still image',
        ),
        (
            processed(image_grid_thw=np.array([[1, 3, 8], [1, 2, 4]])),
            r'grid \(1, 3, 8\)',
        ),
        (
            processed(attention_mask=np.full((1, 18), -1e9)),
            'attention_mask must hold 1, or 0 at padding',
        ),
        (
            processed(attention_mask=np.ones((1, 5), int)),
            r'input_ids, \[1, 18\], not \[1, 5\]',
        ),
        (processed(pixel_values_videos=PIXELS), 'videos are not supported'),
        (processed(video_grid_thw=GRIDS), 'videos are not supported'),
        ({'input_ids': [[20, 21], [20]]}, 'padding=True'),
        ({'input_ids': [20, 21]}, r'input_ids\[None\]'),
        ({'input_ids': [[20.0]]}, 'not float64'),
        ({'input_ids': [[20, 128]]}, r'holds 128, the model has ids 0 .. 127'),
        ({'input_ids': [[-1, 20]]}, 'holds -1'),
    ],
)
def test_what_does_not_belong_together_is_named(model, inputs, message):
  with pytest.raises(ValueError, match=message):
    model(**inputs)


@pytest.mark.parametrize('family', FAMILIES)
def test_a_row_among_others_is_the_row_alone(family):
  """Images are dealt out row by row; padding on either side is not seen."""
  config = helpers.tiny_config(family=family)
  model = helpers.tiny_model(config)
  first, second, third = (
      helpers.model_inputs([parts], config, seed=seed)[0]
      for seed, parts in enumerate(
          [(2, (1, 4, 6), 1, (1, 2, 4), 3), (9,), (1, (1, 4, 2), 2)]
      )
  )
  width = first.tokens.size
  tokens, mask = np.full((2, 3, width), 20)
  mask[:] = 0
  for row, turn in enumerate((first, second, third)):
    n = turn.tokens.size
    here = np.s_[:n] if row < 2 else np.s_[width - n :]
    tokens[row, here], mask[row, here] = turn.tokens, 1
  images = first.images + third.images

  def logits(tokens, mask, images):
    pixels = {}
    if images:
      pixels = {
          'pixel_values': np.concatenate([patches for patches, _ in images]),
          'image_grid_thw': np.array([grid for _, grid in images]),
      }
    return np.asarray(model(tokens, mask, **pixels))

  together = logits(tokens, mask, images)
  for row, turn in enumerate((first, second, third)):
    alone = logits(turn.tokens[None], None, turn.images)
    np.testing.assert_allclose(
        together[row][mask[row] > 0], alone[0], rtol=0, atol=2e-4
    )


def test_under_jit_the_model_is_the_argument(model):
  inputs = processed()
  np.testing.assert_allclose(
      jax.jit(lambda model: model(**inputs))(model), model(**inputs), atol=1e-5
  )
