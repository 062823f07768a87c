"""A tokenizer in two halves: one for control tokens, one for text.

Control tokens are inserted by id. Text goes through a copy of the tokenizer
without added tokens, so that whatever a page, a question or a query spells, it
never yields a control token. (Asking the usual tokenizer to split its special
tokens is not enough: `<tool_call>` and `<think>` are added tokens, but not
special ones.)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
import functools
import json
import re

from etils import epath
import tokenizers

from gog_jax.errors import first_line
from gog_jax.errors import UserError
from gog_jax.storage import files

# The control tokens of Qwen's conversations.
START, END = '<|im_start|>', '<|im_end|>'
VISION_START, VISION_END = '<|vision_start|>', '<|vision_end|>'
IMAGE_PAD = '<|image_pad|>'
END_OF_TEXT = '<|endoftext|>'
NEEDED = (START, END, VISION_START, VISION_END, IMAGE_PAD, END_OF_TEXT)
# Longer texts are pages: seen once, and too large to cache.
_CACHED_CHARACTERS = 256


class Codec:
  """Encodes and decodes with a model folder's tokenizer.json.

  Attributes:
    vocab_size: Ids in use, added tokens included. A model's embedding may have
      more rows.
  """

  def __init__(self, folder: epath.PathLike):
    """Loads the tokenizer.

    Raises:
      UserError: The file is missing or damaged, or its vocabulary offers a
        control token to ordinary text.
    """
    self._folder = epath.Path(folder)
    path = self._folder / 'tokenizer.json'
    try:
      source = files.text_of(path.read_bytes())
    except (OSError, ValueError):
      raise UserError(
          f'{path} cannot be read; give a model folder with its tokenizer.json'
      ) from None
    try:
      self._tokenizer = tokenizers.Tokenizer.from_str(source)
    except Exception as error:  # The library raises nothing narrower.
      reason = first_line(error)
      raise UserError(
          f'{path} is not a tokenizer ({reason}); copy it anew'
      ) from error
    self.vocab_size = self._tokenizer.get_vocab_size(with_added_tokens=True)
    added = self._tokenizer.get_added_tokens_decoder()
    self._added = {token.content: index for index, token in added.items()}
    state = json.loads(self._tokenizer.to_str())
    state['added_tokens'] = []
    self._plain = tokenizers.Tokenizer.from_str(json.dumps(state))
    # Longest first: of two tokens with a common prefix the longer one wins.
    spellings = sorted(self._added, key=len, reverse=True)
    self._splitter = re.compile(f'({"|".join(map(re.escape, spellings))})')
    self._encode_short = functools.lru_cache(maxsize=65536)(self._encode)
    control = set(self._added.values())
    for spelling in self._added:
      if control.intersection(self.encode_text(spelling)):
        raise UserError(
            f'{path}: the control token {spelling} is also ordinary '
            'vocabulary; use a tokenizer that keeps them apart'
        )

  def check(self) -> None:
    """Refuses a tokenizer that lacks a control token."""
    if missing := [token for token in NEEDED if self.id_of(token) is None]:
      raise UserError(
          f'the tokenizer in {self._folder} lacks {", ".join(missing)}; only '
          'Qwen-VL tokenizers are supported'
      )

  def id_of(self, token: str) -> int | None:
    """The id of an added token; None if this tokenizer lacks it."""
    return self._added.get(token)

  def ids_of(self, tokens: Iterable[str]) -> dict[str, int]:
    """The ids of those tokens that are added tokens of this tokenizer."""
    return {t: self._added[t] for t in tokens if t in self._added}

  def encode_text(self, text: str) -> tuple[int, ...]:
    """Encodes text, in which no spelling is a control token."""
    if len(text) <= _CACHED_CHARACTERS:
      return self._encode_short(text)
    return self._encode(text)

  def split(self, text: str) -> Iterator[str | int]:
    """Yields ids of control tokens and the text between them, even empty."""
    for index, part in enumerate(self._splitter.split(text)):
      yield self._added[part] if index % 2 else part

  def decode(self, token_ids: Sequence[int]) -> str:
    """Returns the text, control tokens spelled out; ids without text vanish."""
    return self._tokenizer.decode(list(token_ids), skip_special_tokens=False)

  def _encode(self, text: str) -> tuple[int, ...]:
    # JSON and scraped pages can hold lone surrogates, which UTF-8 cannot.
    text = text.encode('utf-8', 'replace').decode('utf-8')
    return tuple(self._plain.encode(text, add_special_tokens=False).ids)
