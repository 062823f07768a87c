"""TensorFlow Datasets, made to write without a word."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import io

from absl import logging
import tensorflow_datasets as tfds


@contextlib.contextmanager
def quiet() -> Iterator[None]:
  """Hides TFDS's own progress and its talk of downloads: there are none."""
  verbosity = logging.get_verbosity()
  logging.set_verbosity(logging.ERROR)
  tfds.disable_progress_bar()
  try:
    with contextlib.redirect_stdout(io.StringIO()):
      yield
  finally:
    tfds.enable_progress_bar()
    logging.set_verbosity(verbosity)
