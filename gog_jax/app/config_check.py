"""Refuses what a late stage would stumble over, before hours of work."""

from __future__ import annotations

import math

from ml_collections import ConfigDict

from gog_jax import seams
from gog_jax.app import ask
from gog_jax.app.config_fields import config_field
from gog_jax.app.config_fields import float_fields
from gog_jax.boxes import KINDS
from gog_jax.errors import UserError
from gog_jax.evaluation import paradigms
from gog_jax.evaluation import policies
from gog_jax.evaluation import scripts as plays
from gog_jax.instruct import settings
from gog_jax.judge import config as judge_config
from gog_jax.models import attention
from gog_jax.models.families import FAMILIES
from gog_jax.models.layers import REMAT_POLICIES
from gog_jax.models.lora import TRAINABLE
from gog_jax.questions import benchmarks
from gog_jax.rewards import score as rewards
from gog_jax.storage import trackers
from gog_jax.tools import functions
from gog_jax.tools import toolbox
from gog_jax.train import curriculum
from gog_jax.train.losses import VARIANTS
from gog_jax.train.optimizer import DECAYS
from gog_jax.train.optimizer import OPTIMIZERS

# Fields that take one of a few words.
_CHOICES = {
    'trainable': TRAINABLE,
    'model.dtype': ('float32', 'bfloat16'),
    'model.remat': REMAT_POLICIES,
    'model.attention': attention.CHOICES,
    'model.box': KINDS,
    'rl.variant': tuple(VARIANTS),
    'rl.level': (curriculum.ALL_LEVELS, 0, 1, 2),
    'tools.mode': toolbox.MODES,
    'instruct.easy': settings.EASY,
    'instruct.gold': settings.GOLD,
} | {
    f'{stage}.optimizer.{field}': known
    for stage in ('sft', 'rl', 'pretrain')
    for field, known in (('name', OPTIMIZERS), ('decay', DECAYS))
}


# Fields that count something that has to be there.
_POSITIVE = (
    'sft.n_candidates',
    'sft.n_demos',
    'sft.steps',
    'sft.eval_every',
    'sft.batch_size',
    'sft.micro_rows',
    'sft.checkpoint_every',
    'grade.n_queries',
    'grade.samples',
    'rl.steps',
    'rl.n_prompts',
    'rl.micro_rows',
    'rl.updates_per_batch',
    'rl.sync_every',
    'rl.recheck_every',
    'rl.alarms.patience',
    'rl.checkpoint_every',
    'rl.trajectories_every',
    'eval.n_examples',
    'sampler.n_slots',
    'sampler.chunk',
    'rollout.max_turns',
    'rollout.max_turn_tokens',
    'tools.max_concurrency',
    'tools.max_attempts',
    'tools.rest_after',
    'tools.top_k',
    'model.box_step',
    'model.max_image_tokens',
    'model.logprob_chunk',
    'lora.rank',
    'pretrain.batch_size',
    'pretrain.micro_rows',
    'pretrain.n_exchanges',
    'pretrain.n_probes',
    'pretrain.checkpoint_every',
    'remote.max_attempts',
    'remote.concurrency',
    'instruct.n',
    'instruct.n_queries',
    'instruct.chunk',
    'instruct.samples',
    'instruct.concurrency',
)
_NOT_NEGATIVE = (
    'tools.backoff_s',
    'tools.drain_s',
    'tools.max_spend',
    *(
        f'tools.{tool}.{field}'
        for tool in toolbox.TOOLS
        for field in ('timeout_s', 'max_concurrency', 'price')
    ),
    *(f'rollout.max_calls.{tool}' for tool in toolbox.TOOLS),
    'sft.n_validation',
    'sft.epochs',
    'sft.data_workers',
    'rl.max_refills',
    'rl.loss.kl_coef',
    'report.n_trajectories',
    'remote.max_tokens',
    'remote.price_in',
    'remote.price_out',
    'remote.max_spend',
    'instruct.n_direct',
    'instruct.retries',
    'instruct.n_review',
) + tuple(
    f'{stage}.optimizer.{field}'
    for stage in ('sft', 'rl', 'pretrain')
    for field in ('learning_rate', 'muon_learning_rate', 'warmup_steps')
)
# Fields that divide or scale, and what may need saying of them.
_ABOVE_ZERO = {
    'tools.timeout_s': ' seconds',
    'tools.rest_s': ' seconds',
    'tools.cache_days': '; leave config.tools.cache empty to have none',
    'tools.cache_gb': '; leave config.tools.cache empty to have none',
    'remote.timeout_s': ' seconds',
    'rl.advantage_eps': ', or groups without variance divide by 0',
} | {
    f'{stage}.optimizer.max_grad_norm': '; 1e9 clips nothing'
    for stage in ('sft', 'rl', 'pretrain')
}
_LEAST_SHOWN = 50  # Characters of a document.
# Fields that hold a share.
_SHARES = (
    'sft.no_search',
    'sft.recovered',
    'grade.solved',
    'grade.often_failed',
    'reward.format_weight',
    'rl.call_cost',
    'grade.most_errors',
    'instruct.no_search',
    'instruct.most_errors',
    'instruct.gold_iou',
    'pretrain.read.reading',
    'pretrain.look.reading',
    'pretrain.refer.reading',
    'pretrain.copying',
)


def check(config) -> None:
  """Refuses values that a late stage would stumble over.

  Raises:
    UserError: A field holds a word that nothing knows (lists those known), or
      a number that is none, too small or no share, or fields contradict each
      other.
  """
  for field, value in float_fields(config):
    if not math.isfinite(value):
      raise UserError(f'config.{field} is {value}, which is no number')

  def applies(field: str) -> bool:
    return field.partition('.')[0] in config

  for field, known in _CHOICES.items():
    if not applies(field):
      continue
    value = config_field(config, field)
    if value not in known:
      raise UserError(
          f'config.{field} is {value!r}, not one of '
          + ', '.join(map(str, known))
      )
  for name, known, field in (
      (config.tools.backend, toolbox.BACKENDS, 'config.tools.backend'),
      *(
          (name, functions.KNOWN, 'config.tools.extra')
          for name in config.tools.extra
      ),
  ):
    seams.place_of(name, known, field=field)
  for field in _POSITIVE:
    if applies(field) and config_field(config, field) < 1:
      raise UserError(f'config.{field} must be 1 or more')
  for field in _NOT_NEGATIVE:
    if applies(field) and config_field(config, field) < 0:
      raise UserError(f'config.{field} must be 0 or more')
  for field, meaning in _ABOVE_ZERO.items():
    if applies(field) and config_field(config, field) <= 0:
      raise UserError(f'config.{field} must be more than 0{meaning}')
  if config.tools.hit_characters < _LEAST_SHOWN:
    raise UserError(
        f'config.tools.hit_characters must be {_LEAST_SHOWN} or more'
    )
  prices = [config.tools[tool].price for tool in toolbox.TOOLS]
  paid = any(prices) and config.tools.mode != 'replay'
  if paid and not config.tools.max_spend:
    raise UserError(
        f'searches cost up to ${max(prices):g}: say how much the run may spend '
        'with --config.tools.max_spend=DOLLARS'
    )
  rewards.check(config.reward)
  if rewards.asks_judge(config.reward):
    judge_config.check(config.judge)
  clip = config.rl.loss.clip
  numbers = [type(x) in (int, float) and x >= 0 for x in clip]
  if clip and not (len(clip) == 2 and all(numbers)):
    raise UserError(
        f'config.rl.loss.clip is {tuple(clip)!r}: give (low, high), e.g. '
        '(0.2, 0.28), or () for what the variant was published with'
    )
  if len(set(config.seeds)) < len(config.seeds):
    raise UserError(f'config.seeds={tuple(config.seeds)} names a seed twice')
  if not config.eval.policies:
    raise UserError('config.eval.policies is empty: name one at least')
  for field in _SHARES:
    if applies(field) and not 0 <= config_field(config, field) <= 1:
      raise UserError(f'config.{field} is a share, from 0 to 1')
  for stage in ('sft', 'rl'):
    name = config[stage].optimizer.name
    if name == 'muon' and config.trainable == 'lora':
      raise UserError(
          f'config.{stage}.optimizer.name=muon trains kernels, and with '
          'config.trainable=lora none is trained: choose one or the other'
      )
  if config.rl.group_size < 2:
    raise UserError(
        'config.rl.group_size must be 2 or more: one rollout has no group to '
        'be better than'
    )
  if config.rl.regrade and config.rl.level < 1:
    raise UserError(
        'config.rl.regrade=True leaves out what is easier than '
        f'config.rl.level, and nothing is easier than {config.rl.level}: '
        'choose level 1 or 2'
    )
  trackers.check(config.log)
  if config.stage == 'ask':
    ask.check(config)
  elif config.stage == 'instruct':
    settings.check(config)
  elif config.stage != 'pretrain':
    _check_sizes(config)
  if config.grade.often_failed > config.grade.solved:
    raise UserError(
        'config.grade.often_failed is above config.grade.solved: Level 2 is '
        'what fails more often than Level 0'
    )
  for name in config.arms:
    if not name.startswith('rl_'):
      raise UserError(f'config.arms.{name}: give it a name that begins in rl_')
    _check_arm(config, name)
  if unknown := [one for one in config.once if one not in config.arms]:
    raise UserError(
        f'config.once has {", ".join(unknown)}; there are '
        f'{", ".join(config.arms) or "no arms"}'
    )
  _check_evaluation(config)


def _check_evaluation(config) -> None:
  """Refuses policies that are none, or that something is missing for."""
  e = config.eval
  benchmark = benchmarks.find(e.benchmark)
  world = bool(benchmark.split)
  for name in e.policies:
    try:
      model = policies.named(config, name).model
    except UserError as error:
      raise UserError(f'config.eval.policies: {error}') from error
    if model == paradigms.REMOTE and config.stage != 'ask':
      if config.stage != 'eval':
        raise UserError(
            f'config.eval.policies: {name} is evaluated on --config='
            'configs/eval.py, where its endpoint is said'
        )
      policies.check_remote(config)
    if model == paradigms.SCRIPT:
      plays.load(e.script)
    if model == paradigms.EXPERT and not world:
      raise UserError(
          f'config.eval.policies: {name} knows the embedded world alone, not '
          f'config.eval.benchmark={e.benchmark}: leave it out'
      )
  if not world:
    if config.benchmark.name not in ('', e.benchmark):
      raise UserError(
          f'config.benchmark.name={config.benchmark.name}, but '
          f'config.eval.benchmark={e.benchmark} is what is evaluated: leave '
          'the former empty'
      )
    if benchmark.read and not config.benchmark.path:
      raise UserError(
          f'config.eval.benchmark={e.benchmark} needs its files: pass '
          '--config.benchmark.path=, a folder, a file or an id on the hub'
      )


def _check_sizes(config) -> None:
  """Refuses stages that want more examples than there will be."""
  evaluated = ()
  if split := benchmarks.find(config.eval.benchmark).split:
    evaluated = ((('eval.n_examples',), f'data.n_{split}'),)
  for wanted, held in (
      (('sft.n_demos',), 'sft.n_candidates'),
      (('sft.n_candidates', 'grade.n_queries'), 'data.n_train'),
      (('sft.n_validation',), 'data.n_validation'),
      *evaluated,
  ):
    total = sum(config_field(config, field) for field in wanted)
    if total > config_field(config, held):
      raise UserError(
          ' + '.join(f'config.{field}' for field in wanted)
          + f' = {total} is more than config.{held}='
          f'{config_field(config, held)}'
      )


def _check_arm(config, name: str) -> None:
  """Refuses an arm's fields as `check` does those of `rl`."""
  changed = config.copy_and_resolve_references()
  fields = changed.arms[name]
  changed.arms = ConfigDict()
  changed.once = ()
  changed.eval.policies = policies.NAMES[:1]
  changed.rl.lock()
  try:
    changed.rl.update(fields)
    check(changed)
  except (AttributeError, KeyError, TypeError, UserError) as error:
    raise UserError(f'config.arms.{name}: {error.args[0]}') from error


def check_family(profile: str, family: str) -> None:
  """Refuses a model of another family than the profile is named after.

  Its boxes would be read in the wrong frame, in silence.

  Raises:
    UserError: Names the profiles to choose from.
  """
  families = [one for one in FAMILIES if profile.startswith(one)]
  if families and family not in families:
    raise UserError(
        f'profile {profile} is not for {family} models, which '
        f'--config.model.path holds; choose a profile that begins in {family}'
    )
