"""Which module reads which benchmark."""

from __future__ import annotations

from collections.abc import Callable

from gog_jax.questions.benchmarks import dynvqa
from gog_jax.questions.benchmarks import fvqa
from gog_jax.questions.benchmarks import infoseek
from gog_jax.questions.benchmarks import livevqa
from gog_jax.questions.benchmarks import mmsearch
from gog_jax.questions.benchmarks import simplevqa
from gog_jax.questions.benchmarks.reading import Reading
from gog_jax.questions.benchmarks.reading import Request

READERS: dict[str, Callable[[Request], Reading]] = {
    'fvqa_test': fvqa.read,
    'infoseek': infoseek.read,
    'simplevqa': simplevqa.read,
    'mmsearch': mmsearch.read,
    'livevqa': livevqa.read,
    'dynvqa': dynvqa.read,
}
