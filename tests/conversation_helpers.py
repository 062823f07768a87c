"""One conversation in the layouts of others, and its images."""

from __future__ import annotations

import json
import pathlib

from tests.chat_helpers import CROP
from tests.chat_helpers import SCENE

GAZE = '{"name": "gaze", "arguments": {"bbox_2d": [28, 28, 56, 56]}}'
SEARCH = '{"name":"text_search","arguments":"{\\"query\\":\\"belwen year\\"}"}'
THOUGHT = '<think>find barred blue circle</think>\n'


def sharegpt(name: str = 'q', **more) -> dict:
  return {
      'id': name,
      'system': 'be brief',
      'tools': '[{"name": "gaze"}]',
      'conversations': [
          {'from': 'human', 'value': '<image>\nyear of barred blue circle?'},
          {'from': 'function_call', 'value': THOUGHT + GAZE},
          {'from': 'observation', 'value': '<image>belwen barred blue circle'},
          {'from': 'function_call', 'value': SEARCH},
          {'from': 'observation', 'value': 'belwen year 129'},
          {'from': 'gpt', 'value': '129'},
      ],
      'images': ['images/scene.png', 'images/crop.png'],
      'difficulty': {'level': [2, None, 0.5]},
      **more,
  }


def swift(name: str = 'q', **more) -> dict:
  """The same, for ms-swift."""
  row = sharegpt(name)
  del row['conversations']
  system = row.pop('system')
  return {
      **row,
      'messages': [
          {'role': 'system', 'content': system},
          {'role': 'user', 'content': '<image>\nyear of barred blue circle?'},
          {'role': 'assistant', 'content': THOUGHT},
          {'role': 'tool_call', 'content': GAZE},
          {
              'role': 'tool_response',
              'content': '<image>belwen barred blue circle',
          },
          {'role': 'tool_call', 'content': SEARCH},
          {'role': 'tool_response', 'content': 'belwen year 129'},
          {'role': 'assistant', 'content': '129'},
      ],
      **more,
  }


def save(path: pathlib.Path, rows) -> pathlib.Path:
  """Writes rows, and the images they name beside them."""
  (path.parent / 'images').mkdir(parents=True, exist_ok=True)
  (path.parent / 'images' / 'scene.png').write_bytes(SCENE)
  (path.parent / 'images' / 'crop.png').write_bytes(CROP.data)
  if path.suffix == '.jsonl':
    path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  else:
    path.write_text(json.dumps(list(rows), ensure_ascii=False))
  return path


def rows_of(path: pathlib.Path) -> list[dict]:
  if path.suffix == '.jsonl':
    return [json.loads(line) for line in path.read_text().splitlines()]
  return json.loads(path.read_text())
