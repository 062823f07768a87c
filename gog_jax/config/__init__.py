"""Frozen configs, and the pages that they are read from."""

from gog_jax.config.config import Config
from gog_jax.config.fields import picked
from gog_jax.config.pages import from_page
from gog_jax.config.pages import sibling

__all__ = ['Config', 'from_page', 'picked', 'sibling']
