"""The embedded world by way of files and HTTP: the same run as its own."""

from __future__ import annotations

import collections
import json
import shutil

import pytest

from gog_jax.app import walk
from gog_jax.config.tools import SEARCHES
from gog_jax.storage import files
from gog_jax.storage import trajectories as store
from gog_jax.storage.trajectories import plain
from gog_jax.types import Trajectory
from tests import mini
from tests import serve_test

SIZES = {
    'sft__n_validation': 8,
    'sft__eval_every': 2,
    'grade__n_queries': 24,
    'rl__n_prompts': 8,
    'rl__steps': 3,
    'rl__trajectories_every': 1,
    'eval__policies': ('full_search', 'rl'),
    'eval__n_examples': 8,
    'tools__timeout_s': 120.0,  # However busy the machine is.
}


def write_questions(folder, split, examples):
  """A file of questions beside their images, as a user would write it."""
  folder.mkdir(exist_ok=True)
  rows = []
  for number, example in enumerate(examples):
    (image,) = example.images
    name = f'{split}{number}.png'
    (folder / name).write_bytes(image)
    rows.append({
        'id': example.id,
        'question': example.question,
        'answers': example.answers,
        'image': name,
        'scope': example.scope,
        'search_required': example.search_required,
        'gold_regions': example.gold_regions,
        'hops': example.hops,
    })
  path = folder / f'{split}.jsonl'
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  return (f'jsonl:{path}',)


def trajectories(folder):
  return store.read(folder / 'trajectories.jsonl', Trajectory)


def plainly(trajectory):
  """All of it but the clock's: tokens, logprobs, pixels, results, reward."""
  return mini.without_clock(plain(trajectory, lambda image: image))


@pytest.mark.slow
def test_two_paths_are_one(prepared, tmp_path):
  shutil.copytree(prepared, tmp_path / 'own')
  sizes = SIZES | {'sft__data': str(prepared / 'demos')}
  own = mini.make_run(tmp_path / 'own', 'rl', **sizes)
  walk.walk(own)
  asked = {
      'train': own.graded_examples(),
      'validation': own.examples('validation', n=8),
      'test': own.examples('test', n=8),
  }
  questions = {
      f'questions__{split}': write_questions(tmp_path / 'files', split, held)
      for split, held in asked.items()
  }
  world = '--config.tools.backend=world'
  with serve_test.served(world, holds='documents and images (world/') as url:
    other = mini.make_run(
        tmp_path / 'other',
        'rl',
        **sizes,
        **questions,
        questions__leaks='keep',
        tools__backend='retriever',
        tools__url=url,
    )
    walk.walk(other)
  assert not (other.workdir / 'data').exists()
  for name in (
      'sft/metrics.jsonl',
      'sft/validation.jsonl',
      'grade/graded.jsonl',
      'rl/metrics.jsonl',
  ):
    one, two = (
        list(map(mini.without_clock, files.read_jsonl(run.workdir / name)))
        for run in (own, other)
    )
    assert one and one == two, name
  calls = collections.Counter()
  for folder in (
      *(f'rl/rollouts/{step:06d}' for step in (1, 2, 3)),
      'eval/full_search',
      'eval/rl',
  ):
    one, two = (trajectories(run.workdir / folder) for run in (own, other))
    assert list(map(plainly, one)) == list(map(plainly, two)), folder
    calls.update(call.name for t in one for call, _ in t.calls)
  # Every kind of search was made, and none failed.
  assert min(calls[name] for name in SEARCHES) >= 8
