"""The one owner of the chat format: messages to tokens, tokens to calls."""

from gog_jax.chat.chat import Chat
from gog_jax.chat.dialect import Dialect
from gog_jax.chat.dialect import load_dialect

__all__ = ['Chat', 'Dialect', 'load_dialect']
