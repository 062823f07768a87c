"""A model folder's own chat template: its system message, and its frame.

The template is a Jinja program in the tokenizer's folder. We use it for one
thing, the system message with the tools, and check that it writes the rest in
the same frame as we do. Nothing untrusted goes through it: questions and
results are encoded separately, so that none can spell a control token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import json
from typing import Any

from etils import epath
import jinja2
from jinja2 import nodes
import jinja2.ext
import jinja2.sandbox

from gog_jax.chat import protocol
from gog_jax.chat.codec import END
from gog_jax.chat.codec import START
from gog_jax.chat.dialect import Dialect
from gog_jax.errors import UserError
from gog_jax.storage import files
from gog_jax.storage import metrics

_INSTEAD = 'choose a dialect that does not ask it, --config.model.dialect=gog'
IMAGE = '<|vision_start|><|image_pad|><|vision_end|>'
# Texts that no template contains by itself.
_QUESTION, _REPLIES = 'what-is-asked', ('first-reply', 'second-reply')
_SYSTEM, _MESSAGE, _TOOL = 'what-we-say', 'what-was-called', 'name-of-a-tool'


class _Generation(jinja2.ext.Extension):
  """`{% generation %}`, with which training templates mark a model's words."""

  tags = {'generation'}

  def parse(self, parser) -> list[nodes.Node]:
    next(parser.stream)
    return parser.parse_statements(('name:endgeneration',), drop_needle=True)


class Template:
  """A chat template.

  Attributes:
    where: The file it comes from.
    source: Its text.
  """

  def __init__(self, source: str, where: str):
    """Compiles it, in a sandbox, as Hugging Face does.

    Raises:
      UserError: It is not Jinja.
    """
    self.where, self.source = where, source
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[_Generation, 'jinja2.ext.loopcontrols'],
    )
    environment.filters['tojson'] = _tojson
    environment.globals['raise_exception'] = _refuse
    try:
      self._template = environment.from_string(source)
    except jinja2.TemplateError as error:
      raise UserError(
          f'{where} is not a chat template ({error}); copy it anew'
      ) from error

  def render(
      self,
      *messages: tuple[str, Any],
      tools: Sequence[Mapping[str, Any]] = (),
  ) -> str:
    """The conversation as text, up to the model's next message.

    Args:
      *messages: Role and content of each.
      tools: `{'name', 'description', 'parameters'}` each.

    Raises:
      UserError: The template refuses it.
    """
    functions = [{'type': 'function', 'function': dict(t)} for t in tools]
    try:
      return self._template.render(
          messages=[{'role': r, 'content': content} for r, content in messages],
          tools=functions or None,
          add_generation_prompt=True,
      )
    except Exception as error:  # The folder's program may raise anything.
      reason = ' '.join(str(error).split())
      raise UserError(
          f'{self.where} cannot write the conversation ({reason}); {_INSTEAD}'
      ) from error

  def head(
      self, instructions: str, tools: Sequence[Mapping[str, Any]]
  ) -> str | None:
    """Everything before the first user message; None if it supports no tools.

    Raises:
      UserError: The template refuses even text.
    """
    if not tools or not self.knows_tools():
      return None
    system, user = ('system', instructions), ('user', _QUESTION)
    text = self.render(system, user, tools=tools)
    return text.partition(f'{START}user')[0]

  def knows_tools(self) -> bool:
    """Whether it writes the tools that it is given."""
    tool = {'name': _TOOL, 'description': '', 'parameters': {}}
    text = self.render(('system', _SYSTEM), ('user', _QUESTION), tools=[tool])
    return _TOOL in text and _SYSTEM in text

  def check(self, dialect: Dialect) -> None:
    """Refuses a template whose frame differs from ours.

    Raises:
      UserError: Says how it differs, and what to choose instead.
    """
    if (opening := self.opening()) != dialect.opening:
      # For Thinking models the first tag is part of the prompt.
      raise UserError(
          f'{self.where} begins the policy\'s message with {opening!r}, '
          f'dialect {dialect.name} with {dialect.opening!r}: '
          'Thinking and Instruct models have a profile and a dialect each, '
          'qwen3_vl_thinking and qwen3_vl; choose the folder\'s'
      )
    if not self.shows_images():
      raise UserError(
          f'{self.where} does not show images as Qwen-VL models do; {_INSTEAD}'
      )
    if self.knows_tools() and not self.takes_replies(images=False):
      raise UserError(
          f'{self.where} writes the replies of tools otherwise than in '
          f'{protocol.RESPONSE} blocks of a user message; {_INSTEAD}'
      )

  def opening(self) -> str:
    """The beginning of the policy's message, written for it.

    Raises:
      UserError: It does not begin messages as Qwen's models do.
    """
    text = self.render(('user', _QUESTION))
    _, mark, opening = text.partition(f'{START}assistant\n')
    if not mark:
      raise UserError(
          f'{self.where} does not begin a message with {START}assistant: only '
          "Qwen's conversations are supported; choose another model folder"
      )
    return opening

  def shows_images(self) -> bool:
    """Whether it writes a question with images in our frame."""
    content = [{'type': 'image'}] * 2 + [{'type': 'text', 'text': _QUESTION}]
    frame = f'{START}user\n{IMAGE}{IMAGE}{_QUESTION}{END}\n{START}assistant\n'
    return frame in self._try(('user', content))

  def takes_replies(self, *, images: bool) -> bool:
    """Whether it writes replies of tools as we do, with an image or without."""
    first: Any = _REPLIES[0]
    if images:
      first = [{'type': 'image'}, {'type': 'text', 'text': _REPLIES[0]}]
    text = self._try(
        ('user', _QUESTION),
        ('assistant', _MESSAGE),
        ('tool', first),
        ('tool', _REPLIES[1]),
    )
    shown = IMAGE if images else ''
    return text.partition(f'{_MESSAGE}{END}')[2].startswith(
        f'\n{START}user\n<tool_response>\n{shown}{_REPLIES[0]}\n'
        f'</tool_response>\n<tool_response>\n{_REPLIES[1]}\n'
        f'</tool_response>{END}\n{START}assistant\n'
    )

  def _try(self, *messages: tuple[str, Any]) -> str:
    """The conversation as text; empty if the template refuses it."""
    try:
      return self.render(*messages)
    except UserError:
      return ''


def load_template(folder: epath.PathLike) -> Template | None:
  """The folder's chat template, from the file that Hugging Face would use.

  Raises:
    UserError: The file with it is damaged.
  """
  folder = epath.Path(folder)
  if (path := folder / 'chat_template.jinja').exists():
    try:
      return Template(files.text_of(path.read_bytes()), str(path))
    except (OSError, ValueError) as error:
      raise UserError(f'{path} cannot be read; copy it anew') from error
  for name in ('chat_template.json', 'tokenizer_config.json'):
    path = folder / name
    if not path.exists():
      continue
    found = files.read_json(path, advice='copy it anew').get('chat_template')
    if isinstance(found, list):  # Several, by name.
      found = {
          one.get('name'): one.get('template')
          for one in found if isinstance(one, dict)
      }
    if isinstance(found, dict):
      named, found = found, found.get('default')
      if not isinstance(found, str):
        raise UserError(
            f'{path} holds chat templates called {", ".join(map(str, named))} '
            'and none called default: rename the one to use'
        )
      if len(named) > 1:
        metrics.say(
            f'{path} holds {len(named)} chat templates '
            f'({", ".join(map(str, named))}): the one called default is used'
        )
    if isinstance(found, str):
      return Template(found, str(path))
  return None


def _tojson(value: Any, indent: int | None = None, **_: Any) -> str:
  # Jinja's own filter escapes < and > and sorts keys; Hugging Face's does not.
  return json.dumps(value, ensure_ascii=False, indent=indent)


def _refuse(message: str) -> None:
  raise jinja2.TemplateError(message)
