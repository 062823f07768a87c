"""The real job, by README's commands: from raw files to an agent to share.

Small random models of both families, with the real vocabulary; only sizes of
rows and contexts and the numbers of things made differ from the profiles'.
"""

from __future__ import annotations

import contextlib
import io
import pathlib
import subprocess

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
}


@pytest.fixture(scope='module', name='own')
def own_files(tmp_path_factory) -> pathlib.Path:
  folder = tmp_path_factory.mktemp('own')
  helpers.write_files(folder)
  main(
      'index',
      docs=folder / 'docs.jsonl',
      images=folder / 'photos',
      index=folder / 'index',
  )
  return folder


def main(page: str, *, profile: str = '', workdir: str = '', **fields) -> str:
  """Runs a page as README does; returns what it prints."""
  done = subprocess.run(
      main_test.command(
          f'--config=configs/{page}.py' + (f':{profile}' if profile else ''),
          *(f'--config.{name}={value}' for name, value in fields.items()),
          *([f'--workdir={workdir}'] if workdir else ()),
      ),
      cwd=main_test.ROOT,
      env=main_test.environment(),
      capture_output=True,
      text=True,
      timeout=600,
  )
  assert done.returncode == 0, done.stderr[-3000:]
  return done.stdout + done.stderr


@pytest.mark.parametrize('family', PROFILES)
def test_from_raw_files_to_an_agent_that_others_can_load(
    own, tmp_path, family
):
  profile, workdir = PROFILES[family], tmp_path / 'run'
  model = helpers.write_model(tmp_path / 'model', family)
  (tmp_path / 'rewards.py').write_text(
      'def even(example, trajectory):\n'
      '  return 1.0 - trajectory.token_ids[-1] % 2\n'
  )
  common = dict(
      profile=profile,
      workdir=str(workdir),
      **{'model.path': model, **SIZES},
      **{'tools.backend': 'index', 'tools.index': own / 'index'},
      **{
          'questions.train': (
              f'verl:{own}/fvqa_train.parquet',
              f'infoseek:{own}/infoseek/infoseek_train.jsonl',
          )
      },
  )
  with contextlib.ExitStack() as stack:
    teacher = stack.enter_context(endpoints.serve(helpers.teach))
    judge = stack.enter_context(
        endpoints.serve(judge_helpers.right_if())  # Exact matches are right.
    )
    main(
        'instruct',
        **common,
        **{
            'instruct.teacher': 'remote',
            'remote.url': teacher.url,
            'remote.model': 'teacher',
            'instruct.n': 24,
            'instruct.n_queries': 60,
            'instruct.chunk': 20,
            'instruct.n_direct': 2,
        },
    )
    # Later pages ask for what they build on to be as it is.
    common |= {
        'sft.data': workdir / 'instruct' / 'set',
        'sft.steps': 3,
        'sft.checkpoint_every': 3,
    }
    main('sft', **common)
    evaluated = {
        'eval.policies': ('sft', 'rl'),
        'eval.benchmark': 'fvqa_test',
        'benchmark.path': own / 'fvqa_test',
    }
    judged = {
        'reward.accuracy': 'judge',
        'judge.url': judge.url,
        'judge.model': 'judge',
        'reward.extra': (f'{tmp_path}/rewards.py:even=1.0',),
    }
    common |= {**judged, 'grade.n_queries': 8, 'grade.samples': 2}
    main('grade', **common)
    common |= {'rl.steps': 3, 'rl.n_prompts': 2, 'rl.group_size': 2}
    main('rl', **common, **evaluated)
    main('eval', **common, **evaluated)
  table = main('table', workdir=str(workdir))
  assert 'FVQA' in table
  metrics = list(files.read_jsonl(workdir / 'rl' / 'metrics.jsonl'))
  assert [row['step'] for row in metrics] == [1, 2, 3]
  assert any(row['live_groups'] for row in metrics)
  for form in ('merged', 'adapter'):
    main(
        'export',
        profile=profile,
        workdir=str(workdir),
        **{
            'model.path': model,
            'export.stage': 'rl',
            'export.format': form,
            'export.folder': tmp_path / form,
        },
    )
  assert_others_load_it(tmp_path, family)
  main(
      'ask',
      **common
      | {'model.path': tmp_path / 'merged', 'workdir': str(tmp_path / 'asked')},
      policy='model',
      image=own / 'photos' / '3.png',
      question=helpers.question(3),
  )
  assert (tmp_path / 'asked' / 'ask' / '0001' / 'index.html').exists()
  # Nothing of the embedded world was made.
  assert not (workdir / 'data').exists()


def assert_others_load_it(folder: pathlib.Path, family: str) -> None:
  """transformers' merged model is peft's adapter on the base, and is ours."""
  transformers, peft = (
      test_helpers.require(name) for name in ('transformers', 'peft')
  )
  merged = folder / 'merged'
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
      load(folder / 'model'), folder / 'adapter'
  )
  np.testing.assert_allclose(ours(*inputs), theirs, atol=2e-4)
  np.testing.assert_allclose(
      hf_helpers.hf_logits(adapted, *inputs, image_token=image_token),
      theirs,
      atol=2e-4,
  )
  untrained = hf_helpers.hf_logits(
      load(folder / 'model'), *inputs, image_token=image_token
  )
  assert np.abs(theirs - untrained).max() > 2e-4
