"""The sets that published agents are measured on, from a folder or the hub."""

from gog_jax.benchmarks.benchmark import Benchmark as Benchmark
from gog_jax.benchmarks.loading import load as load
from gog_jax.benchmarks.registry import find as find
from gog_jax.benchmarks.registry import NAMES as NAMES
from gog_jax.benchmarks.registry import Spec as Spec
from gog_jax.benchmarks.registry import SPECS as SPECS
from gog_jax.benchmarks.registry import WORLD as WORLD
