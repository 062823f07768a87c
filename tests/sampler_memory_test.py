"""What the sampler keeps between prefills."""

from __future__ import annotations

import numpy as np

from gog_jax.rollout import features as features_lib
from tests import tiny


def test_image_features_are_kept_within_bounds(monkeypatch):
  vlm = tiny.model()
  roomy = tiny.policy(vlm)
  want = tiny.conversations(roomy, (1, 2))
  kept = roomy._features._kept
  assert len(kept) >= 4  # Two prompts, and crops.
  # No view into a padded batch of features.
  assert all(features.base is None for features in kept.values())

  newest = list(kept)[-1]
  monkeypatch.setattr(features_lib, '_FEATURE_BYTES', kept[newest].nbytes)
  narrow = tiny.policy(vlm)
  got = tiny.conversations(narrow, (1, 2))
  assert list(narrow._features._kept) == [newest]
  for a, b in zip(got, want, strict=True):
    np.testing.assert_array_equal(a.token_ids, b.token_ids)
    np.testing.assert_array_equal(a.sampler_logprobs, b.sampler_logprobs)
