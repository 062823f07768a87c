"""The real job, as README prints it: from raw files to an agent to share.

Small random models of both families, with the real vocabulary; only sizes of
rows and contexts and the numbers of things made differ from the profiles'.
"""

from __future__ import annotations

import contextlib
import io
import pathlib
import re
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
from PIL import Image
import pytest

from gog_jax import models
from gog_jax.storage import files
from tests import endpoints
from tests import helpers as test_helpers
from tests import hf_helpers
from tests import journey_helpers as helpers
from tests import judge_helpers
from tests import main_test

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
PROFILES = {'qwen2_5_vl': 'qwen2_5_vl_7b', 'qwen3_vl': 'qwen3_vl_8b'}
SIZES = {
    'batch.row_tokens': 2048,
    'batch.row_patches': 512,
    'rollout.max_context': 2048,
    'rollout.max_turn_tokens': 48,
    'rollout.max_turns': 4,
    'sampler.n_slots': 8,
    'sampler.chunk': 128,
    'model.logprob_chunk': 64,
    'instruct.n': 24,
    'instruct.n_queries': 60,
    'instruct.chunk': 20,
    'instruct.n_direct': 2,
    'sft.epochs': 1.0,
    'sft.checkpoint_every': 3,
    'grade.n_queries': 8,
    'grade.samples': 2,
    'rl.steps': 3,
    'rl.n_prompts': 2,
    'rl.group_size': 2,
    'rl.eval_every': 2,
    'rl.n_validation': 4,
}


def printed() -> str:
  """The commands of README's section."""
  text = (main_test.ROOT / 'README.md').read_text()
  section = text.split('## RL on your own questions\n')[1].split('\n## ')[0]
  (block,) = re.findall(r'^```bash\n(.*?)^```$', section, re.M | re.S)
  return block


def test_readme_has_it_in_fifteen_lines_and_gives_no_flag_twice():
  lines = printed().splitlines()
  assert len(lines) <= 15
  assert max(map(len, lines)) <= 100
  flags = re.findall(r'--config\.[a-z_.]+', printed())
  assert sorted(flags) == sorted({*flags})


@pytest.fixture(scope='module', name='caches')
def compiled_once(tmp_path_factory) -> dict[str, str]:
  """Programs that a later command need not compile again."""
  folder = tmp_path_factory.mktemp('compiled')
  return {
      'JAX_COMPILATION_CACHE_DIR': str(folder),
      'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0.3',
  }


@pytest.mark.parametrize('family', PROFILES)
def test_from_raw_files_to_an_agent_that_others_can_load(
    tmp_path, family, caches
):
  helpers.write_files(tmp_path)
  helpers.write_model(tmp_path / 'FOLDER', family)
  (tmp_path / 'configs').symlink_to(main_test.ROOT / 'configs')
  python = tmp_path / '.venv' / 'bin' / 'python'
  python.parent.mkdir(parents=True)
  python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
  python.chmod(0o755)

  def bash(commands: str) -> str:
    done = subprocess.run(
        ['bash', '-euxc', commands],
        cwd=tmp_path,
        env=main_test.environment()
        | {'PYTHONPATH': str(main_test.ROOT), 'PS4': '+ ${SECONDS}s '}
        | caches,
        capture_output=True,
        text=True,
    )
    print(done.stderr[-20_000:])
    assert done.returncode == 0
    return done.stdout

  commands = printed()
  sizes = ' '.join(f'--config.{name}={n}' for name, n in SIZES.items())
  with contextlib.ExitStack() as stack:
    teacher = stack.enter_context(endpoints.serve(helpers.teach))
    judge = stack.enter_context(
        endpoints.serve(judge_helpers.right_if())  # Exact matches are right.
    )
    for there, here in {
        'qwen3_vl_8b': f'{PROFILES[family]} {sizes}',
        'http://127.0.0.1:8001/v1': teacher.url,
        'http://127.0.0.1:8002/v1': judge.url,
    }.items():
      assert commands.count(there) == 1
      commands = commands.replace(there, here)
    table = bash(commands)
    gog = commands.splitlines()[0]
    bash(
        f'{gog}\ngog export.py --config.export.folder=adapter'
        ' --config.export.format=adapter\n'
        'gog ask.py --config.policy=model --config.model.path=my_agent'
        ' --config.image=photos/3.png'
        f' --config.question="{helpers.question(3)}"'
    )
  assert 'FVQA' in table
  workdir = tmp_path / 'runs' / 'mine'
  metrics = list(files.read_jsonl(workdir / 'rl' / 'metrics.jsonl'))
  assert [row['step'] for row in metrics] == [1, 2, 3]
  assert any(row['live_groups'] for row in metrics)
  validated = list(files.read_jsonl(workdir / 'rl' / 'validation.jsonl'))
  assert [(row['step'], row['n']) for row in validated] == [(2, 4), (3, 4)]
  assert (workdir / 'rl' / 'best').exists()
  assert (workdir / 'ask' / '0001' / 'index.html').exists()
  assert_others_load_it(tmp_path, family)
  # Nothing of the embedded world was made.
  assert not (workdir / 'data').exists()


def assert_others_load_it(folder: pathlib.Path, family: str) -> None:
  """transformers' merged model is peft's adapter on the base, and is ours."""
  transformers, peft = (
      test_helpers.require(name) for name in ('transformers', 'peft')
  )
  merged = folder / 'my_agent'
  tokenizer = transformers.AutoTokenizer.from_pretrained(merged)
  processor = transformers.AutoImageProcessor.from_pretrained(
      merged, backend='pil'
  )
  picture = Image.open(io.BytesIO(helpers.picture(3)))
  seen = processor(images=[picture], return_tensors='np')
  grid = seen['image_grid_thw']
  n_images = int(grid.prod()) // processor.merge_size**2
  text = (
      '<|vision_start|>' + '<|image_pad|>' * n_images + '<|vision_end|>'
      + helpers.question(3)
  )
  tokens = np.array([tokenizer(text)['input_ids']])
  inputs = tokens, np.ones_like(tokens), seen['pixel_values'], grid
  image_token = tokenizer.convert_tokens_to_ids('<|image_pad|>')
  assert (tokens == image_token).sum() == n_images
  load = hf_helpers.hf_class(family).from_pretrained
  ours, _ = models.from_pretrained(merged, dtype=jnp.float32)
  theirs = hf_helpers.hf_logits(load(merged), *inputs, image_token=image_token)
  adapted = peft.PeftModel.from_pretrained(
      load(folder / 'FOLDER'), folder / 'adapter'
  )
  np.testing.assert_allclose(ours(*inputs), theirs, atol=2e-4)
  np.testing.assert_allclose(
      hf_helpers.hf_logits(adapted, *inputs, image_token=image_token),
      theirs,
      atol=2e-4,
  )
  untrained = hf_helpers.hf_logits(
      load(folder / 'FOLDER'), *inputs, image_token=image_token
  )
  assert np.abs(theirs - untrained).max() > 2e-4
