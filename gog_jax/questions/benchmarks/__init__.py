"""The sets that published agents are measured on, from a folder or the hub."""

from gog_jax.questions.benchmarks.benchmark import Benchmark as Benchmark
from gog_jax.questions.benchmarks.loading import load as load
from gog_jax.questions.benchmarks.registry import find as find
from gog_jax.questions.benchmarks.registry import NAMES as NAMES
from gog_jax.questions.benchmarks.registry import Spec as Spec
from gog_jax.questions.benchmarks.registry import SPECS as SPECS
from gog_jax.questions.benchmarks.registry import WORLD as WORLD
