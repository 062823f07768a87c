"""The grammar of MMSearch-R1: one action a message, each in tags of its own.

    message = reason ( image | text | answer ) end
    reason  = <reason> thought </reason>
    image   = <search><img></search>
    text    = <text_search> query </text_search>
    answer  = <answer> text </answer>
    end     = <|im_end|>

Results of a search stand in <information></information>. The tags are those of
MMSearch-R1's public code (EvolvingLMMs-Lab), and so are the limits in
dialects/mmsearch_r1.json; the wording of that file is ours. The released
checkpoint was trained with a prompt of its own: to run it, put that prompt into
a copy of the file, --config.model.dialect=FILE.json.

We differ from their training code in three ways. There, a call beyond a limit
or in the last turn ends the conversation; here, a call beyond a limit is
answered with an error, like every other mistake. Of several queries in a
message they take the last; we take the first, and the others are errors. And
hits are shown as text only, without the page's own image.

None of the tags is a token of Qwen's tokenizers, so a page that spells one
could not be told from the real thing: tags in content are broken up. For the
same reason calls cannot be forbidden by forbidding a token.
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
  """A search with the whole image, which takes no arguments."""
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
