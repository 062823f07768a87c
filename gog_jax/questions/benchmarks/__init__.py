"""The sets that agents are measured on: published ones, the world's, a user's.
"""

from gog_jax.questions.benchmarks.loading import Benchmark as Benchmark
from gog_jax.questions.benchmarks.loading import of_questions as of_questions
from gog_jax.questions.benchmarks.loading import open as open
from gog_jax.questions.benchmarks.registry import BENCHMARKS as BENCHMARKS
from gog_jax.questions.benchmarks.registry import find as find
from gog_jax.questions.benchmarks.registry import Spec as Spec
from gog_jax.questions.benchmarks.registry import users as users
