"""One question about one image: the walk, the terminal, the page."""

from __future__ import annotations

import json
import os
import re
import subprocess

import pytest

from configs import ask as ask_page
from gog_jax import images
from gog_jax.app import ask
from gog_jax.app import commands
from gog_jax.config import from_page
from gog_jax.config.tools import IMAGE
from gog_jax.config.tools import TEXT
from gog_jax.errors import UserError
from gog_jax.evaluation import policies
from gog_jax.storage import trajectories as store
from gog_jax.tools import toolbox
from gog_jax.toy import knowledge
from gog_jax.toy import questions
from gog_jax.types import Example
from gog_jax.types import Hit
from gog_jax.types import ToolResult
from gog_jax.types import Trajectory
from tests import endpoints
from tests import main_test
from tests import mini
from tests import report_helpers
from tests import report_test

KEY = 'sk-planted-0123456789'
EVIL = '<script>alert("x")</script>\x1b]0;title\x07\x9b2J\u202e[bold red]x[/]'
SCOPE = knowledge.make_scope('test', 0)


def gaze(box, **more) -> dict:
  call = {'name': 'gaze', 'arguments': {'bbox_2d': box, **more}}
  return endpoints.says(
      f'<think>I look closely.</think>\n<tool_call>\n{json.dumps(call)}\n'
      '</tool_call>'
  )


def answers(text: str, thought: str = 'So it is.') -> dict:
  return endpoints.says(f'<think>{thought}</think>\n<answer>{text}</answer>')


def n_turns(body) -> int:
  return sum(m['role'] == 'assistant' for m in body['messages'])


@pytest.fixture(name='scene')
def a_scene(tmp_path):
  """A question of the world, and its picture as a file."""
  example = questions.make_question(SCOPE, 0).example
  path = tmp_path / 'scene.png'
  path.write_bytes(example.images[0])
  return path


def make_config(scene, url='', policy='remote', profile='toy', **more):
  fields = {
      'image': str(scene),
      'question': 'which shape?',
      'policy': policy,
      'scope': SCOPE,
      'remote__url': url,
      'remote__model': 'some-model',
      **more,
  }
  return mini.make_config('ask', profile, **fields)


def test_the_whole_walk(scene, tmp_path):
  """A gaze at the left lower part, then what the first hit's title says."""
  seen = []

  def play(body):
    if n_turns(body) == 0:
      return gaze([0, 333, 667, 1000])
    _, crop, text = endpoints.parts_of(body['messages'][-1])
    seen.append(crop.size)
    return answers(re.match(r'\n1\. (\w+)\n', text).group(1))

  with endpoints.serve(play) as server:
    done = subprocess.run(
        main_test.command(
            '--config=configs/ask.py',
            f'--config.image={scene}',
            '--config.question=which shape?',
            '--config.policy=remote',
            f'--config.remote.url={server.url}',
            '--config.remote.model=some-model',
            f'--config.scope={SCOPE}',
            f'--workdir={tmp_path}/run',
        ),
        cwd=main_test.ROOT,
        env=main_test.environment() | {'OPENAI_API_KEY': KEY},
        capture_output=True,
        text=True,
        timeout=300,
    )
  assert done.returncode == 0, done.stderr
  for headers, body in server.heard:
    assert headers['authorization'] == f'Bearer {KEY}'
    assert body['model'] == 'some-model'
    assert 'thousandths' in body['messages'][0]['content']
  # A general model sees the picture in its own size, not in the toy's.
  scene_sent, question = endpoints.parts_of(server.bodies[0]['messages'][1])
  assert (scene_sent.size, question) == ((168, 168), 'which shape?')
  assert seen == [(112, 112)]
  folder = tmp_path / 'run' / 'ask' / '0001'
  (trajectory,) = store.read(folder / 'trajectories.jsonl', Trajectory)
  (example,) = store.read(folder / 'examples.jsonl', Example)
  first = trajectory.turns[0].results[0].hits[0]
  assert trajectory.answer == first.title
  assert trajectory.reward is None and not trajectory.reward_parts
  assert example.images[0] == scene.read_bytes()
  lines = [line.strip() for line in done.stdout.splitlines()]
  for line in (
      'question which shape?',
      f'policy   some-model at {server.url}',
      'key      from the variable OPENAI_API_KEY',
      '1  I look closely.',
      'gaze {"bbox_2d": [0, 333, 667, 1000]}',
      'box x 0 to 112, y 56 to 168 of image 1, in its own pixels; from now on '
      'image 2',
      f'1. {first.title}  ({first.score:.3f})',
      first.text.splitlines()[0],
      f'answer {first.title}',
      f'page {folder}/index.html',
  ):
    assert line in lines, (line, lines)
  assert lines[-2].startswith('2 turns, 1 search, ')
  assert '\x1b' not in done.stdout  # It is no terminal.
  text = (folder / 'index.html').read_text()
  assert KEY not in done.stdout + done.stderr + text
  page = report_test._Page(text)
  drawn = [
      [float(r[edge]) for edge in ('x', 'y', 'width', 'height')]
      for r in page.rectangles
      if r['class'] == 'gaze unknown'
  ]
  assert drawn == [[0, 56, 112, 112]]
  assert ('viewbox', '0 0 168 168') in page.attributes
  assert 'answered' in page.text and 'accepted' not in page.text
  assert not {'right', 'wrong', 'reward', 'not counted'} & set(page.text)
  assert ('class', 'chip answered') in page.attributes


class Evil:
  """Finds what tries to break out."""

  version = 'evil/1'
  kinds = (TEXT, IMAGE)

  async def search_text(self, query, *, scope, top_k):
    del query, scope, top_k
    hit = Hit(title=EVIL, text=EVIL, score=1.0, image=EVIL.encode())
    return ToolResult(hits=(hit,))

  async def search_image(self, data, *, scope, top_k):
    del data, scope, top_k
    raise RuntimeError(EVIL)

  async def close(self):
    pass


def test_what_is_untrusted_stays_text(scene, tmp_path, capsys, monkeypatch):
  monkeypatch.setenv('PLANTED', KEY)
  search = json.dumps({'name': 'text_search', 'arguments': {'query': EVIL}})

  def play(body):
    if n_turns(body) == 0:
      thought = f'{EVIL} {body["messages"][0]["role"]}'
      both = f'{gaze([0, 0, 500, 500])["content"]}\n<tool_call>{search}'
      return endpoints.says(
          both.replace('I look closely.', thought) + '</tool_call>'
      )
    (headers, _) = server.heard[0]
    return answers(f'{EVIL} {headers["authorization"]}', thought=KEY)

  with endpoints.serve(play) as server:
    config = make_config(scene, server.url, remote__key_variable='PLANTED')
    evil = Evil()
    monkeypatch.setattr(toolbox, '_backend', lambda config, field: evil)
    commands.do(config, tmp_path)
  said = capsys.readouterr()
  record = (tmp_path / 'ask' / '0001' / 'trajectories.jsonl').read_text()
  text = (tmp_path / 'ask' / '0001' / 'index.html').read_text()
  assert KEY not in said.out + said.err + record + text
  assert '[secret]' in said.out and '[secret]' in text
  for steering in '\x1b\x07\x9b\u202e':
    assert steering not in said.out
  shown = r'<script>alert("x")</script>\x1b]0;title\x07\x9b2J\u202e[bold red]x'
  assert said.out.count(shown) >= 4  # Thought, title, text, answer.
  assert "the tool's failure gaze failed: RuntimeError: <script>" in said.out
  page = report_test._Page(text)
  assert 'script' not in page.tags
  assert EVIL in ''.join(page.text)
  for name, value in page.attributes:
    assert not name.startswith('on'), name
    if name in ('src', 'href'):
      assert value.startswith('data:image/'), value
  policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
  assert ('content', policy) in page.attributes


def test_a_conversation_without_an_answer(scene, tmp_path, capsys):
  with endpoints.serve(lambda _: endpoints.says('I cannot say.')) as server:
    commands.do(make_config(scene, server.url), tmp_path)
  out = capsys.readouterr().out
  assert '1  I cannot say.' in out
  assert 'no answer, stopped by format' in out
  page = report_test._Page((tmp_path / 'ask/0001/index.html').read_text())
  assert ('class', 'chip unanswered') in page.attributes
  assert 'no answer' in page.text


def test_a_message_cut_off_says_what_to_raise(scene, tmp_path, capsys):
  reply = endpoints.completion(endpoints.says('<think>and'), 'length')
  with endpoints.serve(lambda _: endpoints.web.json_response(reply)) as server:
    commands.do(make_config(scene, server.url), tmp_path)
  out = capsys.readouterr().out
  assert 'stopped by length' in out
  assert 'raise --config.remote.max_tokens' in out


@pytest.mark.parametrize(
    ('page', 'where'),
    [
        ('', 'ask/0002/index.html'),
        ('own', 'own/index.html'),
        ('own/it.html', 'own/it.html'),
    ],
)
def test_where_the_page_goes(page, where, scene, tmp_path, capsys):
  (tmp_path / 'ask' / '0001').mkdir(parents=True)
  with endpoints.serve(lambda _: answers('yes')) as server:
    given = str(tmp_path / page) if page else ''
    commands.do(make_config(scene, server.url, page=given), tmp_path)
  assert (tmp_path / where).exists()
  assert (tmp_path / 'ask' / '0002' / 'trajectories.jsonl').exists()
  assert f'page {tmp_path}/{where}' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('changed', 'words'),
    [
        ({'question': ' '}, ['config.question must be given']),
        ({'image': ''}, ['config.image must be given']),
        ({'image': '/no/such.jpg'}, ['--config.image=/no/such.jpg']),
        ({'image': __file__}, [__file__, 'no known image format']),
        (
            {'policy': 'rll'},
            ["no policy 'rll'; the nearest is 'rl'", 'remote', 'model'],
        ),
        ({'policy': 'expert'}, ['expert cannot answer questions of yours']),
        ({'remote.url': ''}, ['--config.remote.url=', 'config.remote.model']),
        ({'remote.model': ''}, ['--config.remote.model=NAME']),
        ({'remote.url': 'http://u:p@h/v1'}, ['OPENAI_API_KEY']),
        ({'remote.timeout_s': 0.0}, ['config.remote.timeout_s']),
        ({'remote.max_attempts': 0}, ['config.remote.max_attempts']),
        ({'scope': ''}, ['--config.tools.backend', '--config.scope']),
        ({'scope': 'here'}, ['here']),
        ({'policy': 'sft'}, ['no complete sft in', 'set --workdir']),
    ],
)
def test_what_is_missing_or_mistyped(changed, words, scene, tmp_path):
  changed = {name.replace('.', '__'): value for name, value in changed.items()}
  given = {'url': 'http://127.0.0.1:1/v1'} | changed
  with pytest.raises(UserError) as error:
    commands.do(make_config(scene, **given), tmp_path)
  assert len(str(error.value).splitlines()) == 1
  for word in words:
    assert word in str(error.value)
  assert not (tmp_path / 'ask').exists()


def test_an_endpoint_that_fails_is_one_line(scene, tmp_path):
  with endpoints.serve(
      lambda _: endpoints.web.Response(status=401, text=f'bad key {KEY}')
  ) as server:
    os.environ['PLANTED'] = KEY
    try:
      result = main_test.run(
          '--config=configs/ask.py',
          f'--config.image={scene}',
          '--config.question=which?',
          f'--config.remote.url={server.url}',
          '--config.remote.model=m',
          '--config.remote.key_variable=PLANTED',
          f'--config.scope={SCOPE}',
          f'--workdir={tmp_path}',
      )
    finally:
      del os.environ['PLANTED']
  main_test.assert_one_line(result, 'answers 401: bad key [secret]', 'PLANTED')
  assert KEY not in str(result)


def test_other_formats_become_pngs(tmp_path):
  path = tmp_path / 'picture.webp'
  picture = images.decode(report_helpers.SCENE)
  picture.save(path, lossless=True)
  config = make_config(path, 'http://127.0.0.1:1/v1')
  example = ask.read_example(config)
  assert images.kind_of(example.images[0]) == 'png'
  assert images.decode(example.images[0]).tobytes() == picture.tobytes()
  assert (example.id, example.answers) == ('picture.webp', ())


def test_the_toy_answers_for_itself(scene, tmp_path, capsys):
  """Nobody has taught it: what it says is no matter, that it does is."""
  commands.do(make_config(scene, policy='model'), tmp_path)
  out = capsys.readouterr().out
  assert 'policy   model' in out and 'page ' in out
  path = tmp_path / 'ask' / '0001' / 'trajectories.jsonl'
  (t,) = store.read(path, Trajectory)
  assert t.sampler_logprobs.any()
  assert len(t.token_ids) <= 288  # The toy's own limits.


@pytest.mark.slow
def test_a_policy_that_a_run_has_trained(scene, tmp_path, capsys):
  mini.make_stages(mini.make_run(tmp_path, 'sft'), 'data', 'demos', 'sft')
  commands.do(make_config(scene, policy='sft'), tmp_path)
  assert 'policy   sft' in capsys.readouterr().out


def test_a_general_model_has_values_of_its_own_unless_they_are_given(scene):
  url = 'http://127.0.0.1:1/v1'
  config = make_config(scene, url, rollout__max_turns=7)
  own = policies.config_of(config, 'remote')
  assert (own.model.dialect, own.model.box) == ('gog_remote', 'thousandths')
  assert (own.rollout.max_turns, own.tools.top_k) == (7, 3)
  assert make_config(scene, url).general.rollout.max_turns == 10
  page = ask_page.get_config()
  page.update(image=str(scene), question='?', scope='s')
  page.remote.update(url=url, model='m')
  page.tools.top_k = 7  # A page of one's own, and no flag.
  page.rollout.max_turns, page.general.rollout.max_turns = 6, 4
  mine = policies.config_of(from_page(page), 'remote')
  assert (mine.tools.top_k, mine.tools.timeout_s) == (7, 60)
  assert mine.rollout.max_turns == 4
  with pytest.raises(UserError, match='share what config.tools.backend says'):
    make_config(scene, url, general__tools__backend='retriever')
  trained = policies.config_of(config, 'rl')
  assert (trained.model.dialect, trained.tools.top_k) == ('gog_toy', 1)
  published = make_config(scene, url, 'remote', 'qwen3_vl_8b')
  # The same model, elsewhere.
  assert policies.config_of(published, 'remote').model.dialect == 'qwen3_vl'
  assert ask_page.get_config('qwen3_vl_8b').policy == 'model'
  assert ask_page.get_config().policy == 'remote'
