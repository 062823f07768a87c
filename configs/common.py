"""Fields that every page shares, and the profiles' values.

What each field means, and which values it may have, is said where it is
declared: gog_jax/config/. Here is what it is set to, and why.

A profile is a backbone with its sizes: `toy` runs the whole method on a laptop
in minutes, `hard` is the same run evaluated on the harder split and `full` all
that is compared, in hours; the others are published backbones and need
`--config.model.path=FOLDER`, a folder of the family that their names begin
with: `qwen3_vl_8b` is the Instruct model, `qwen3_vl_8b_thinking` the other.
Each page sets `stage` and composes these.
"""

from ml_collections import ConfigDict

from gog_jax.config import sibling
from gog_jax.config.tools import SEARCHES

sections = sibling(__file__, 'sections')

PROFILES = (
    'toy',
    'hard',
    'full',
    'qwen2_5_vl_3b',
    'qwen2_5_vl_7b',
    'qwen3_vl_2b',
    'qwen3_vl_4b',
    'qwen3_vl_8b',
    'qwen3_vl_2b_thinking',
    'qwen3_vl_4b_thinking',
    'qwen3_vl_8b_thinking',
)


def get_base(profile: str) -> ConfigDict:
  """Every stage's settings for a profile; one page differs by `stage` alone."""
  c = _of_profile(profile)
  # To tell later what a page or a flag has changed.
  before = c.copy_and_resolve_references().to_dict()
  c.untouched = ConfigDict({**before, 'profile': profile})
  return c


def _of_profile(profile: str) -> ConfigDict:
  if profile == 'toy':
    return _toy()
  if profile == 'hard':
    c = _toy()  # Its name and so its workdir as well.
    c.eval.benchmark = 'world_hard'
    return c
  if profile == 'full':
    return _full_toy()
  if profile in PROFILES:
    c = _full_size(profile)
    return _qwen3(c) if profile.startswith('qwen3_vl') else c
  raise ValueError(
      f'unknown profile {profile!r}; there are {", ".join(PROFILES)}'
  )


def _toy() -> ConfigDict:
  c = ConfigDict({
      'profile': 'toy',
      'seed': 0,
      'seeds': (),
      'unasked': True,
      'mesh': {'data': -1, 'fsdp': 1, 'tensor': 1},
      'model': {
          'path': 'toy_base',
          'dtype': 'float32',
          'dialect': 'gog_toy',
          'paradigm': 'gog',
          'box': 'resized_pixels',
          'box_step': 7,
          'min_box_side': 16,
          'processor': 'folder',
          'max_image_tokens': 9,
          'scan': False,
          'remat': 'none',
          'attention': 'auto',
          'logprob_chunk': 128,
      },
      # A base of 1.6 million parameters has no use for small adapters, and all
      # of them learn half as fast again (docs/log.md).
      'trainable': 'full_no_vision',
      'lora': {'rank': 8, 'alpha': 16.0, 'vision': False},
      'data': {
          'world_seed': 0,
          'n_train': 13312,
          'n_validation': 256,
          'n_test': 1536,
          'n_hard': 1536,
          'difficulty': {
              'emblems': 4,
              'small': 0.0,
              'twins': 0.7,
              'aliased': 0.35,
              'unpictured': 0.08,
              'noise': 0.0,
          },
          'hard': {
              'emblems': 6,
              'small': 0.3,
              'twins': 0.9,
              'aliased': 0.5,
              'unpictured': 0.25,
              'noise': 0.03,
          },
      },
      'tools': sections.tools(),
      'rollout': {
          'max_turns': 5,
          'max_turn_tokens': 44,
          'min_turn_tokens': 44,
          'max_context': 288,
          'max_calls': dict.fromkeys(SEARCHES, 0),
      },
      'sampler': {'n_slots': 64, 'chunk': 32},
      'batch': {'row_tokens': 288, 'row_patches': 160},
      'questions': {
          'train': ('world',),
          'validation': ('world',),
          'test': ('world',),
          'exclude': (),
          'images': '',
          'fetch_images': True,
          'fetch': sections.fetch(),
          'n': 0,
          'leaks': 'leave_out',
      },
      'reward': {'accuracy': 'answer_match', 'format_weight': 0.1, 'extra': ()},
      'judge': sections.judge(),
      'sft': {
          'n_candidates': 12288,
          'n_demos': 5120,
          'no_search': 0.435,  # The paper's share.
          'recovered': 0.11,
          'steps': 320,
          'eval_every': 80,
          'n_validation': 256,
          'batch_size': 16,
          'micro_rows': 4,
          'checkpoint_every': 40,
          'data': '',
          'epochs': 0.0,
          'data_box': '',
          'data_workers': 0,
          'optimizer': optimizer(
              name='muon',
              learning_rate=5e-4,
              muon_learning_rate=3e-3,
              warmup_steps=20,
              decay='cosine',
          ),
      },
      'grade': {
          'n_queries': 384,
          'samples': 8,
          'solved': 0.75,
          'often_failed': 0.3,
          'most_errors': 0.5,
      },
      'rl': {
          'init': 'sft',
          'adapter_alone': False,
          'variant': 'grpo',
          'level': 2,
          'regrade': False,
          'recheck_every': 50,
          'call_cost': 0.0,
          'dynamic_sampling': False,
          'max_refills': 3,
          'steps': 50,
          'epochs': 0.0,
          'n_prompts': 16,
          'group_size': 8,
          'updates_per_batch': 1,
          'micro_rows': 32,
          'train_dead': False,
          'sync_every': 1,
          'shuffle_rewards': False,
          'advantage_eps': 1e-4,
          'eval_every': 25,
          'n_validation': 64,
          'checkpoint_every': 10,
          'trajectories_every': 10,
          'trajectories_kept': 10,
          'optimizer': optimizer(learning_rate=2e-4, warmup_steps=2),
          'loss': {'clip': (), 'kl_coef': 0.001, 'max_importance_weight': 2.0},
          'alarms': {
              'sampler_gap_p99': 0.05,
              'kl': 1.0,
              'entropy': 0.01,
              'live_groups': 0.1,
              'no_search': 0.95,
              'format': 0.5,
              'sampled_tokens': 4.0,
              'patience': 3,
              'stop': False,
          },
      },
      # Fields of `rl` that differ, by the name of the arm.
      'arms': {},
      'once': (),
      'eval': {
          'benchmark': 'test',
          'n_examples': 512,
          'policies': ('direct', 'full_search', 'expert', 'sft', 'rl'),
          'script': '',
          'retry_errors': True,
      },
      'benchmark': sections.benchmark(),
      'report': {'n_trajectories': 24},
      'log': {'wandb': ''},
      'remote': sections.remote(),
  })
  c.benchmark.fetch = c.questions.fetch  # The same, by either name.
  c.general = sections.general()
  return c


def _full_toy() -> ConfigDict:
  """The toy with everything that is compared, three times: hours."""
  c = _toy()
  c.profile = 'full'
  c.seeds = (0, 1, 2)
  c.grade.n_queries = 768
  rate = c.rl.optimizer.get_ref('learning_rate')  # Follows a flag's value.
  c.arms = ConfigDict({
      'rl_level1': {'level': 1},
      'rl_all': {'level': -1, 'regrade': False},  # It has nothing to leave out.
      'rl_fast': {'optimizer': {'learning_rate': 2.0 * rate}},
      'rl_slow': {'optimizer': {'learning_rate': 0.5 * rate}},
      'rl_shuffled': {'shuffle_rewards': True},
  })
  c.once = ('rl_fast', 'rl_slow', 'rl_shuffled')
  c.eval.n_examples = 1536
  c.eval.policies = (
      'direct', 'full_search', 'expert', 'sft_no_gaze', 'sft', 'rl',
      'rl_level1', 'rl_all', 'rl_fast', 'rl_slow', 'rl_shuffled',
  )  # fmt: skip
  return c


def _full_size(profile: str) -> ConfigDict:
  """The paper's recipe, what it leaves open marked as our choice.

  Whether some of them fit was asked of the TPU compiler (README).
  """
  c = _toy()
  c.profile = profile
  c.trainable = 'lora'
  c.unasked = False  # Nobody wants hours of work unasked.
  # These values are what the model needs anywhere.
  c.general = ConfigDict()
  c.mesh.update(data=1, fsdp=-1)
  c.model.update(
      path='',
      dtype='bfloat16',
      dialect='gog',
      box_step=1,
      min_box_side=28,  # Ours.
      max_image_tokens=1024,  # Ours.
      scan=True,
      remat='full',
      logprob_chunk=512,
  )
  c.rollout.update(
      max_turns=8,  # Ours.
      max_turn_tokens=1024,  # Ours.
      min_turn_tokens=256,  # For a thought and a call or answer. Ours.
      max_context=12288,  # Response of 8,192 after prompt and image.
  )
  c.sampler.update(n_slots=16, chunk=512)
  c.batch.update(row_tokens=12288, row_patches=32768)
  c.data.n_train = 24576
  c.tools.update(top_k=3, timeout_s=60.0)
  c.sft.update(
      n_candidates=16384,
      n_demos=5750,
      steps=2157,  # 3 epochs at batch 8.
      epochs=3.0,
      batch_size=8,
      micro_rows=1,  # That is, one on each shard.
      checkpoint_every=200,
      n_validation=0,  # As the paper: for all its epochs.
      optimizer=optimizer(learning_rate=1e-4, warmup_steps=50),
  )
  c.grade.n_queries = 8192
  c.rl.update(
      micro_rows=1,
      n_prompts=64,
      group_size=4,
      steps=1000,
      eval_every=50,  # As many answers as a step's, in 2 % of the time. Ours.
      n_validation=256,
      checkpoint_every=20,
      trajectories_every=20,
      # Of adapters, ten times the paper's 2e-6, at which they hardly move
      # (docs/log.md); pass that with trainable='full'. Ours.
      optimizer=optimizer(learning_rate=2e-5, warmup_steps=10),
  )
  # The expert knows the embedded world alone.
  c.eval.policies = ('direct', 'full_search', 'sft', 'rl')
  # In bfloat16 a sound sampler is up to 0.025 off with the toy's few layers,
  # and logits of a whole model by up to 0.1 (docs/log.md). Ours.
  c.rl.alarms.sampler_gap_p99 = 0.2
  return c


def _qwen3(c: ConfigDict) -> ConfigDict:
  """What Qwen3-VL has other conventions for."""
  c.model.box = 'thousandths'
  c.model.min_box_side = 32  # A merged patch of theirs, as 28 is. Ours.
  if c.profile.endswith('_thinking'):
    # Qwen3's structure; no copy of Qwen3-VL's own was at hand to check it.
    c.model.dialect = 'qwen3_vl_thinking'
    c.rollout.max_turn_tokens = 4096  # They think at length. Ours.
  else:
    c.model.dialect = 'qwen3_vl'
  return c


def optimizer(
    *,
    learning_rate: float,
    warmup_steps: int,
    name: str = 'adamw',
    muon_learning_rate: float = 0.02,
    decay: str = 'constant',
) -> ConfigDict:
  """Fields of an optimizer, AdamW unless it is named."""
  return ConfigDict({
      'name': name,
      'learning_rate': learning_rate,
      'muon_learning_rate': muon_learning_rate,
      'warmup_steps': warmup_steps,
      'decay': decay,
      'b1': 0.9,
      'b2': 0.95,
      'weight_decay': 0.0,
      'max_grad_norm': 1.0,
  })
