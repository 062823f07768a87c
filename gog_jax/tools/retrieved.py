"""Reads what retrievers answer with.

Search-R1's servers answer with `{"result": [[{"document": {"contents": ..},
"score": ..}]]}`, others with other names for the same: those in use are known
(_LISTS, _TEXTS), be the results flat or a list for each query, texts, objects
or pairs with a score. A document whose text has no such name is an error that
names its fields; a score that is no number is none.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
import dataclasses
import sys
from typing import Any

from gog_jax import images
from gog_jax.errors import UserError
from gog_jax.remote import fields
from gog_jax.remote import http as http_json
from gog_jax.types import Hit

_MAX_FLOAT = sys.float_info.max
_LISTS = (
    'result', 'results', 'documents', 'docs', 'hits', 'passages', 'data',
    'matches', 'retrieved_documents', 'search_results', 'contexts', 'chunks',
    'items', 'nodes', 'points', 'response', 'output', 'organic', 'web', 'value',
)  # fmt: skip
_TEXTS = (
    'text', 'contents', 'content', 'page_content', 'passage', 'body',
    'document', 'doc', 'chunk', 'passage_text', 'paragraph', 'context',
    'raw_content', 'snippet', 'caption', 'abstract', 'summary',
    'description',
)  # fmt: skip
_INSIDE = (*_TEXTS, 'source', 'node', 'payload', 'entity', 'properties', 'data')
_TITLES = ('title', 'document_title', 'page_title', 'name', 'heading')
_SCORES = ('score', 'similarity', 'relevance_score', 'rerank_score')
# Of a thumbnail. What is larger is none, and costs a page too much.
_THUMBNAIL_BYTES = 2**20
_THUMBNAIL_PIXELS = 2**20


def items(value: Any, depth: int = 4) -> list[Any] | None:
  """What was found for the only query; None if there is no list of it.

  Raises:
    Garbled: There is a list for each of several queries.
  """
  if isinstance(value, list) and depth:
    nested = [x for x in value if isinstance(x, list) and not _is_pair(x)]
    if len(nested) > 1 or (nested and len(value) > 1):
      raise http_json.Garbled(f'{len(value)} lists answer one query')
    inner = value[0] if len(value) == 1 else None
    # For each query there may be a list, or an object with one.
    if nested or (isinstance(inner, dict) and not _texts(inner)):
      found = items(inner, depth - 1)
      return value if found is None else found
    return value
  for name in _LISTS if depth else ():
    inner = fields.field(value, name)
    if isinstance(inner, (dict, list)):
      return items(inner, depth - 1)
  return None


def _is_pair(item: Any) -> bool:
  """Whether it is a document with its score."""
  types = [type(one) for one in item] if isinstance(item, list) else []
  return len(types) == 2 and types[0] in (str, dict) and (
      types[1] not in (str, dict, list)
  )


def documents(value: Any) -> Iterator[tuple[Mapping[str, Any], float]]:
  """What was found for the only query, with scores; 0 where there is none.

  Raises:
    Failed: It is an error.
    Garbled: This is no answer; names the field.
  """
  found = items(value)
  if not found and (error := http_json.failure(value, alone=False)):
    raise error
  if found is None:
    raise http_json.failure(value, alone=True) or http_json.Garbled(
        f'the answer is {fields.shown(value)}, with no "result"'
    )
  for index, item in enumerate(found):
    item, score = item if _is_pair(item) else (item, None)
    item = {'contents': item} if isinstance(item, str) else item
    if not isinstance(item, dict):
      raise http_json.Garbled(f'result {index} is {fields.shown(item)}')
    score = fields.field(item, *_SCORES) if score is None else score
    # Inside, beside the score, or among the metadata: the innermost counts.
    document, inner = {}, item
    while isinstance(inner, dict):
      about = fields.field(inner, 'metadata', 'meta')
      about = about if isinstance(about, dict) else {}
      if _texts(inner):  # Then those of the metadata are something else.
        about = {k: x for k, x in about.items() if not _texts({k: x})}
      document |= {k: x for k, x in {**about, **inner}.items() if x is not None}
      holds = (fields.field(inner, name) for name in _INSIDE)
      inner = next((one for one in holds if isinstance(one, dict)), None)
    if type(score) not in (int, float) or not abs(score) <= _MAX_FLOAT:
      score = 0.0
    yield document, float(score)


def text_hit(document: Mapping[str, Any], score: float) -> Hit:
  """What a text document says to a policy; raises Garbled if it is none."""
  if not _texts(document):
    raise http_json.Garbled(
        f'a document has no text such as "contents": it is '
        f'{fields.shown(document)}'
    )
  hit = image_hit(document, score)
  if not hit.title and '\n' in hit.text:
    title, _, text = hit.text.partition('\n')
    hit = dataclasses.replace(hit, title=title.strip().strip('"'), text=text)
  return hit


def image_hit(document: Mapping[str, Any], score: float) -> Hit:
  """What an image's document says; raises Garbled if that is nothing."""
  title, texts = _title(document), _texts(document)
  if not title and not texts:
    raise http_json.Garbled(
        f'an image has no "title" or "caption": it is {fields.shown(document)}'
    )
  text = next(filter(None, texts), '')
  image = _thumbnail(document.get('thumbnail'))
  return Hit(title=title, text=text, score=score, image=image)


def _title(document: Mapping[str, Any]) -> str:
  title = fields.field(document, *_TITLES)
  return str(title) if type(title) in (str, int, float) else ''


def _texts(document: Mapping[str, Any]) -> list[str]:
  """Its texts by all names, also blank ones."""
  found = [fields.field(document, name) for name in _TEXTS]
  return [one for one in found if isinstance(one, str)]


def _thumbnail(encoded: Any) -> bytes | None:
  """A small image; a bomb or a damaged one is left out."""
  if not encoded or not isinstance(encoded, str):
    return None
  try:
    data = base64.b64decode(encoded, validate=True)
    if len(data) <= _THUMBNAIL_BYTES:
      width, height = images.size_of(data)
      if width * height <= _THUMBNAIL_PIXELS:
        images.decode(data)
        return data
  except (ValueError, UserError):
    pass
  return None
