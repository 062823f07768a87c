"""Fields that every config page shares, and the profiles' values.

A profile is a backbone with its sizes: `toy` runs the whole method on a laptop
in minutes, `hard` is the same run evaluated on the harder split and `full` all
that is compared, in hours; the others are published backbones and need
`--config.model.path=FOLDER`, a folder of the family that their names begin
with: `qwen3_vl_8b` is the Instruct model, `qwen3_vl_8b_thinking` the other.
Each page sets `stage` and composes these.
"""

from ml_collections import ConfigDict

from configs import sections

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
  c = ConfigDict()
  c.profile = 'toy'
  c.seed = 0
  c.seeds = ()  # If any: a run for each of them, and a report over all.
  c.unasked = True  # Make what a stage needs first, where it is missing.

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
  # 'xla', 'splash' (a Pallas kernel for TPUs), or what the platform has.
  c.model.attention = 'auto'
  c.model.logprob_chunk = 128  # Positions whose logits exist at once.

  # Or 'lora', or 'full'. A base of 1.6 million parameters has no use for small
  # adapters, and all of them learn half as fast again (docs/log.md).
  c.trainable = 'full_no_vision'
  c.lora = ConfigDict()
  c.lora.rank = 8
  c.lora.alpha = 16.0
  c.lora.vision = False  # Adapters on the ViT too; else it stays frozen.

  c.data = ConfigDict()  # The embedded world, a TFDS data set.
  c.data.world_seed = 0
  c.data.n_train = 13312
  c.data.n_validation = 256
  c.data.n_test = 1536
  c.data.n_hard = 1536  # Of the benchmark 'world_hard'.
  # Fields of world/knowledge.py's Difficulty.
  c.data.difficulty = ConfigDict({
      'emblems': 4,
      'small': 0.0,
      'twins': 0.7,
      'aliased': 0.35,
      'unpictured': 0.08,
      'noise': 0.0,
  })
  c.data.hard = ConfigDict({
      'emblems': 6,
      'small': 0.3,
      'twins': 0.9,
      'aliased': 0.5,
      'unpictured': 0.25,
      'noise': 0.03,
  })

  c.tools = ConfigDict()
  # What is searched: 'world'; 'index', an index of one's own documents and
  # images (configs/index.py); 'retriever', a server (configs/retrieve.py); or
  # FILE.py:NAME, what makes a SearchBackend (gog_jax/tools/base.py).
  c.tools.backend = 'world'
  c.tools.index = ''  # The index's folder.
  c.tools.encoder = ''  # The folder of weights that the index was built with.
  c.tools.url = ''  # The retriever's, e.g. http://127.0.0.1:8000
  c.tools.version = ''  # Of what it holds, where it does not say so itself.
  c.tools.extra = ()  # Tools of one's own, FILE.py:NAME: tools/functions.py.
  c.tools.top_k = 1
  c.tools.hit_characters = 2000  # Of a document that the policy is shown.
  c.tools.timeout_s = 10.0  # Of a call, all attempts together.
  c.tools.max_attempts = 5  # Where a failure may be gone soon.
  c.tools.backoff_s = 0.5  # At most, before the second; then twice as long.
  c.tools.max_concurrency = 16  # Calls of one tool at a time.
  for tool in ('text_search', 'image_search', 'gaze'):
    c.tools[tool] = ConfigDict({
        'timeout_s': 0.0,  # 0 is as above,
        'max_concurrency': 0,  # and here.
        'price': 0.0,  # Of one search, in US dollars.
    })
  # US dollars, over all the starts of the run; to be set if there are prices.
  c.tools.max_spend = 0.0
  c.tools.ledger = ''  # Where they are written down: WORKDIR/spent.jsonl.
  # Failed attempts in a row after which the backend is left alone for a while.
  c.tools.rest_after = 20
  c.tools.rest_s = 3.0
  # 'live'; 'record' keeps every search in the folder `recording`; 'replay'
  # searches nothing and takes all from there.
  c.tools.mode = 'live'
  c.tools.recording = ''  # Empty is WORKDIR/recording.
  c.tools.cache = ''  # A file of answers for this and other runs; or none.
  c.tools.cache_days = 30.0
  c.tools.cache_gb = 10.0
  # For which the run's end waits for searches that may have been paid for.
  c.tools.drain_s = 10.0

  c.rollout = ConfigDict()
  c.rollout.max_turns = 5
  c.rollout.max_turn_tokens = 44
  c.rollout.max_context = 288
  # Of each tool in a conversation; 0 is no limit. A dialect may have tighter.
  c.rollout.max_calls = ConfigDict({
      'text_search': 0,
      'image_search': 0,
      'gaze': 0,
  })

  c.sampler = ConfigDict()
  # Conversations held at once; more where devices do not divide them.
  c.sampler.n_slots = 64
  c.sampler.chunk = 32  # Tokens of each that are prefilled at once.

  c.batch = ConfigDict()  # Packed rows, see rollout/batching.py.
  c.batch.row_tokens = 288
  c.batch.row_patches = 160

  # Its parts are functions, see rewards/parts.py: 'exact_match', 'token_f1',
  # 'judge', 'format', and your own by FILE.py:NAME or MODULE:NAME.
  c.reward = ConfigDict()
  c.reward.accuracy = 'exact_match'  # The part that says what is right.
  c.reward.format_weight = 0.1  # lambda of the paper.
  c.reward.extra = ()  # 'PART=WEIGHT', added to the reward.
  c.judge = sections.judge()

  c.sft = ConfigDict()
  c.sft.n_candidates = 12288  # Questions that the expert is asked, of which
  c.sft.n_demos = 5120  # trajectories are chosen:
  c.sft.no_search = 0.435  # the paper's share that do not search;
  c.sft.recovered = 0.11  # at least this share gaze wrong, then right.
  c.sft.steps = 320  # At most.
  c.sft.eval_every = 80
  c.sft.n_validation = 256  # Training ends when their accuracy is flat.
  c.sft.batch_size = 16  # Trajectories a step.
  # Rows whose gradients are taken at once, more where shards do not divide
  # them; a step has as many of such micro-batches as it fills.
  c.sft.micro_rows = 4
  c.sft.checkpoint_every = 40
  sections.add_sft_data(c.sft)
  c.sft.optimizer = optimizer(
      learning_rate=5e-4, warmup_steps=20, decay='cosine'
  )
  c.sft.optimizer.name = 'muon'
  c.sft.optimizer.muon_learning_rate = 3e-3

  c.grade = ConfigDict()
  c.grade.n_queries = 384  # From the train split, after the demos.
  c.grade.samples = 8
  c.grade.solved = 0.75  # Pass rate from here: Level 0.
  c.grade.often_failed = 0.3  # Below: Level 2. Between: Level 1.
  # Share of samples that may fail because of the infrastructure: a query with
  # more is not graded, and where more of the latest fail, grading stops.
  c.grade.most_errors = 0.5

  c.rl = ConfigDict()
  c.rl.variant = 'grpo'  # Or 'dr_grpo', 'dapo', 'gspo'.
  c.rl.level = 2  # Of the grades; -1 is all of them.
  c.rl.regrade = False  # Leave out what RL's own rollouts find to be easier,
  c.rl.recheck_every = 50  # for so many steps.
  c.rl.call_cost = 0.0  # Share of a right answer's reward, for each search.
  c.rl.dynamic_sampling = False  # Refill groups that have no variance.
  c.rl.max_refills = 3
  c.rl.steps = 50
  c.rl.n_prompts = 16  # P, questions a step.
  c.rl.group_size = 8  # G, rollouts a question.
  c.rl.updates_per_batch = 1
  c.rl.micro_rows = 32
  c.rl.train_dead = False  # Whether groups without variance feel the KL.
  # Steps after which the sampler gets new weights; resuming gives it them too.
  c.rl.sync_every = 1
  c.rl.shuffle_rewards = False  # Within groups: a control that cannot learn.
  c.rl.advantage_eps = 1e-4
  c.rl.checkpoint_every = 10
  c.rl.trajectories_every = 10  # Steps between saved batches of rollouts.
  c.rl.optimizer = optimizer(learning_rate=2e-4, warmup_steps=2)
  c.rl.loss = ConfigDict()
  c.rl.loss.clip = ()  # (low, high); empty is as the variant was published.
  c.rl.loss.kl_coef = 0.001
  c.rl.loss.max_importance_weight = 2.0

  c.rl.alarms = ConfigDict({  # See train/alarms.py.
      'sampler_gap_p99': 0.05,
      'kl': 1.0,
      'entropy': 0.01,
      'live_groups': 0.1,
      'no_search': 0.95,
      'format': 0.5,
      'sampled_tokens': 4.0,
      'patience': 3,  # Steps for which a sign has to last.
      'stop': False,  # Or else it is said and the run goes on.
  })

  # More RL runs: a name (a policy of that name can be evaluated) to fields of
  # `rl` that differ.
  c.arms = ConfigDict()
  c.once = ()  # Those that only the first of `seeds` has.

  c.eval = sections.evaluation()
  c.benchmark = sections.benchmark()

  c.report = ConfigDict()
  c.report.n_trajectories = 24
  c.log = sections.log()
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
  c.data.n_train = 24576
  c.tools.top_k = 3
  c.tools.timeout_s = 60.0
  c.sft.n_candidates = 16384
  c.sft.n_demos = 5750
  c.sft.steps = 2157  # 3 epochs at batch 8.
  c.sft.epochs = 3.0
  c.sft.batch_size = 8
  c.sft.micro_rows = 1  # That is, one on each shard.
  c.sft.checkpoint_every = 200
  c.sft.n_validation = 0  # As the paper: for all its epochs.
  c.sft.optimizer = optimizer(learning_rate=1e-4, warmup_steps=50)
  c.grade.n_queries = 8192
  c.rl.micro_rows = 1
  c.rl.n_prompts = 64
  c.rl.group_size = 4
  c.rl.steps = 1000
  c.rl.checkpoint_every = 20
  c.rl.trajectories_every = 20
  c.rl.optimizer = optimizer(learning_rate=2e-6, warmup_steps=10)
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
