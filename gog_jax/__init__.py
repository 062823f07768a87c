"""gog_jax: train and run Glance-or-Gaze agents in JAX."""

__version__ = '0.1.0'
