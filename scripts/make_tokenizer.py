"""Makes the toy base's tokenizer and image processor files.

    python scripts/make_tokenizer.py --folder=gog_jax/assets/toy_base

A byte-level BPE in which everything the embedded world and the protocol say
is short: each fixed piece of a tool call, each integer up to 168 and each word
of the world is one token, with the space before it or, where agents copy it,
without. Each name is two. Every byte is a token, so any text can be written.
Control tokens are Qwen's, spelled alike, at the end.

Weights trained with one vocabulary mean nothing under another: after a change
of the world's words, run this and pretrain the toy base again.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
import json
import pathlib
from typing import Any

import tokenizers
from tokenizers import decoders
from tokenizers import models
from tokenizers import pre_tokenizers
from tokenizers import trainers

from gog_jax.toy import vocabulary

VOCAB_SIZE = 832  # Control tokens included; a multiple of 64.
INTEGERS = 169
ROLES = ('system\n', 'user\n', 'assistant\n')
ARGUMENT = 'bbox_2d'  # Of all arguments' names the one that errors are about.
# Words of prompts and replies that are not the world's own.
WORDS = (
    'search', 'answer', 'or', 'error', 'call', 'no', 'must', 'got', 'and',
    'outside', 'x', 'y',
)  # fmt: skip
# As in Qwen's vocabularies; these are "special": decoders may skip them.
SPECIAL = (
    '<|endoftext|>', '<|im_start|>', '<|im_end|>', '<|object_ref_start|>',
    '<|object_ref_end|>', '<|box_start|>', '<|box_end|>', '<|quad_start|>',
    '<|quad_end|>', '<|vision_start|>', '<|vision_end|>', '<|vision_pad|>',
    '<|image_pad|>', '<|video_pad|>',
)  # fmt: skip
# Qwen's own but for the last two, which are plain text there.
TAGS = (
    '<tool_call>', '</tool_call>', '<tool_response>', '</tool_response>',
    '<think>', '</think>', '<answer>', '</answer>',
)  # fmt: skip
# What tools say of mistakes: rare, but byte by byte they would fill a context.
GENERAL = (
    'bbox_2d: x1 < x2 and y1 < y2 must hold, got [9,8,7,6]',
    'bbox_2d: [90,10,99,30] is outside the image [0,0,84,84]',
    'bbox_2d: four finite numbers are needed, got [1,2]',
    "bbox_2d: [1, 2, 3] is too short, 'bbox_2d' is a required property",
    "Additional properties are not allowed ('query' was unexpected)",
    "no tool 'zoom', only text_search, image_search, gaze",
    'there is no image 3, only 1 to 2',
    'the call is not JSON: Expecting value',
    'a call must be {"name":..,"arguments":{..}}',
    'name must be text and arguments a JSON object',
    'the call is not closed by </tool_call>',
    'text_search failed: TimeoutError: no reply within 10 s',
    'query is empty',
    'Crop a region of an image, see it enlarged and search with it.',
    'Search documents with a text query. Search with the whole image.',
)


def pattern() -> str:
  """What stays whole before merging, as a regular expression (Oniguruma)."""
  fixed = sorted(vocabulary.PROTOCOL_PIECES, key=len, reverse=True)
  fixed += [f' {ARGUMENT}', ARGUMENT]
  return '|'.join(
      [_escape(piece) for piece in fixed]
      # Letter by letter these would match inside longer words.
      + [f'(?<![a-z]){_escape(role)}' for role in ROLES]
      + [_space_before_copied_words()]
      + [r'[0-9]{1,3}', r' ?\p{L}+', r'[\s\S]']
  )


def _space_before_copied_words() -> str:
  """Matches the space before a name, a city or a founder.

  After a space they have the same tokens as after a quote: to copy them is then
  a skill, not a table.
  """
  heads, tails, words = map(
      '|'.join,
      (
          vocabulary.HEADS,
          vocabulary.TAILS,
          (*vocabulary.CITIES, *vocabulary.FOUNDERS),
      ),
  )
  return rf' (?=(?:(?:{heads})(?:{tails})|{words})(?!\p{{L}}))'


def train() -> tokenizers.Tokenizer:
  """Returns the tokenizer; the same one at every call.

  Raises:
    ValueError: The words leave no room in VOCAB_SIZE, or a name of the world
      is not the same two tokens everywhere.
  """
  alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
  whole = [*vocabulary.PROTOCOL_PIECES, *ROLES, ARGUMENT, f' {ARGUMENT}']
  whole += [str(number) for number in range(INTEGERS)]
  for word in (*vocabulary.words(), *WORDS, *vocabulary.SYLLABLES):
    if word.isalpha():  # Not the number of a numbered image.
      whole += [word] if word in vocabulary.COPIED else [word, f' {word}']
  vocab = dict.fromkeys([*alphabet, *map(_as_bytes, whole)])
  merges: dict[tuple[str, str], None] = {}

  def add(left: str, right: str) -> None:
    vocab[left + right] = None
    merges[left, right] = None

  # Names are made of syllables, so these merge first: two letters, then the
  # third. Across two syllables no such pair exists.
  syllables = [tuple(syllable) for syllable in vocabulary.SYLLABLES]
  for a, b, _ in syllables:
    add(a, b)
  for a, b, c in syllables:
    add(a + b, c)
  # Integers that are no token of their own, two digits at a time.
  for number in range(10, 100):
    add(*str(number))
  room = VOCAB_SIZE - len(SPECIAL) - len(TAGS)
  for left, right in _general_merges(room):
    if len(vocab) == room and left + right not in vocab:
      break
    add(left, right)
  if len(vocab) != room:
    raise ValueError(
        f'{len(vocab)} tokens for {room} places; change VOCAB_SIZE'
    )
  tokenizer = tokenizers.Tokenizer(
      models.BPE(
          vocab={token: index for index, token in enumerate(vocab)},
          merges=list(merges),
          # What the pattern keeps whole is looked up before any merging.
          ignore_merges=True,
      )
  )
  tokenizer.pre_tokenizer = pre_tokenizer()
  tokenizer.decoder = decoders.ByteLevel()
  for names, special in ((SPECIAL, True), (TAGS, False)):
    tokenizer.add_tokens([
        tokenizers.AddedToken(name, special=special, normalized=False)
        for name in names
    ])
  _check(tokenizer)
  return tokenizer


def pre_tokenizer() -> pre_tokenizers.PreTokenizer:
  return pre_tokenizers.Sequence([
      pre_tokenizers.Split(tokenizers.Regex(pattern()), behavior='isolated'),
      pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
  ])


def tokenizer_config(tokenizer: tokenizers.Tokenizer) -> dict[str, Any]:
  """What Hugging Face's AutoTokenizer reads beside tokenizer.json."""
  added = tokenizer.get_added_tokens_decoder()
  return {
      'tokenizer_class': 'PreTrainedTokenizerFast',
      'model_max_length': 32768,
      'clean_up_tokenization_spaces': False,
      'eos_token': '<|im_end|>',
      'pad_token': '<|endoftext|>',
      'added_tokens_decoder': {
          str(index): {
              'content': token.content,
              'lstrip': False,
              'normalized': False,
              'rstrip': False,
              'single_word': False,
              'special': token.special,
          }
          for index, token in sorted(added.items())
      },
  }


def preprocessor_config() -> dict[str, Any]:
  """Qwen2.5-VL's image processor, but for the cap: 9 tokens an image."""
  return {
      'image_processor_type': 'Qwen2VLImageProcessor',
      'patch_size': 14,
      'merge_size': 2,
      'temporal_patch_size': 2,
      'min_pixels': 56 * 56,
      'max_pixels': 84 * 84,
      'image_mean': [0.48145466, 0.4578275, 0.40821073],
      'image_std': [0.26862954, 0.26130258, 0.27577711],
  }


def make_files() -> dict[str, str]:
  """Returns the text of each file by its name."""
  tokenizer = train()
  return {
      'tokenizer.json': _dumps(json.loads(tokenizer.to_str())),
      'tokenizer_config.json': _dumps(tokenizer_config(tokenizer)),
      'preprocessor_config.json': _dumps(preprocessor_config()),
  }


def _general_merges(count: int) -> Iterable[tuple[str, str]]:
  """Merges learned from the tools' texts, most useful first."""
  learner = tokenizers.Tokenizer(models.BPE())
  learner.pre_tokenizer = pre_tokenizer()
  trainer = trainers.BpeTrainer(
      vocab_size=256 + count,
      min_frequency=2,
      show_progress=False,
      initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
  )
  # What is one token already teaches nothing.
  known = set(vocabulary.words()) | set(WORDS)
  texts = [
      ' '.join(word for word in text.split() if word not in known)
      for text in GENERAL
  ]
  learner.train_from_iterator(texts, trainer)
  return [
      tuple(merge) for merge in json.loads(learner.to_str())['model']['merges']
  ]


def _check(tokenizer: tokenizers.Tokenizer) -> None:
  for head in vocabulary.HEADS:
    for tail in vocabulary.TAILS:
      name = head + tail
      alone, after_space = (
          tokenizer.encode(text).ids for text in (name, f' {name}')
      )
      if len(alone) != 2 or after_space[1:] != alone:
        raise ValueError(f'the name {name!r} is not two tokens everywhere')
  for text in vocabulary.sample_texts():
    if tokenizer.decode(tokenizer.encode(text).ids) != text:
      raise ValueError(f'{text!r} does not come back')


def _as_bytes(text: str) -> str:
  """Spells text in the alphabet of byte-level vocabularies."""
  level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
  return ''.join(piece for piece, _ in level.pre_tokenize_str(text))


def _escape(text: str) -> str:
  return ''.join(
      char if char.isalnum() or char in '_"\n' else '\\' + char
      for char in text
  )


def _dumps(value: Any) -> str:
  return json.dumps(value, ensure_ascii=False, indent=1) + '\n'


def main() -> None:
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument('--folder', type=pathlib.Path, required=True)
  folder = parser.parse_args().folder
  folder.mkdir(parents=True, exist_ok=True)
  for name, text in make_files().items():
    (folder / name).write_text(text)
    print(f'{folder / name}: {len(text)} characters')


if __name__ == '__main__':
  main()
