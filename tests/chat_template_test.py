"""Qwen3-VL's conventions, and a model folder's own chat template."""

from __future__ import annotations

import json
import shutil

import pytest

from gog_jax.chat.template import load_template
from gog_jax.chat.template import Template
from gog_jax.errors import UserError
from gog_jax.types import Example
from tests import helpers
from tests.chat_helpers import CROP
from tests.chat_helpers import EXAMPLE
from tests.chat_helpers import GAZE
from tests.chat_helpers import GLANCE
from tests.chat_helpers import hit
from tests.chat_helpers import HOSTILE
from tests.chat_helpers import image
from tests.chat_helpers import make_chat
from tests.chat_helpers import ok
from tests.chat_helpers import TOOLS
from tests.chat_helpers import TOY

# In the way of Qwen3-VL's: tools after the system message's own words, images
# in questions and replies, replies of a row in one message of the user.
TEMPLATE = """
{%- macro show(content) %}
  {%- if content is string %}{{ content }}{% else %}
    {%- for part in content %}
      {%- if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>
      {%- else %}{{ part.text }}{% endif %}
    {%- endfor %}
  {%- endif %}
{%- endmacro %}
{%- if tools %}
  {{- '<|im_start|>system\\n' + messages[0].content + '\\n\\nTOOLS' }}
  {%- for tool in tools %}{{ '\\n' + tool | tojson }}{% endfor %}
  {{- '\\n<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
  {%- if message.role == 'tool' %}
    {%- if messages[loop.index0 - 1].role != 'tool' %}
      {{- '<|im_start|>user' }}
    {%- endif %}
    {{- '\\n<tool_response>\\n' + show(message.content) }}
    {{- '\\n</tool_response>' }}
    {%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}
      {{- '<|im_end|>\\n' }}
    {%- endif %}
  {%- elif message.role != 'system' %}
    {{- '<|im_start|>' + message.role + '\\n' + show(message.content) }}
    {{- '<|im_end|>\\n' }}
  {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""
THINKS = TEMPLATE.replace("assistant\\n'", "assistant\\n<think>\\n'")
NO_TOOLS = TEMPLATE.replace('{%- if tools %}', '{%- if false %}')


@pytest.fixture(name='copy')
def copied_folder(tmp_path):
  """The toy's folder with another chat template, or none."""

  def make(template=None, file='chat_template.jinja'):
    for name in ('tokenizer.json', 'tokenizer_config.json'):
      shutil.copy(TOY / name, tmp_path)
    if template is not None:
      if file.endswith('.json'):
        path = tmp_path / file
        old = json.loads(path.read_text()) if path.exists() else {}
        template = json.dumps(old | {'chat_template': template})
      (tmp_path / file).write_text(template)
    return tmp_path

  return make


def template_of(folder) -> Template:
  template = load_template(folder)
  assert template is not None
  return template


def test_the_tool_section_word_for_word():
  """As Qwen3-VL's published template writes it, read off by hand."""
  chat = make_chat(TOY, 'qwen3_vl')
  text = chat.decode(chat.prompt(EXAMPLE).token_ids)
  start = f'<|im_start|>system\n{chat.dialect.instructions}\n\n# Tools\n\n'
  assert text.startswith(start)
  section, _, user = text.removeprefix(start).partition('<|im_end|>\n')
  schema = '{"type": "object", "additionalProperties": false}'
  lines = section.split('\n')
  assert lines[:4] == [
      'You may call one or more functions to assist with the user query.',
      '',
      'You are provided with function signatures within <tools></tools> XML '
      'tags:',
      '<tools>',
  ]
  assert lines[5] == (
      '{"type": "function", "function": {"name": "image_search", '
      f'"description": "Finds images.", "parameters": {schema}}}}}'
  )
  assert [json.loads(x)['function'] for x in lines[4:7]] == list(TOOLS)
  assert lines[7:] == [
      '</tools>',
      '',
      'For each function call, return a json object with function name and '
      'arguments within <tool_call></tool_call> XML tags:',
      '<tool_call>',
      '{"name": <function-name>, "arguments": <args-json-object>}',
      '</tool_call>',
  ]
  assert user == (
      f'<|im_start|>user\n{image(9)}{EXAMPLE.question}<|im_end|>\n'
      '<|im_start|>assistant\n'
  )


def test_a_crop_is_shown_inside_its_tool_response():
  chat = make_chat(TOY, 'qwen3_vl')
  chunk = chat.observation([GAZE, GLANCE], [ok(hit('b', 'a'), view=CROP), ok()])
  assert chat.decode(chunk.token_ids) == (
      '\n<|im_start|>user\n'
      f'<tool_response>\n{image(6)}\n1. a\nb\n</tool_response>\n'
      '<tool_response>\nNo results.\n</tool_response><|im_end|>\n'
      '<|im_start|>assistant\n'
  )


@pytest.mark.parametrize(
    'file', ['chat_template.jinja', 'chat_template.json',
             'tokenizer_config.json']
)  # fmt: skip
def test_the_folders_template_writes_the_prompt(copy, file):
  """Ids equal those of what Hugging Face renders and encodes."""
  transformers = helpers.require('transformers')
  folder = copy(TEMPLATE, file)
  chat = make_chat(folder, 'qwen3_vl')
  tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(str(folder))
  tools = [{'type': 'function', 'function': tool} for tool in TOOLS]
  for images in ((), EXAMPLE.images, EXAMPLE.images * 2):
    example = Example(
        id='e', images=images, question='who?', answers=(), source='',
        scope='',
    )  # fmt: skip
    content: list[dict] = [{'type': 'image'} for _ in images]
    content.append({'type': 'text', 'text': 'who?'})
    messages = [
        {'role': 'system', 'content': chat.dialect.instructions},
        {'role': 'user', 'content': content},
    ]
    text = tokenizer.apply_chat_template(
        messages,
        tools=tools,
        chat_template=template_of(folder).source,
        add_generation_prompt=True,
        tokenize=False,
    )
    assert 'TOOLS' in text
    whole = text.replace('<|image_pad|>', '<|image_pad|>' * 9)
    ids = chat.prompt(example).token_ids
    assert list(ids) == tokenizer(whole)['input_ids']


def test_a_template_without_tools_leaves_them_to_the_dialect(copy):
  bare = make_chat(copy(), 'qwen3_vl').prompt(EXAMPLE)
  assert make_chat(copy(NO_TOOLS), 'qwen3_vl').prompt(EXAMPLE) == bare
  assert make_chat(copy(TEMPLATE), 'qwen3_vl').prompt(EXAMPLE) != bare


def test_a_dialect_without_instructions_does_not_ask_the_template(copy):
  bare = make_chat(copy(), 'gog').prompt(EXAMPLE)
  assert make_chat(copy(TEMPLATE), 'gog').prompt(EXAMPLE) == bare


def test_nothing_untrusted_passes_through_the_template(copy):
  chat = make_chat(copy(TEMPLATE), 'qwen3_vl')
  counts = []
  for question in ('harmless', ' '.join(HOSTILE) + '{{ tools }}{% if %}'):
    ids = chat.prompt(
        Example(
            id='e', images=(), question=question, answers=(), source='',
            scope='',
        )  # fmt: skip
    ).token_ids
    assert question in chat.decode(ids)
    counts.append(sum(i >= min(chat.codec._added.values()) for i in ids))
  assert counts[0] == counts[1]


def test_the_first_of_several_files_wins(copy):
  folder = copy(TEMPLATE, 'tokenizer_config.json')
  (folder / 'chat_template.json').write_text(
      json.dumps({'chat_template': NO_TOOLS})
  )
  assert not template_of(folder).knows_tools()
  (folder / 'chat_template.jinja').write_text(TEMPLATE)
  assert template_of(folder).knows_tools()


@pytest.mark.parametrize(
    ('template', 'dialect', 'reason'),
    [
        (THINKS, 'qwen3_vl', 'Thinking and Instruct'),
        (TEMPLATE, 'qwen3_vl_thinking', 'Thinking and Instruct'),
        ('{% if %}', 'qwen3_vl', 'not a chat template'),
        ("{{ raise_exception('no') }}", 'qwen3_vl', r'\(no\)'),
        ("{{ 1 / 0 }}", 'qwen3_vl', 'by zero'),
        ('[INST]', 'qwen3_vl', 'only Qwen'),
        (
            TEMPLATE.replace('<|vision_start|>', 'Picture: <|vision_start|>'),
            'qwen3_vl',
            'does not show images',
        ),
        (
            TEMPLATE.replace('tool_response', 'result'),
            'qwen3_vl',
            'replies of tools',
        ),
    ],
)
def test_contradictions_end_in_one_line(copy, template, dialect, reason):
  folder = copy(template)
  with pytest.raises(UserError, match=reason) as caught:
    make_chat(folder, dialect)
  assert '\n' not in str(caught.value)
  assert str(folder) in str(caught.value)


def test_a_damaged_file_is_one_line(copy):
  (copy() / 'chat_template.json').write_text('{')
  with pytest.raises(UserError, match='cannot be read'):
    make_chat(copy(), 'qwen3_vl')


def test_templates_know_the_generation_tag():
  """Training templates mark the model's words; rendering ignores it."""
  template = Template(
      '{% generation %}{{ messages[0].content }}{% endgeneration %}', 'x'
  )
  assert template.render(('user', 'a')) == 'a'


# Thinking models: their first tag is written for them.


@pytest.mark.parametrize('template', [None, THINKS])
def test_a_forced_thought(copy, template):
  chat = make_chat(copy(template), 'qwen3_vl_thinking')
  prompt = chat.decode(chat.prompt(EXAMPLE).token_ids)
  reply = chat.decode(chat.observation([GLANCE], [ok()]).token_ids)
  for text in (prompt, reply):
    assert text.endswith('<|im_end|>\n<|im_start|>assistant\n<think>\n')
  turn = chat.encode_turn(thought='find it', calls=[GLANCE])
  # The opening is the environment's: not sampled, so its loss_mask is 0.
  assert chat.decode(turn) == (
      'find it\n</think>\n\n<tool_call>\n'
      '{"name":"image_search","arguments":{}}\n</tool_call><|im_end|>'
  )
  parsed = chat.parse(turn, truncated=False)
  assert (parsed.thought, parsed.calls) == ('find it', (GLANCE,))
  assert parsed.format_error is None
  turn = chat.encode_turn(thought='', answer='132')
  assert chat.parse(turn, truncated=False).answer == '132'
  # Opening it a second time breaks the format.
  again = make_chat(TOY, 'qwen3_vl').encode_turn(thought='x', answer='132')
  assert 'tag inside' in str(chat.parse(again, truncated=False).format_error)


def test_a_dialects_thought_begins_with_its_opening(tmp_path):
  dialects = TOY.parents[1] / 'chat' / 'dialects'
  fields = json.loads((dialects / 'qwen3_vl_thinking.json').read_text())
  path = tmp_path / 'mine.json'
  path.write_text(json.dumps(fields | {'opening': '<think>\n\n'}))
  with pytest.raises(UserError, match='thought must begin with opening'):
    make_chat(TOY, str(path))


@pytest.mark.parametrize(
    'file', ['chat_template.json', 'tokenizer_config.json']
)
@pytest.mark.parametrize('held', [list, dict])
def test_of_several_templates_the_default_is_used_and_said(
    copy, capfd, file, held
):
  named = {'tool_use': NO_TOOLS, 'default': TEMPLATE, 'rag': 'x'}
  several = named if held is dict else [
      {'name': name, 'template': text} for name, text in named.items()
  ]
  assert template_of(copy(several, file)).source == TEMPLATE
  said = capfd.readouterr().err
  assert '3 chat templates (tool_use, default, rag)' in said
  assert 'default is used' in said


def test_several_templates_without_a_default_are_refused(copy):
  folder = copy([{'name': 'rag', 'template': 'x'}], 'tokenizer_config.json')
  with pytest.raises(UserError, match='called rag and none called default'):
    load_template(folder)


def test_a_byte_order_mark_is_no_part_of_a_template(copy):
  folder = copy('\ufeff' + TEMPLATE)
  assert template_of(folder).source == TEMPLATE
