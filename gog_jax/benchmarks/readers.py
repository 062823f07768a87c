"""What each benchmark's reader is asked, and what it answers."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses

from gog_jax.benchmarks import dynvqa
from gog_jax.benchmarks import fvqa
from gog_jax.benchmarks import infoseek
from gog_jax.benchmarks import livevqa
from gog_jax.benchmarks import mmsearch
from gog_jax.benchmarks import simplevqa
