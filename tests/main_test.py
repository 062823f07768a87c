"""The command line: what a user can mend is one line and exit code 2."""

from __future__ import annotations

import importlib
import json
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import time

from flax.traverse_util import flatten_dict
import pytest

from tests import mini

ROOT = pathlib.Path(__file__).parents[1]


def command(*args) -> list[str]:
  return [sys.executable, '-m', 'gog_jax.main', *map(str, args)]


def environment() -> dict[str, str]:
  return os.environ | {'XLA_FLAGS': '', 'COLUMNS': '80'}


def said(*args) -> subprocess.CompletedProcess[str]:
  return subprocess.run(
      command(*args),
      cwd=ROOT,
      env=environment(),
      capture_output=True,
      text=True,
      timeout=300,
  )


def run(*args) -> tuple[int, list[str]]:
  """Exit code and the lines of stderr that are neither bar nor progress."""
  done = said(*args)
  assert 'Traceback' not in done.stderr, done.stderr
  lines = done.stderr.replace('\r', '\n').splitlines()
  return done.returncode, [line for line in lines if line.startswith('gog_jax')]


def assert_one_line(result, *words) -> None:
  code, lines = result
  assert code == 2
  assert len(lines) == 1, lines
  for word in words:
    assert word in lines[0], lines[0]


@pytest.mark.parametrize(
    ('args', 'words'),
    [
        (
            ['--config=configs/rl.py', '--config.typo=1'],
            ["unknown config field 'typo'", 'the nearest is '],
        ),
        (
            ['--config=configs/rl.py', '--config.rl.stepz=1'],
            ["unknown config field 'rl.stepz'", "nearest is 'rl.steps'"],
        ),
        (
            ['--config=configs/rl.py', '--config.rl.steps=many'],
            ['rl.steps', 'many'],
        ),
        (['--config=configs/nowhere.py'], ['nowhere.py']),
        (['--config='], ['is no file']),
        (['--config=configs'], ['is no file']),
        (['--config=README.md'], ['no Python file']),
        (['--config=configs/rl.py', '--config=configs/sft.py'], ['2 times']),
        (
            ['--config=configs/rl.py', '--config.mesh.tensor=0'],
            ['sizes must multiply to'],
        ),
        (
            ['--config=configs/rl.py', '--config.batch.row_tokens=10'],
            ['rollout.max_context=288 is more than config.batch.row_tokens=10'],
        ),
        (['--config=configs/rl.py:huge'], ["unknown profile 'huge'", 'toy']),
        ([], ['--config=configs/rl.py']),
        (['--confg=configs/rl.py'], ['confg']),
        (['--config=configs/rl.py', 'stray'], ['stray']),
        (
            ['--config=configs/rl.py:qwen2_5_vl_7b'],
            ['needs weights', '--config.model.path=FOLDER'],
        ),
        (
            ['--config=configs/rl.py', '--config.model.path=/no/such'],
            ['/no/such', 'does not exist', '--config.model.path'],
        ),
        (
            [
                '--config=configs/pretrain.py',
                '--config.pretrain.start_from=/no/such',
            ],
            ['/no/such', 'does not exist'],
        ),
    ],
)
def test_what_a_user_mistypes(args, words, tmp_path):
  result = run(*args, f'--workdir={tmp_path}')
  assert_one_line(result, *words)


def test_workdir_that_cannot_be_written(tmp_path):
  (tmp_path / 'file').write_text('')
  result = run('--config=configs/rl.py', f'--workdir={tmp_path}/file/run')
  assert_one_line(result, f'{tmp_path}/file/run', '--workdir')


def test_model_folder_without_weights(tmp_path):
  for name in ('config.json', 'tokenizer.json', 'preprocessor_config.json'):
    source = ROOT / 'gog_jax' / 'assets' / 'toy_base' / name
    (tmp_path / name).write_bytes(source.read_bytes())
  result = run(
      '--config=configs/sft.py',
      f'--config.model.path={tmp_path}',
      f'--workdir={tmp_path}/run',
      *mini.flags(),
  )
  assert_one_line(result, str(tmp_path), 'safetensors')


def test_full_size_profile_names_the_command_to_run_first(tmp_path):
  base = ROOT / 'gog_jax' / 'assets' / 'toy_base'
  result = run(
      '--config=configs/rl.py:qwen2_5_vl_7b',
      f'--config.model.path={base}',
      f'--workdir={tmp_path}',
  )
  assert_one_line(result, 'configs/sft.py:qwen2_5_vl_7b', f'{tmp_path}')


def test_a_profile_of_another_family_is_refused(tmp_path):
  base = ROOT / 'gog_jax' / 'assets' / 'toy_base'
  result = run(
      '--config=configs/sft.py:qwen3_vl_8b',
      f'--config.model.path={base}',
      f'--workdir={tmp_path}',
  )
  assert_one_line(result, 'qwen3_vl_8b', 'begins in qwen2_5_vl')


def test_damaged_data_names_its_record(tmp_path):
  workdir = tmp_path / 'run'
  mini.make_stages(mini.make_run(workdir, 'sft'), 'data')
  damage_first_image(workdir / 'data')
  result = run(
      '--config=configs/sft.py', f'--workdir={workdir}', *mini.flags()
  )
  assert_one_line(result, 'data/train', 'record 0', 'cannot be read')


def damage_first_image(folder: pathlib.Path) -> None:
  """Flips bytes inside a PNG stored in the train split."""
  for path in sorted(folder.rglob('*train*array_record*')):
    data = bytearray(path.read_bytes())
    at = data.find(b'IDAT')
    if at >= 0:
      for i in range(at + 40, at + 80):
        data[i] ^= 0xFF
      path.write_bytes(data)
      return
  raise AssertionError('no PNG found: are records compressed?')


def test_other_settings_in_the_same_workdir(tmp_path):
  workdir = tmp_path / 'run'
  mini.make_stages(mini.make_run(workdir, 'sft'), 'data', 'demos')
  result = run(
      '--config=configs/sft.py',
      f'--workdir={workdir}',
      *mini.flags(sft__n_demos=24, **{'rollout.max_turns': 3}),
  )
  assert_one_line(result, 'sft.n_demos is 16, now 24', 'rollout.max_turns')


@pytest.mark.slow
@pytest.mark.parametrize(
    'stage', ['data', 'demos', 'sft', 'grade', 'rl', 'eval/sft']
)
def test_ctrl_c_in_any_stage(stage, tmp_path):
  """One line, exit code 130; the same command continues and ends well."""
  args = command(
      '--config=configs/rl.py',
      f'--workdir={tmp_path}',
      *mini.flags(**{'sft.steps': 8, 'sft.checkpoint_every': 2}),
  )
  errors = tmp_path / 'stderr'
  with errors.open('wb') as log:
    process = subprocess.Popen(
        args, cwd=ROOT, env=environment(), stderr=log, stdout=log
    )
    manifest = tmp_path / stage / 'manifest.json'
    wait_for(manifest.exists, process, errors)
    if stage in ('sft', 'rl'):
      metrics = tmp_path / stage / 'metrics.jsonl'
      wait_for(lambda: size_of(metrics), process, errors)
    process.send_signal(signal.SIGINT)
    code = process.wait(timeout=240)
  text = errors.read_text()
  assert code == 130, text
  assert 'Traceback' not in text
  last = text.replace('\r', '\n').strip().splitlines()[-1]
  assert last == 'gog_jax: interrupted; the same command continues'
  if stage == 'sft':  # The others go on to the end.
    args[args.index('--config=configs/rl.py')] = '--config=configs/sft.py'
  done = subprocess.run(
      args,
      cwd=ROOT,
      env=environment(),
      capture_output=True,
      text=True,
      timeout=900,
  )
  assert done.returncode == 0, done.stderr
  rows = (tmp_path / 'sft' / 'metrics.jsonl').read_text().splitlines()
  assert len(rows) == 8
  if stage != 'sft':
    rows = (tmp_path / 'rl' / 'metrics.jsonl').read_text().splitlines()
    assert [json.loads(row)['step'] for row in rows] == [1, 2, 3, 4]
    assert (tmp_path / 'report' / 'index.html').exists()


def size_of(path: pathlib.Path) -> int:
  return path.stat().st_size if path.exists() else 0


def wait_for(condition, process, errors, seconds=240) -> None:
  deadline = time.monotonic() + seconds
  while not condition():
    assert process.poll() is None, errors.read_text()
    assert time.monotonic() < deadline, errors.read_text()
    time.sleep(0.05)


def test_without_a_page_they_are_listed_each_with_a_sentence():
  done = said()
  assert done.returncode == 2 and 'Traceback' not in done.stderr
  listed = [line.split(maxsplit=1) for line in done.stdout.splitlines()]
  pages = {str(p.relative_to(ROOT)) for p in (ROOT / 'configs').glob('*.py')}
  assert {path for path, _ in listed} == pages - {
      'configs/common.py', 'configs/sections.py',
  }  # fmt: skip
  assert all(sentence.endswith(('.', 'evels.')) for _, sentence in listed)


def test_help_says_what_a_page_sets_as_it_is_typed():
  done = said('--config=configs/inspect.py', '--help')
  assert done.returncode == 0 and not done.stderr
  assert (
      '\n--config.sft.no_search=0.435\n    this share does not search,\n'
      in done.stdout
  )
  assert "\n--config.questions.train=\"('world',)\"\n" in done.stdout
  lines = done.stdout.splitlines()
  flags = [shlex.split(line)[0] for line in lines if line.startswith('--')]
  named = {flag.removeprefix('--config.').partition('=')[0] for flag in flags}
  page = importlib.import_module('configs.inspect').get_config()
  known = set(flatten_dict(page.to_dict(), sep='.'))
  assert len(flags) == len(named)
  own = ('untouched', 'arms')  # How a page keeps count; there are no arms.
  assert named == {n for n in known if n.partition('.')[0] not in own}
  # All of them, typed, are what it is without them.
  assert said('--config=configs/inspect.py', *flags).returncode == 0
