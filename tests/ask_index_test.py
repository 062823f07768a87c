"""A question about one of four photographs, asked end to end.

Over an index of one's own documents and photographs, to a remote model that is
a script: it knows nothing but what the messages show it.
"""

import json
import re
import subprocess

from PIL import Image
import pytest

from gog_jax.storage import trajectories as store
from gog_jax.types import Trajectory
from tests import endpoints
from tests import helpers
from tests import main_test
from tests import report_test

FACTS = {
    'china': ('Summer Palace', 'The Summer Palace was rebuilt in 1888.'),
    'coffee': ('Espresso', 'The first espresso machine is from 1884.'),
    'rocket': ('Falcon 9', 'Falcon 9 first flew in 2010.'),
    'chelsea': ('Chelsea the cat', 'Chelsea was photographed in 2013.'),
    'astronaut': ('Eileen Collins', 'Eileen Collins first flew in 1995.'),
    'flower': ('Dahlia', 'Dahlias came to Europe in 1789.'),
}
CORNERS = ('coffee', 'astronaut', 'china', 'rocket')


def four(photos) -> Image.Image:
  """Two by two, 320 x 240 each."""
  whole = Image.new('RGB', (640, 480))
  for i, name in enumerate(CORNERS):
    photo = photos[name].resize((320, 240))
    whole.paste(photo, (320 * (i % 2), 240 * (i // 2)))
  return whole


@pytest.fixture(scope='module', name='folder')
def an_index(tmp_path_factory):
  """The photographs, what is known of them, and the index of both."""
  helpers.require('skimage')
  helpers.require('sklearn')
  from scripts import index_pictures

  photos = index_pictures.photographs()
  folder = tmp_path_factory.mktemp('own')
  (folder / 'photos').mkdir()
  for name, photo in photos.items():
    photo.save(folder / 'photos' / f'{name}.jpg', quality=90)
  rows = [
      {'id': name, 'title': title, 'text': text, 'image': f'{name}.jpg'}
      for name, (title, text) in FACTS.items()
  ]
  rows.append({'id': 'x', 'contents': '"Rebuilding"\nA rebuilt palace, 1700.'})
  (folder / 'docs.jsonl').write_text(
      ''.join(json.dumps(row) + '\n' for row in rows)
  )
  four(photos).save(folder / 'four.jpg', quality=85)
  done = run(
      '--config=configs/index.py',
      f'--config.docs={folder}/docs.jsonl',
      f'--config.images={folder}/photos',
      f'--config.index={folder}/index',
  )
  assert f'7 documents, {len(photos)} images' in done.stdout
  return folder


def run(*flags):
  done = subprocess.run(
      main_test.command(*flags),
      cwd=main_test.ROOT,
      env=main_test.environment(),
      capture_output=True,
      text=True,
      timeout=300,
  )
  assert done.returncode == 0, done.stderr
  return done


def call(name, **arguments):
  text = json.dumps({'name': name, 'arguments': arguments})
  return f'<tool_call>\n{text}\n</tool_call>'


def play(body):
  """Looks at the lower left, searches for what it is, and reads the year."""
  replies = [m for m in body['messages'] if m['role'] == 'user'][1:]
  if not replies:
    box = [2, 505, 495, 995]
    thought = 'Four pictures; the palace is at the lower left.'
    return endpoints.says(
        f'<think>{thought}</think>\n{call("gaze", bbox_2d=box)}'
    )
  text = endpoints.parts_of(replies[-1])[-1]
  if len(replies) == 1:
    (title,) = re.findall(r'(?m)^1\. (.+)$', text)
    query = f'when was {title} rebuilt'
    return endpoints.says(
        f'<think>It is {title}.</think>\n{call("text_search", query=query)}'
    )
  found = re.search(r'rebuilt in (\d+)', text)
  return endpoints.says(
      f'<think>It says so.</think>\n<answer>{found.group(1)}</answer>'
  )


def test_a_question_about_one_of_four_photographs(folder):
  with endpoints.serve(play) as server:
    done = run(
        '--config=configs/ask.py',
        f'--config.image={folder}/four.jpg',
        '--config.question=When was the palace rebuilt?',
        '--config.policy=remote',
        f'--config.remote.url={server.url}',
        '--config.remote.model=script',
        '--config.tools.backend=index',
        f'--config.tools.index={folder}/index',
        f'--workdir={folder}/run',
    )
  assert 'answer 1888' in done.stdout
  assert '1. Summer Palace' in done.stdout
  asked = folder / 'run' / 'ask' / '0001'
  (trajectory,) = store.read(asked / 'trajectories.jsonl', Trajectory)
  assert trajectory.answer == '1888'
  gaze, search = (turn.results[0] for turn in trajectory.turns[:2])
  # [2, 505, 495, 995] thousandths of 640 x 480.
  assert gaze.view.box == (1, 242, 317, 478)
  assert gaze.hits[0].title == 'Summer Palace' and gaze.hits[0].score > 0.5
  assert gaze.hits[0].text == 'The Summer Palace was rebuilt in 1888.'
  assert gaze.hits[0].image.startswith(b'\xff\xd8')
  assert search.hits[0].text == 'The Summer Palace was rebuilt in 1888.'
  page = report_test._Page((asked / 'index.html').read_text())
  drawn = [
      [float(r[edge]) for edge in ('x', 'y', 'width', 'height')]
      for r in page.rectangles
      if r['class'] == 'gaze unknown'
  ]
  assert drawn == [[1, 242, 316, 236]]
  assert ('viewbox', '0 0 640 480') in page.attributes
