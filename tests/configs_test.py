"""Every page resolves, for every profile, into what the code unpacks."""

from __future__ import annotations

import importlib
import pathlib

import pytest

from configs import common
from gog_jax.app import commands
from gog_jax.app import config_check
from gog_jax.app import config_fields
from gog_jax.app import stages
from gog_jax.chat import load_dialect
from gog_jax.errors import UserError
from gog_jax.rewards.score import RewardConfig
from gog_jax.rollout.batching import BatchConfig
from gog_jax.rollout.limits import limits_of
from gog_jax.run import Run
from gog_jax.train import rl
from gog_jax.train.optimizer import make_optimizer

pytestmark = pytest.mark.quick

NO_PROFILE = ('index', 'retrieve', 'benchmark', 'judge', 'table')
PAGES = sorted(
    path.stem
    for path in (pathlib.Path(__file__).parents[1] / 'configs').glob('*.py')
    if path.stem not in ('common', 'sections', *NO_PROFILE)
)


def cases():
  for page in PAGES:
    for profile in ('toy',) if page == 'pretrain' else common.PROFILES:
      yield page, profile


@pytest.mark.parametrize(('page', 'profile'), list(cases()))
def test_page_resolves(page, profile):
  config = importlib.import_module(f'configs.{page}').get_config(profile)
  assert config.stage == page
  assert config.stage in (*stages.TARGETS, *commands.COMMANDS)
  assert config.profile == ('toy' if profile == 'hard' else profile)
  limits_of(config, load_dialect(config.model.dialect))
  for section in (config.sft, config.rl):
    BatchConfig(**config.batch, micro_rows=section.micro_rows)
  RewardConfig(**config.reward)
  rl.loss_config(config.rl)
  sections = [config.sft, config.rl]
  if page == 'pretrain':
    sections.append(config.pretrain)
  for section in sections:
    make_optimizer(section.optimizer, n_steps=1)
  # Demos and graded queries are parts of the train split.
  assert config.sft.n_candidates + config.grade.n_queries <= config.data.n_train
  assert config.eval.n_examples <= config.data.n_test
  # A whole conversation fits a row, or nothing could be trained on it.
  assert config.rollout.max_context <= config.batch.row_tokens
  for name, stage in stages.stages_of(config).items():
    for field in stage.sections:
      if name != 'pretrain' or page == 'pretrain':
        config_fields.config_field(config, field)


def test_unknown_profile():
  with pytest.raises(ValueError, match='unknown profile .huge.; there are toy'):
    common.get_base('huge')


@pytest.mark.parametrize(
    ('profile', 'dialect', 'box'),
    [
        ('qwen2_5_vl_7b', 'gog', 'resized_pixels'),
        ('qwen3_vl_8b', 'qwen3_vl', 'thousandths'),
        ('qwen3_vl_2b_thinking', 'qwen3_vl_thinking', 'thousandths'),
    ],
)
def test_a_profile_speaks_its_familys_language(profile, dialect, box):
  model = common.get_base(profile).model
  assert (model.dialect, model.box) == (dialect, box)
  family = profile[: profile.index('_vl') + 3]
  other = {'qwen2_5_vl': 'qwen3_vl', 'qwen3_vl': 'qwen2_5_vl'}[family]
  config_check.check_family(profile, family)
  with pytest.raises(UserError, match=f'choose a profile .* {other}'):
    config_check.check_family(profile, other)
  config_check.check_family('toy', other)


def test_pages_launch_as_their_docstrings_say():
  for page in PAGES:
    module = importlib.import_module(f'configs.{page}')
    assert f'--config=configs/{page}.py' in module.__doc__


@pytest.mark.parametrize(
    ('page', 'field', 'value', 'message'),
    [
        ('rl', 'trainable', 'lora', 'trains kernels'),
        ('rl', 'sft.optimizer.name', 'sgd', 'adamw, muon'),
        ('pretrain', 'pretrain.optimizer.decay', 'step', 'constant, cosine'),
        ('pretrain', 'pretrain.n_probes', 0, '1 or more'),
        ('pretrain', 'pretrain.look.reading', 1.5, 'from 0 to 1'),
        ('rl', 'rl.variant', 'ppo', 'grpo, dr_grpo, dapo, gspo'),
        ('rl', 'sft.recovered', 1.5, 'from 0 to 1'),
        ('rl', 'rl.level', 5, '-1, 0, 1, 2'),
        ('rl', 'eval.benchmark', 'wrld', 'world, world_hard, world_valid'),
        ('rl', 'eval.policies', ('sft', 'r1'), "no policy 'r1'; .* is 'rl'"),
        ('rl', 'once', ('rl_fats',), 'has rl_fats; there are no arms'),
        ('rl', 'grade.often_failed', 0.9, 'above config.grade.solved'),
        ('rl', 'rl.group_size', 1, '2 or more'),
        ('rl', 'sft.optimizer.learning_rate', float('nan'), 'is no number'),
        ('rl', 'rl.optimizer.learning_rate', -1.0, '0 or more'),
        ('rl', 'rl.loss.kl_coef', float('inf'), 'is no number'),
        ('rl', 'rl.max_refills', -1, '0 or more'),
        ('rl', 'rl.loss.clip', (0.2,), 'give .low, high.'),
        ('rl', 'rl.loss.clip', (-0.2, 0.2), 'give .low, high.'),
        ('rl', 'rl.loss.clip', (True, 0.2), 'give .low, high.'),
        ('rl', 'rl.advantage_eps', 0.0, 'more than 0, or groups'),
        ('rl', 'sft.optimizer.max_grad_norm', 0.0, 'more than 0; 1e9 clips'),
        ('rl', 'model.logprob_chunk', 0, '1 or more'),
        ('rl', 'sft.n_validation', -1, '0 or more'),
        ('rl', 'sft.micro_rows', 0, '1 or more'),
        ('rl', 'tools.timeout_s', 0.0, 'more than 0'),
        ('rl', 'tools.max_concurrency', 0, '1 or more'),
        ('rl', 'tools.max_attempts', 0, '1 or more'),
        ('rl', 'tools.backoff_s', -0.1, 'tools.backoff_s'),
        ('rl', 'tools.backend', 'web', "there is no 'web'; the nearest"),
        ('rl', 'model.box_step', 0, '1 or more'),
        ('rl', 'seeds', (0, 0), 'twice'),
        ('rl', 'eval.policies', (), 'is empty'),
        ('rl', 'rl.call_cost', 2.0, 'from 0 to 1'),
        ('rl', 'eval.n_examples', 2000, '2000 is more than config.data.n_test'),
        ('rl', 'grade.n_queries', 1025, '13313 is more than config.data.n_tra'),
        ('rl', 'sft.n_validation', 257, 'more than config.data.n_validation'),
        ('rl', 'sft.n_demos', 12289, 'more than config.sft.n_candidates'),
        ('rl', 'reward.accuracy', 'f1', 'exact_match, token_f1, judge'),
    ],
)
def test_values_that_a_late_stage_would_stumble_over(
    page, field, value, message
):
  config = importlib.import_module(f'configs.{page}').get_config()
  config_check.check(config)
  config.update_from_flattened_dict({field: value})
  with pytest.raises(UserError, match=message) as caught:
    config_check.check(config)
  assert field in str(caught.value)


def test_a_judge_is_checked_where_the_reward_asks_one():
  config = importlib.import_module('configs.eval').get_config()
  config.judge.min_success = 2.0
  config_check.check(config)
  config.reward.accuracy = 'judge'
  with pytest.raises(UserError, match='--config.judge.url=, e.g.'):
    config_check.check(config)
  config.judge.url = 'http://127.0.0.1:1/v1'
  with pytest.raises(UserError, match='config.judge.min_success is a share'):
    config_check.check(config)
  config.judge.min_success = 0.9
  with pytest.raises(UserError, match='--config.judge.model=NAME'):
    config_check.check(config)
  config.judge.model = 'm'
  config_check.check(config)


def test_nothing_is_easier_than_the_easiest():
  config = importlib.import_module('configs.rl').get_config()
  config.rl.regrade = True
  config_check.check(config)
  for level in (0, -1):
    config.rl.level = level
    with pytest.raises(UserError, match='choose level 1 or 2'):
      config_check.check(config)


def test_arms_follow_what_the_command_line_says(tmp_path):
  config = importlib.import_module('configs.rl').get_config('full')
  config.update_from_flattened_dict({
      'rl.optimizer.learning_rate': 1e-3,
      'rl.regrade': True,
  })
  config_check.check(config)
  run = Run(config, tmp_path)
  config_check.check(run.config)
  rates = [
      run.with_rl(run.config.arms[name]).config.rl.optimizer.learning_rate
      for name in ('rl_slow', 'rl_level1', 'rl_fast')
  ]
  assert rates == [0.5e-3, 1e-3, 2e-3]
  assert run.config.rl.optimizer.learning_rate == 1e-3


def test_muon_trains_whole_models():
  config = importlib.import_module('configs.sft').get_config()
  config.trainable = 'full'
  config.sft.optimizer.name = 'muon'
  config_check.check(config)


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        ({'lvl': 1}, 'lvl'),
        ({'level': 'hard'}, 'level'),
        ({'variant': 'ppo'}, 'grpo, dr_grpo, dapo, gspo'),
        ({'optimizer': {'rate': 1.0}}, 'rate'),
        ({'group_size': 0}, '2 or more'),
    ],
)
def test_an_arm_is_refused_before_anything_runs(fields, message):
  config = importlib.import_module('configs.rl').get_config('full')
  config_check.check(config)
  config.arms.rl_mine = fields
  with pytest.raises(UserError, match=message) as caught:
    config_check.check(config)
  assert 'config.arms.rl_mine' in str(caught.value)


def test_an_arm_is_a_kind_of_rl():
  config = importlib.import_module('configs.rl').get_config('full')
  config.arms.sft = {'level': 1}
  with pytest.raises(UserError, match='begins in rl_'):
    config_check.check(config)
