"""Every word the world can say, and the sentences it says them in.

The toy tokenizer has each word here as one token. Sentences are short on
purpose: a model of a million parameters has to learn them.
"""

from __future__ import annotations

from collections.abc import Iterator
import functools

COLOURS = (
    'red', 'orange', 'yellow', 'green', 'cyan', 'blue', 'purple', 'pink',
)
SHAPES = ('circle', 'square', 'triangle', 'diamond', 'star', 'cross')
PATTERNS = ('plain', 'striped', 'barred')

# A name is a head and a tail. Which pairs a split may use: knowledge.py.
HEADS = (
    'bel', 'dor', 'van', 'kel', 'mir', 'tos', 'gar', 'lun',
    'pel', 'ras', 'sol', 'fen', 'hol', 'jor', 'cam', 'wil',
    'zan', 'nev', 'bir', 'dun', 'vol', 'kas', 'mel', 'tur',
    'gol', 'lar', 'pon', 'rik', 'sel', 'fur', 'hes', 'jun',
)
TAILS = (
    'dak', 'mon', 'tis', 'gor', 'len', 'pas', 'rim', 'sun',
    'fal', 'hem', 'jin', 'cor', 'wen', 'zil', 'nar', 'but',
    'dim', 'vas', 'kun', 'mot', 'tal', 'geb', 'lik', 'pud',
    'ron', 'sig', 'fos', 'hat', 'jud', 'ces', 'wog', 'zer',
)
SYLLABLES = HEADS + TAILS

ATTRIBUTES = ('year', 'city', 'founder')
YEARS = tuple(str(year) for year in range(100, 169))
CITIES = (
    'paris', 'london', 'rome', 'madrid', 'vienna', 'prague', 'oslo', 'cairo',
    'lima', 'tokyo', 'delhi', 'quito', 'athens', 'berlin', 'dublin', 'lisbon',
    'geneva', 'naples', 'venice', 'boston', 'denver', 'havana', 'manila',
    'sydney',
)
FOUNDERS = (
    'anna', 'boris', 'clara', 'david', 'emma', 'felix', 'greta', 'hugo',
    'irene', 'jonas', 'karla', 'louis', 'maria', 'nina', 'oscar', 'paula',
    'quinn', 'rosa', 'simon', 'teresa', 'ursula', 'victor', 'wanda', 'yusuf',
)
VALUES = {'year': YEARS, 'city': CITIES, 'founder': FOUNDERS}
# Words that agents copy from replies into queries and answers; the tokenizer
# gives them the same tokens everywhere.
COPIED = SYLLABLES + CITIES + FOUNDERS

STRONG, WEAK = MATCHES = ('strong', 'weak')
ALIAS = 'aka'
UNKNOWN = 'unknown'

# How a question refers to an emblem; 'other' names its neighbour's colour.
# 'pattern' tells twins apart, which a glance cannot.
REFERENCES = {
    'colour': 'the {colour} emblem',
    'both': 'the {colour} {shape}',
    'top': 'the top emblem',
    'bottom': 'the bottom emblem',
    'left': 'the left emblem',
    'right': 'the right emblem',
    'other': 'the emblem not {colour}',
    'pattern': 'the {pattern} {colour} {shape}',
    'big': 'the big emblem',
    'small': 'the small emblem',
}


def in_short(ref: str) -> str:
  """A reference as thoughts write it: 'the left emblem' is 'left'."""
  return ' '.join(word for word in ref.split() if word not in ('the', 'emblem'))


# What is asked about `{ref}`: an emblem, or for a fact also a name.
QUESTIONS = {
    'colour': (
        'what colour is {ref}?', 'colour of {ref}?', 'which colour has {ref}?',
    ),
    'shape': (
        'what shape is {ref}?', 'shape of {ref}?', 'which shape has {ref}?',
    ),
    'pattern': (
        'what pattern has {ref}?', 'pattern of {ref}?',
        'which pattern has {ref}?',
    ),
    'count': ('how many emblems are here?', 'count the emblems?'),
    'name': (
        'what is {ref} called?', 'name of {ref}?',
        'what is the name of {ref}?',
    ),
    'year': (
        'year of {ref}?', 'which year is {ref} from?',
        'when was {ref} founded?',
    ),
    'city': (
        'city of {ref}?', 'which city is {ref} from?',
        'what is the city of {ref}?',
    ),
    'founder': (
        'founder of {ref}?', 'who founded {ref}?',
        'who is the founder of {ref}?',
    ),
}  # fmt: skip

IMAGE_HIT = '{name} {pattern} {colour} {shape} {match}'
FACT_HIT = '{name} {attribute} {value}'
ALIAS_HIT = '{name} {attribute} ' + ALIAS + ' {alias}'
# A document describes an emblem that image search does not know.
LOOK_HIT = '{name} {pattern} {colour} {shape}'
TEXT_QUERY = '{name} {attribute}'
LOOK_QUERY = '{pattern} {colour} {shape}'

# Stands for a pattern that the question does not give.
ANY = 'any'
# What is asked, and the look that is sought, word by word as in a hit. It is
# repeated at each step because a small model does not attend far back.
SOUGHT = '{asked} of {pattern} {colour} {shape}'

# A thought before a search repeats the reference, then says what is `sought`:
# so the reply can contradict it.
THOUGHTS = {
    'see': 'see {ref}: {colour} {shape}',
    'count': 'see {count} emblems',
    'glance': 'glance for {ref}: {sought}',
    'find': 'find {ref}: {sought}',
    'again': 'wrong find {colour} {shape}',
    'twin': 'wrong find other {colour} {shape}',
    'describe': 'weak describe {pattern} {colour} {shape}',
    'pattern': 'found {pattern}',
    'check': 'check {ref}: {sought}',
    'need': 'need {attribute} of {name}',
    'alias': ALIAS + ' {alias}',
    'found': 'found {attribute} of {name}',
    'name': 'found {colour} {shape}',
    'stop': 'found {colour} {shape} not {asked}',
    'lost': 'not found',
}

REFLECTION = '{sought} got {shown}: {thought}'

# What pretraining asks besides QUESTIONS.
GROUNDING = {
    'box': ('where is {ref}?', 'find {ref}', 'box of {ref}?'),
    'crop': ('what is this?', 'describe this'),
    'survey': ('what is where?', 'which emblems are where?'),
    'list': ('which emblems from the {side}?',),
    'copy': ('copy {text}', 'say {text}'),
}

# The tools' calls as compact JSON. Pretraining writes or copies each of them:
# all their tokens are trained before the first fine-tuning step.
BOX_START, BOX_END = '{"name":"gaze","arguments":{"bbox_2d":[', ']}}'
PROTOCOL_PIECES = (
    BOX_START,
    BOX_END,
    '],"image":',
    '}}',
    '{"name":"text_search","arguments":{"query":"',
    '"}}',
    '{"name":"image_search","arguments":{}}',
)
# Words of prompts and error messages, copied in pretraining for that reason.
PROTOCOL_WORDS = (
    'search', 'answer', 'error', 'call', 'tool', 'text', 'query', 'arguments',
    'bbox_2d', 'must', 'no', 'or', 'and', 'outside', 'with', 'it', 'on', 'x',
    'got', 'JSON',
)
PUNCTUATION = tuple('.,:;!?-+*/=_#%&@$^~|\\\'"`()[]{}<>') + ('\n',)


_SAID = (*THOUGHTS.values(), IMAGE_HIT, FACT_HIT, ALIAS_HIT, LOOK_HIT)
_ASKED = (*QUESTIONS.values(), *GROUNDING.values())


@functools.lru_cache(maxsize=1)
def words() -> tuple[str, ...]:
  """Returns every word that deserves a token of its own, once each."""
  sentences = [*REFERENCES.values(), *_SAID]
  sentences += [line for lines in _ASKED for line in lines]
  found = [
      *COLOURS, *SHAPES, *PATTERNS, *ATTRIBUTES, *CITIES, *FOUNDERS, *MATCHES,
      ALIAS, UNKNOWN, ANY, 'got', 'image', 'emblem', 'emblems',
  ]  # fmt: skip
  said = ' '.join(sentences).replace('?', ' ').split()
  found += [word for word in said if '{' not in word]
  return tuple(dict.fromkeys(found))


def sample_texts() -> Iterator[str]:
  """Yields texts as the world says them, for checking a tokenizer.

  Words come with and without a leading space, names as all pairs of
  syllables, integers 0..168, and each sentence many times with its slots
  filled. The same texts in the same order at every call.
  """
  for word in words():
    yield f'{word} {word}'
  names = [head + tail for head in HEADS for tail in TAILS]
  for name, other in zip(names, reversed(names), strict=True):
    yield f'{name} {name}'
    yield f'{name[:3]} {name[3:]} {other}'
  for number in range(169):
    yield f'{number} {number},{number}]'
  for index in range(240):
    attribute = ATTRIBUTES[index % 3]
    slots = {
        'colour': COLOURS[index % 8],
        'shape': SHAPES[index % 6],
        'pattern': (*PATTERNS, ANY)[index % 4],
        'name': names[index],
        'alias': names[-index],
        'attribute': attribute,
        'asked': attribute,
        'value': VALUES[attribute][index % 24],
        'match': MATCHES[index % 2],
        'count': str(2 + index % 3),
        'side': ('left', 'right', 'top', 'bottom')[index % 4],
    }
    slots['sought'] = SOUGHT.format(**slots)
    slots['text'] = FACT_HIT.format(**slots)
    reference = tuple(REFERENCES.values())[index % len(REFERENCES)]
    slots['ref'] = reference.format(**slots)
    for lines in _ASKED:
      yield lines[index % len(lines)].format(**slots)
    slots['ref'] = in_short(slots['ref'])
    for line in (*_SAID, LOOK_QUERY):
      yield line.format(**slots)
  yield from PROTOCOL_PIECES
