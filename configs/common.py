"""Fields that every config page shares, and the profiles' values.

A profile is a backbone with its sizes: `toy` runs the whole method on a laptop
in minutes; the others are the paper's backbones and need
`--config.model.path=FOLDER`. Each page sets `stage` and composes these.
"""

from ml_collections import ConfigDict

PROFILES = ('toy', 'qwen2_5_vl_3b', 'qwen2_5_vl_7b')


def get_base(profile: str) -> ConfigDict:
  """Every stage's settings for a profile; one page differs by `stage` alone."""
  if profile == 'toy':
    return _toy()
  if profile in PROFILES:
    return _full_size(profile)
  raise ValueError(
      f'unknown profile {profile!r}; there are {", ".join(PROFILES)}'
  )


def _toy() -> ConfigDict:
  c = ConfigDict()
  c.profile = 'toy'
  c.seed = 0

  c.mesh = ConfigDict()  # Devices along each axis; -1 is all the rest.
  c.mesh.data = -1
  c.mesh.fsdp = 1
  c.mesh.tensor = 1

  c.model = ConfigDict()
  c.model.path = 'toy_base'  # 'toy_base' ships with the package; or a folder.
  c.model.dtype = 'float32'
  c.model.dialect = 'gog_toy'  # Prompts and wording: gog_jax/dialects/.
  c.model.box = 'resized_pixels'  # The backbone's box frame, see boxes.py.
  c.model.box_step = 7  # Corners are written in multiples of this.
  c.model.min_box_side = 16  # Original pixels; smaller boxes grow to this.
  c.model.max_image_tokens = 9  # Per image, in training and evaluation alike.
  c.model.scan = False  # Scan over layers; unrolled is quicker when few.
  c.model.remat = 'none'
  c.model.logprob_chunk = 128  # Positions whose logits exist at once.

  c.trainable = 'lora'  # Or 'full', or 'full_no_vision'.
  c.lora = ConfigDict()
  c.lora.rank = 8
  c.lora.alpha = 16.0
  c.lora.vision = False  # Adapters on the ViT too; else it stays frozen.

  c.data = ConfigDict()  # The embedded world, a TFDS data set.
  c.data.world_seed = 0
  c.data.n_train = 2048
  c.data.n_validation = 128
  c.data.n_test = 512

  c.tools = ConfigDict()
  c.tools.backend = 'world'
  c.tools.top_k = 1
  c.tools.timeout_s = 10.0
  c.tools.max_concurrency = 16  # Calls of one tool at a time.

  c.rollout = ConfigDict()
  c.rollout.max_turns = 5
  c.rollout.max_turn_tokens = 32
  c.rollout.max_context = 320

  c.sampler = ConfigDict()
  c.sampler.n_slots = 64  # Conversations held at once.
  c.sampler.chunk = 32  # Tokens of each that are prefilled at once.

  c.batch = ConfigDict()  # Packed rows, see rollout/batching.py.
  c.batch.row_tokens = 320
  c.batch.row_patches = 192

  c.reward = ConfigDict()
  c.reward.accuracy = 'exact_match'  # Or 'token_f1'.
  c.reward.format_weight = 0.1  # lambda of the paper.

  c.sft = ConfigDict()
  c.sft.n_demos = 1024  # Expert trajectories, from the train split.
  c.sft.steps = 160
  c.sft.batch_size = 32  # Trajectories a step.
  c.sft.row_multiple = 4  # Rows come in multiples: one compilation each.
  c.sft.checkpoint_every = 40
  c.sft.optimizer = optimizer(learning_rate=4e-3, warmup_steps=10)

  c.grade = ConfigDict()
  c.grade.n_queries = 192  # From the train split, after the demos.
  c.grade.samples = 8
  c.grade.chunk = 32  # Queries committed at once.
  c.grade.solved = 0.75  # Pass rate from here: Level 0.
  c.grade.often_failed = 0.3  # Below: Level 2. Between: Level 1.

  c.rl = ConfigDict()
  c.rl.level = 2
  c.rl.steps = 30
  c.rl.n_prompts = 8  # P, questions a step.
  c.rl.group_size = 8  # G, rollouts a question.
  c.rl.updates_per_batch = 1
  c.rl.row_multiple = 16
  c.rl.aggregation = 'sequence_mean'
  c.rl.advantage_eps = 1e-4
  c.rl.checkpoint_every = 10
  c.rl.trajectories_every = 10  # Steps between saved batches of rollouts.
  c.rl.optimizer = optimizer(learning_rate=1e-3, warmup_steps=2)
  c.rl.loss = ConfigDict()
  c.rl.loss.clip_low = 0.2
  c.rl.loss.clip_high = 0.2
  c.rl.loss.kl_coef = 0.001
  c.rl.loss.max_importance_weight = 2.0

  c.eval = ConfigDict()
  c.eval.n_examples = 256  # From the test split, greedy.
  c.eval.policies = ('sft', 'rl')

  c.report = ConfigDict()
  c.report.n_trajectories = 24
  return c


def _full_size(profile: str) -> ConfigDict:
  """The paper's recipe, what it leaves open marked as our choice.

  Memory at these sizes has not been tried: no weights were at hand.
  """
  c = _toy()
  c.profile = profile
  c.mesh.data = 1
  c.mesh.fsdp = -1
  c.model.path = ''
  c.model.dtype = 'bfloat16'
  c.model.dialect = 'gog'
  c.model.box_step = 1
  c.model.min_box_side = 28  # Ours.
  c.model.max_image_tokens = 1024  # Ours.
  c.model.scan = True
  c.model.remat = 'full'
  c.model.logprob_chunk = 512
  c.rollout.max_turns = 8  # Ours.
  c.rollout.max_turn_tokens = 1024  # Ours.
  c.rollout.max_context = 12288  # Response of 8,192 after prompt and image.
  c.sampler.n_slots = 16
  c.sampler.chunk = 512
  c.batch.row_tokens = 12288
  c.batch.row_patches = 32768
  c.data.n_train = 16384
  c.data.n_test = 1024
  c.tools.top_k = 3
  c.tools.timeout_s = 60.0
  c.sft.n_demos = 5750
  c.sft.steps = 2157  # 3 epochs at batch 8.
  c.sft.batch_size = 8
  c.sft.row_multiple = 8
  c.sft.checkpoint_every = 200
  c.sft.optimizer = optimizer(learning_rate=1e-4, warmup_steps=50)
  c.grade.n_queries = 8192
  c.rl.n_prompts = 64
  c.rl.group_size = 4
  c.rl.steps = 1000
  c.rl.checkpoint_every = 20
  c.rl.trajectories_every = 20
  c.rl.optimizer = optimizer(learning_rate=2e-6, warmup_steps=10)
  return c


def optimizer(
    *, learning_rate: float, warmup_steps: int, decay: str = 'constant'
) -> ConfigDict:
  """AdamW unless its name is changed, see train/optimizer.py."""
  c = ConfigDict()
  c.name = 'adamw'  # Or 'muon'.
  c.learning_rate = learning_rate
  c.muon_learning_rate = 0.02  # Of kernels; only read by 'muon'.
  c.warmup_steps = warmup_steps
  c.decay = decay  # 'constant' or 'cosine'.
  c.b1 = 0.9
  c.b2 = 0.95
  c.weight_decay = 0.0
  c.max_grad_norm = 1.0
  return c
