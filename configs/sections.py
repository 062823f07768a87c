"""Sections that are alike in every profile, and those that some pages add."""

import dataclasses

from ml_collections import ConfigDict

from gog_jax.config.tools import IMAGE
from gog_jax.config.tools import INHERITED
from gog_jax.config.tools import SEARCHES
from gog_jax.config.tools import TEXT


def tools() -> ConfigDict:
  """Searches in the embedded world, which cost nothing."""
  c = ConfigDict({
      'offered': tuple(SEARCHES),
      'extra': (),
      'backend': 'world',
      'index': '',
      'encoder': '',
      'url': '',
      'version': '',
      'top_k': 1,
      'hit_characters': 2000,
      'timeout_s': 10.0,
      'max_attempts': 5,
      'backoff_s': 0.5,
      'max_concurrency': 16,
      'limits': {name: dataclasses.asdict(INHERITED) for name in SEARCHES},
      'max_spend': 0.0,
      'ledger': '',
      'rest_after': 20,
      'rest_s': 3.0,
      'mode': 'live',
      'recording': '',
      'cache': '',
      'cache_days': 30.0,
      'cache_gb': 10.0,
      'drain_s': 10.0,
  })
  for kind in (TEXT, IMAGE):  # They follow, and can be set apart.
    c[kind] = c.get_ref('backend').identity()
  return c


def remote() -> ConfigDict:
  """A model behind an OpenAI-compatible endpoint, asked greedily."""
  return ConfigDict({
      'url': '',
      'model': '',
      'key_variable': 'OPENAI_API_KEY',
      'timeout_s': 300.0,
      'max_attempts': 4,
      'temperature': 0.0,
      'max_tokens': 4096,
      'seeded': False,
      'concurrency': 16,
      'price_in': 0.0,
      'price_out': 0.0,
      'max_spend': 0.0,
      'ledger': '',
  })


def general() -> ConfigDict:
  """What a general model needs in place of the toy's small values.

  For remote models, and for scripts outside the embedded world or with the long
  prompts of mmsearch_r1. What a flag or a page sets of these fields themselves,
  as --config.rollout.max_turns=3, holds for them as well.
  """
  return ConfigDict({
      'model': {
          'dialect': 'gog_remote',
          'box': 'thousandths',
          'box_step': 1,
          'min_box_side': 28,
          'processor': 'general',
          'max_image_tokens': 2048,  # Of 32 x 32 pixels: 2 megapixels.
      },
      'tools': {'top_k': 3, 'timeout_s': 60.0},
      # Tokens are the toy tokenizer's, two to four of them a word: the endpoint
      # has limits of its own.
      'rollout': {
          'max_turns': 10,
          'max_turn_tokens': 32768,
          'min_turn_tokens': 1024,
          'max_context': 262144,
      },
      'batch': {'row_tokens': 262144, 'row_patches': 262144},
  })


def fetch() -> ConfigDict:
  """Photographs from the public internet."""
  return ConfigDict({
      'folder': '',
      'private': (),
      'max_bytes': 32 * 2**20,
      'timeout_s': 30.0,
      'max_attempts': 3,
      'concurrency': 16,
  })


def benchmark() -> ConfigDict:
  """A published set of questions: none."""
  return ConfigDict({
      'name': '',
      'path': '',
      'ids': '',
      'images': '',
      'n': 0,
      'seed': 0,
      'fetch_images': False,
      'fetch': fetch(),
      'options': False,
      'scope': '',
      'date': '',
  })


def instruct() -> ConfigDict:
  """The embedded world's expert teaches about the embedded world."""
  return ConfigDict({
      'teacher': 'expert',
      'n': 256,
      'no_search': 0.435,  # The paper's.
      'fewer': False,
      'n_queries': 2048,
      'chunk': 64,
      'n_direct': 4,
      'direct_temperature': 1.0,
      'easy': 'keep',
      'samples': 2,
      'gold': 'any',
      'gold_iou': 0.5,
      'evidence': True,
      'repeats': True,
      'retries': 8,
      'most_errors': 0.1,
      'concurrency': 16,
      'n_review': 50,
      'review': '',
      'licence': '',
  })


def judge() -> ConfigDict:
  """A judge of answers, asked greedily, once it has a `url`."""
  return ConfigDict({
      'url': '',
      'model': '',
      'key_variable': 'OPENAI_API_KEY',
      'timeout_s': 120.0,
      'max_attempts': 4,
      'temperature': 0.0,
      'max_tokens': 1024,
      'concurrency': 8,
      'prompt': '',
      'cache': '',
      'min_success': 0.95,
      'max_answer_characters': 1000,
      'price_in': 0.0,
      'price_out': 0.0,
      'max_spend': 0.0,
      'ledger': '',
  })
