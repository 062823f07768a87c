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

from gog_jax.chat.calls import bad_call
from gog_jax.chat.calls import Calls
from gog_jax.chat.grammar import Grammar
from gog_jax.chat.grammar import Tags
from gog_jax.types import ToolCall

_IMAGE = '<img>'


class _ImageSearch:
  """A search with the whole image, which needs no argument."""

  tags: Tags = ('<search>', '</search>')
  shown = f'<search>{_IMAGE}</search>'
  tools = ('image_search',)

  def read(self, text: str, calls: Calls) -> ToolCall:
    if text.strip() != _IMAGE:
      return bad_call(f'an image search is {self.shown}, the image and no more')
    return calls.call('image_search', {})

  def write(self, call: ToolCall, grammar: Grammar) -> str:
    del grammar
    if call.arguments:
      raise ValueError(f'{self.shown} has no place for {call.arguments!r}')
    return _IMAGE


class _TextSearch:
  """A query in plain words."""

  tags: Tags = ('<text_search>', '</text_search>')
  shown = '<text_search>query</text_search>'
  tools = ('text_search',)

  def read(self, text: str, calls: Calls) -> ToolCall:
    if not text.strip():
      return bad_call(f'the query of {self.shown} is empty')
    return calls.call('text_search', {'query': text.strip()})

  def write(self, call: ToolCall, grammar: Grammar) -> str:
    """The query, stripped.

    Raises:
      ValueError: It is empty, holds a tag, or is not all that is asked.
    """
    query = call.arguments.get('query')
    if set(call.arguments) != {'query'} or not isinstance(query, str):
      raise ValueError(f'{self.shown} has no place for {call.arguments!r}')
    if not query.strip():
      raise ValueError('the query is empty')
    if tag := grammar.tag.search(query):
      raise ValueError(f'{tag.group()} inside the query {query!r}')
    return query.strip()


MMSEARCH_R1 = Grammar(
    think=('<reason>', '</reason>'),
    answer=('<answer>', '</answer>'),
    reply=('<information>', '</information>'),
    forms=(_ImageSearch(), _TextSearch()),
    one_call=True,
    names_calls=True,
    defuses=True,
)
