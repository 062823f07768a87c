"""The grammar of MMSearch-R1: one action a message, each in tags of its own.

    message = reason ( image | text | answer ) end
    reason  = <reason> thought </reason>
    image   = <search><img></search>
    text    = <text_search> query </text_search>
    answer  = <answer> text </answer>
    end     = <|im_end|>

What a search brings back stands in <information></information>. The tags are
those of the public code of MMSearch-R1 (EvolvingLMMs-Lab), and so are the
limits in dialects/mmsearch_r1.json; the words of that file are ours. The
checkpoint that was released has been trained with a prompt of its own: to run
it, put that prompt into a copy of the file, --config.model.dialect=FILE.json.

Three things are as their training code has them not. There, a call beyond a
limit or in the last turn ends the conversation; here, a call beyond a limit is
answered with an error, as every other mistake is. There, of several queries in
a message the last one is taken; here the first, and the others are errors. And
hits are shown as text alone, without a page's own image.

None of the tags is a token of Qwen's tokenizers. So a page that spells one
could not be told from the real thing: contents are broken up where they do.
For the same reason no token can be forbidden in order to forbid calls.
"""

from __future__ import annotations

from gog_jax.chat.grammar import CallError
from gog_jax.chat.grammar import CallForm
from gog_jax.chat.grammar import Grammar
from gog_jax.types import ToolCall

_IMAGE = '<img>'
_IMAGE_SEARCH = f'<search>{_IMAGE}</search>'
_TEXT_SEARCH = '<text_search>query</text_search>'


def _read_image(text: str) -> tuple[str, dict[str, str]]:
  """A search with the whole image, which needs no argument."""
  if text.strip() != _IMAGE:
    raise CallError(
        f'an image search is {_IMAGE_SEARCH}, the image and no more'
    )
  return 'image_search', {}


def _write_image(call: ToolCall) -> str:
  if call.arguments:
    raise ValueError(f'{_IMAGE_SEARCH} has no place for {call.arguments!r}')
  return _IMAGE


def _read_query(text: str) -> tuple[str, dict[str, str]]:
  """A search with a query in plain words."""
  if not text.strip():
    raise CallError(f'the query of {_TEXT_SEARCH} is empty')
  return 'text_search', {'query': text.strip()}


def _write_query(call: ToolCall) -> str:
  query = call.arguments.get('query')
  if set(call.arguments) != {'query'} or not isinstance(query, str):
    raise ValueError(f'{_TEXT_SEARCH} has no place for {call.arguments!r}')
  if not query.strip():
    raise ValueError('the query is empty')
  return query.strip()


MMSEARCH_R1 = Grammar(
    think=('<reason>', '</reason>'),
    answer=('<answer>', '</answer>'),
    reply=('<information>', '</information>'),
    forms=(
        CallForm(
            tags=('<search>', '</search>'),
            shown=_IMAGE_SEARCH,
            tools=('image_search',),
            read=_read_image,
            write=_write_image,
        ),
        CallForm(
            tags=('<text_search>', '</text_search>'),
            shown=_TEXT_SEARCH,
            tools=('text_search',),
            read=_read_query,
            write=_write_query,
        ),
    ),
    one_call=True,
    names_calls=True,
    defuses=True,
)
