"""Frozen configs, and the pages that they are read from.

A section is a frozen dataclass without defaults: those stand in the pages of
configs/. What its fields have to be together is checked in `__post_init__`.
"""

from gog_jax.config.config import Config
from gog_jax.config.pages import from_page
from gog_jax.config.pages import sibling

__all__ = ['Config', 'from_page', 'sibling']
