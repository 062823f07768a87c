"""Every page resolves, for every profile, into what the code unpacks."""

from __future__ import annotations

import dataclasses
import importlib
import os
import pathlib
import shutil
import subprocess
import sys
import typing

import pytest

from configs import common
from gog_jax import run
from gog_jax.app import commands
from gog_jax.app import stages
from gog_jax.app import walk
from gog_jax.config import config as config_lib
from gog_jax.config import from_page
from gog_jax.errors import UserError
from gog_jax.models import folders
from gog_jax.storage import files
from gog_jax.train import losses
from tests import mini

pytestmark = pytest.mark.quick

ROOT = pathlib.Path(__file__).parents[1]
NO_PROFILE = ('index', 'retrieve', 'benchmark', 'judge', 'table')
PAGES = sorted(
    path.stem
    for path in (ROOT / 'configs').glob('*.py')
    if path.stem not in ('common', 'sections', 'gog', *NO_PROFILE)
)


def cases():
  for page in PAGES:
    for profile in ('toy',) if page == 'pretrain' else common.PROFILES:
      yield page, profile


@pytest.mark.parametrize(('page', 'profile'), list(cases()))
def test_page_resolves(page, profile):
  config = resolved(page, profile)
  assert config.stage == page
  assert config.stage in (*walk.TARGETS, *commands.COMMANDS)
  assert config.profile == ('toy' if profile == 'hard' else profile)
  losses.variant_of(config.rl)
  for name, stage in stages.stages_of(config).items():
    if name != 'pretrain' or page == 'pretrain':
      config.picked(stage.sections, without=())


def test_a_manifest_holds_fields_alone():
  config = resolved('rl', 'toy')
  assert config.reward.weights == {}  # Derived, and kept.
  fields = [field.name for field in dataclasses.fields(config.reward)]
  assert list(config.picked(['reward'], without=())['reward']) == fields


def test_a_number_is_one_setting_however_it_is_written():
  config = resolved('rl', 'toy')
  made = []
  for cost in (0, 0.0):
    rl = dataclasses.replace(config.rl, call_cost=cost)
    changed = dataclasses.replace(config, rl=rl)
    made.append(files.dumps(changed.picked(['rl'], without=())))
  assert made[0] == made[1]


# What a page cannot do without, which has no default.
NEEDED = {
    'ask': {'question': '?', 'image': 'x.png', 'scope': 's',
            'remote__url': 'http://127.0.0.1:1/v1', 'remote__model': 'm'},
    'convert': {'input': 'a', 'output': 'b'},
    'export': {'export__folder': 'a'},
    'judge': {'labels': 'a', 'judge__url': 'http://127.0.0.1:1/v1',
              'judge__model': 'm'},
}  # fmt: skip


@pytest.mark.parametrize('page', NO_PROFILE)
def test_page_without_a_profile_resolves(page):
  given = importlib.import_module(f'configs.{page}').get_config()
  for field, value in NEEDED.get(page, {}).items():
    given.update_from_flattened_dict({field.replace('__', '.'): value})
  config = from_page(given)
  assert config.stage == page in commands.COMMANDS


def resolved(page, profile='toy', **changes):
  return mini.make_config(page, profile, **NEEDED.get(page, {}) | changes)


def test_a_config_is_frozen_all_the_way_down():
  config = resolved('rl', 'full')
  for section in (config, config.rl.optimizer, config.general.model):
    name = dataclasses.fields(section)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
      setattr(section, name, None)
  for mapping in (
      config.arms,
      config.rollout.max_calls,
      config.tools.limits,
      config.of_seed(1).arms,
      config.reward.weights,
      resolved('pretrain').pretrain.architecture,
  ):
    with pytest.raises(TypeError):
      mapping['x'] = None


def test_defaults_stand_in_the_pages_alone():
  def check(kind):
    for field in dataclasses.fields(kind):
      assert field.default is dataclasses.MISSING, (kind, field.name)
      assert field.default_factory is dataclasses.MISSING

  kinds = [config_lib.Config]
  while kinds:
    kind = kinds.pop()
    check(kind)
    hints = typing.get_type_hints(kind).values()
    kinds += [hint for hint in hints if dataclasses.is_dataclass(hint)]


@pytest.mark.parametrize(
    ('section', 'field', 'value', 'message'),
    [
        ('rl', 'lvl', 1, 'config.rl.lvl: there is no such field'),
        ('rl', 'level', None, 'config.rl.level is missing'),
        ('rl', 'steps', 'x', 'config.rl.steps must be a whole number'),
        ('mesh', 'data', {'a': 1}, 'config.mesh.data must be a whole number'),
    ],
)
def test_a_page_of_other_fields_is_refused(section, field, value, message):
  page = importlib.import_module('configs.rl').get_config()
  with page.unlocked(), page.ignore_type():
    if field in page[section]:
      del page[section][field]
    if value is not None:
      page[section][field] = value
  with pytest.raises(UserError, match=message):
    from_page(page)


def test_pages_can_be_moved(tmp_path):
  """They find each other beside themselves, wherever they are started."""
  folder = tmp_path / 'elsewhere'
  shutil.copytree(ROOT / 'configs', folder)
  code = f"""
import importlib.util
spec = importlib.util.spec_from_file_location('page', {str(folder / 'rl.py')!r})
page = importlib.util.module_from_spec(spec)
spec.loader.exec_module(page)
assert page.common.__file__ == {str(folder / 'common.py')!r}
assert page.get_config('full').stage == 'rl'
"""
  subprocess.run(
      [sys.executable, '-c', code],
      check=True,
      cwd=tmp_path,
      env=os.environ | {'PYTHONPATH': str(ROOT)},
  )


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
  folders.check_family(profile, family)
  with pytest.raises(UserError, match=f'choose a profile .* {other}'):
    folders.check_family(profile, other)
  folders.check_family('toy', other)


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
        ('rl', 'eval.policies', ('sft', 'r1'), "no policy 'r1'; .* is 'rl'"),
        ('rl', 'once', ('rl_fats',), 'has rl_fats; there are no arms'),
        ('rl', 'grade.often_failed', 0.9, 'above config.grade.solved'),
        ('rl', 'rl.group_size', 1, '2 or more'),
        ('rl', 'sft.optimizer.learning_rate', float('nan'), '0 or more'),
        ('rl', 'rl.optimizer.learning_rate', -1.0, '0 or more'),
        ('rl', 'rl.loss.kl_coef', float('inf'), '0 or more, not inf'),
        ('rl', 'rl.max_refills', -1, '0 or more'),
        ('rl', 'rl.loss.clip', (0.2,), r'must be \(low, high\)'),
        ('rl', 'rl.loss.clip', (-0.2, 0.2), '0 or more'),
        ('rl', 'rl.loss.clip', (True, 0.2), 'a number'),
        ('rl', 'rl.advantage_eps', 0.0, 'more than 0, or groups'),
        ('rl', 'sft.optimizer.max_grad_norm', 0.0, 'more than 0 .1e9 clips'),
        ('rl', 'model.logprob_chunk', 0, '1 or more'),
        ('rl', 'sft.n_validation', -1, '0 or more'),
        ('rl', 'sft.micro_rows', 0, '1 or more'),
        ('rl', 'tools.timeout_s', 0.0, 'more than 0'),
        ('rl', 'tools.max_concurrency', 0, '1 or more'),
        ('rl', 'tools.max_attempts', 0, '1 or more'),
        ('rl', 'tools.backoff_s', -0.1, 'tools.backoff_s'),
        ('rl', 'model.box_step', 0, '1 or more'),
        ('rl', 'seeds', (0, 0), 'all different'),
        ('rl', 'eval.policies', (), 'one or more names'),
        ('rl', 'rl.call_cost', 2.0, 'from 0 to 1'),
        ('rl', 'eval.n_examples', 2000, '2000 is more than config.data.n_test'),
        ('rl', 'grade.n_queries', 1025, '13313 is more than config.data.n_tra'),
        ('rl', 'sft.n_validation', 257, 'more than config.data.n_validation'),
        ('rl', 'sft.n_demos', 12289, 'more than config.sft.n_candidates'),
    ],
)
def test_values_that_a_late_stage_would_stumble_over(
    page, field, value, message
):
  resolved(page)
  with pytest.raises(UserError, match=message) as caught:
    resolved(page, **{field.replace('.', '__'): value})
  assert field in str(caught.value)


def test_a_judge_is_checked_where_the_reward_asks_one(tmp_path):
  judge = {'reward__accuracy': 'judge'}
  with pytest.raises(UserError, match='--config.judge.url=, e.g.'):
    resolved('eval', **judge)
  with pytest.raises(UserError, match='config.judge.min_success must be'):
    resolved('eval', judge__min_success=2.0)
  judge['judge__url'] = 'http://127.0.0.1:1/v1'
  with pytest.raises(UserError, match='--config.judge.model=NAME'):
    resolved('eval', **judge)
  run.build(resolved('eval', judge__model='m', **judge), tmp_path)


def test_nothing_is_easier_than_the_easiest():
  resolved('rl', rl__regrade=True)
  for level in (0, -1):
    with pytest.raises(UserError, match='choose level 1 or 2'):
      resolved('rl', rl__regrade=True, rl__level=level)


def test_arms_follow_what_the_command_line_says():
  config = resolved(
      'rl', 'full', rl__optimizer__learning_rate=1e-3, rl__regrade=True
  )
  rates = [
      config.arms[name].optimizer.learning_rate
      for name in ('rl_slow', 'rl_level1', 'rl_fast')
  ]
  assert rates == [0.5e-3, 1e-3, 2e-3]
  assert config.rl.optimizer.learning_rate == 1e-3


def test_something_is_evaluated_of_every_seed():
  policies = ('rl_fast', 'gog@rl_slow')
  resolved('rl', 'full', eval__policies=policies, seeds=(0,))
  with pytest.raises(UserError, match='eval.policies are all of config.once'):
    resolved('rl', 'full', eval__policies=policies)


def test_muon_trains_whole_models():
  resolved('sft', trainable='full', sft__optimizer__name='muon')


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
  page = importlib.import_module('configs.rl').get_config('full')
  page.arms.rl_mine = fields
  with pytest.raises(UserError, match=message) as caught:
    from_page(page)
  assert 'config.arms.rl_mine' in str(caught.value)


def test_an_arm_is_a_kind_of_rl():
  page = importlib.import_module('configs.rl').get_config('full')
  page.arms.sft = {'level': 1}
  with pytest.raises(UserError, match='begins in rl_'):
    from_page(page)
