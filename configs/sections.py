"""Sections of `common.py`'s config that are long enough to stand apart."""

from ml_collections import ConfigDict
from ml_collections import FieldReference

# What a general model behind an endpoint needs in place of the toy's values.
# Tokens are the toy tokenizer's, two to four of them a word: the endpoint has
# limits of its own.
_REMOTE = {
    'model.dialect': 'gog_remote',
    'model.box': 'thousandths',
    'model.box_step': 1,
    'model.min_box_side': 28,
    'model.max_image_tokens': 2048,  # Of 32 x 32 pixels: 2 megapixels.
    'tools.top_k': 3,
    'tools.timeout_s': 60.0,
    'rollout.max_turns': 10,
    'rollout.max_turn_tokens': 32768,
    'rollout.max_context': 262144,
    'batch.row_tokens': 262144,
    'batch.row_patches': 262144,
}


class _Default(FieldReference):
  """A field with another default where the policy is remote."""

  def __init__(self, default, *, remote, policy: FieldReference):
    super().__init__(default)
    self._remote, self._policy, self._given = remote, policy, False

  def set(self, value, type_safe=True):
    super().set(value, type_safe)
    self._given = True

  def get(self):
    is_remote = self._policy.get().rpartition('@')[-1] == 'remote'
    return self._remote if is_remote and not self._given else super().get()


def remote() -> ConfigDict:
  """A model behind an OpenAI-compatible endpoint, see rollout/endpoint.py."""
  c = ConfigDict()
  c.url = ''
  c.model = ''
  c.key_variable = 'OPENAI_API_KEY'
  c.timeout_s = 300.0  # Of a message, all attempts together.
  c.max_attempts = 4  # Where a failure may be gone soon.
  c.temperature = 0.0  # Negative leaves it to the endpoint.
  c.max_tokens = 4096  # Of a message; 0 leaves it to the endpoint.
  c.seeded = False  # Send each conversation's own seed along.
  c.concurrency = 16  # Conversations of an evaluation at a time.
  c.price_in = 0.0  # US dollars per million tokens that it reads
  c.price_out = 0.0  # and writes.
  # US dollars, over all the starts of the run; to be set if there are prices.
  c.max_spend = 0.0
  c.ledger = ''  # Where they are written down: WORKDIR/remote_spent.jsonl.
  return c


def general() -> ConfigDict:
  """What a general model needs in place of the page's small values.

  Of who is remote; of a script that is not about the embedded world, or has
  the long prompts of mmsearch_r1.
  """
  c = ConfigDict()
  for field, value in _REMOTE.items():
    section, name = field.split('.')
    if section not in c:
      c[section] = ConfigDict()
    c[section][name] = value
  return c


def follow_remote(c: ConfigDict, policy: FieldReference) -> None:
  """Gives `c` a general model's values while `policy` is 'remote'.

  What is set by a flag stays as it was set.
  """
  for field, value in _REMOTE.items():
    section, name = field.split('.')
    default = _Default(c[section][name], remote=value, policy=policy)
    del c[section][name]
    c[section][name] = default


def benchmark() -> ConfigDict:
  """A published set of questions, see gog_jax/benchmarks/."""
  c = ConfigDict()
  # fvqa_test, infoseek, simplevqa, mmsearch, livevqa or dynvqa; '' is none.
  c.name = ''
  c.path = ''  # Its folder or file, or its id on the Hugging Face hub.
  c.ids = ''  # A file of the ids that are wanted: one a line, or a JSON list.
  c.images = ''  # A folder of images that it names or links to.
  c.n = 0  # So many of it, for a cheap run; 0 is all.
  c.seed = 0  # Chooses, where some are to be chosen.
  c.fetch_images = False  # Fetch images that it only links to.
  c.options = False  # Show LiveVQA's options with the question.
  c.scope = ''  # The world or corpus that its searches run in.
  c.date = ''  # Its version, where there are several; '' is the paper's.
  return c


def evaluation() -> ConfigDict:
  """Who is evaluated, greedily, and on what."""
  c = ConfigDict()
  # The embedded world's test split; 'world_hard', 'world_validation'; or one
  # of those that `benchmark` finds: 'fvqa_test', 'infoseek', 'simplevqa',
  # 'mmsearch', 'livevqa', 'dynvqa'; or a function of yours, 'FILE.py:NAME'.
  c.benchmark = 'world'
  c.n_examples = 512  # Of the world's; benchmark.n is the others'.
  # PARADIGM@MODEL, or a short name: gog_jax/evaluation/paradigms.py.
  c.policies = ('direct', 'full_search', 'expert', 'sft', 'rl')
  # MODULE:FUNCTION of who is called script, gog_jax/evaluation/scripts.py.
  c.script = ''
  # Items that the infrastructure failed are asked again when the same command
  # is given again; else they are counted.
  c.retry_errors = True
  return c


def instruct() -> ConfigDict:
  """The GoG-Instruct builder, see gog_jax/instruct."""
  c = ConfigDict()
  # Where questions come from, see gog_jax/questions/sources.py: 'world', the
  # embedded world's train split; KIND:PATH, e.g. 'jsonl:FILE'; or a function,
  # 'FILE.py:NAME'. They are taken in turn where there are several.
  c.sources = ('world',)
  # Who answers: 'remote', a model behind an endpoint; 'expert', the world's,
  # who knows its own questions only; 'model', the one in model.path as it is;
  # or what the run in --workdir has trained, as 'sft' and 'rl'.
  c.teacher = 'expert'
  c.n = 256  # Samples of the set,
  c.no_search = 0.435  # of which this share does not search (the paper's).
  c.fewer = False  # Where a kind is short, a smaller set of the same shares.
  # Questions that are asked at most, in whole chunks: no more than it takes.
  c.n_queries = 2048
  c.chunk = 64  # Questions asked before it is seen whether that is enough.
  # The uncertainty filter: direct answers without tools. A question of which
  # all are right is too easy. 0 asks none.
  c.n_direct = 4
  c.direct_temperature = 1.0  # Of a remote teacher's.
  c.easy = 'keep'  # As samples that do not search; or 'drop'.
  c.samples = 2  # Trajectories tried of a question, until one passes.
  c.gold = 'any'  # How many gazes must hit a gold region: 'any', 'each', 'off'.
  c.gold_iou = 0.5  # Overlap from which a gaze hits.
  c.evidence = True  # Where it searched, an answer must stand in the results.
  c.repeats = True  # Whether a call may be made twice.
  # How often a conversation that the infrastructure spoilt is begun anew, and
  # the share of a chunk's questions that may stay spoilt.
  c.retries = 8
  c.most_errors = 0.1
  c.concurrency = 16  # Conversations with a remote teacher at a time.
  c.n_review = 50  # Samples on the review page.
  c.review = ''  # The file which that page has exported.
  c.licence = ''  # What the data card says of it.
  return c


def judge() -> ConfigDict:
  """A judge of answers, asked where reward.accuracy is 'judge'."""
  c = ConfigDict()
  c.url = ''  # Of an OpenAI-compatible endpoint: http://127.0.0.1:8080/v1.
  c.model = ''  # Its name at the endpoint.
  c.key_variable = 'OPENAI_API_KEY'  # Of the environment, that holds its key.
  c.timeout_s = 120.0  # Of a verdict, all attempts together.
  c.max_attempts = 4  # Where a failure, or a reply without verdict, may pass.
  c.temperature = 0.0  # Negative leaves it to the endpoint.
  c.max_tokens = 1024  # Of a reply, thoughts included.
  c.concurrency = 8  # Answers that are judged at a time.
  c.prompt = ''  # A file; empty is gog_jax/prompts/judge.txt.
  c.cache = ''  # A file of verdicts; empty is WORKDIR/verdicts.sqlite.
  # Share of the answers asked about that must get a verdict: below, the run
  # stops.
  c.min_success = 0.95
  c.max_answer_characters = 1000  # Longer ones are wrong: no lists of guesses.
  c.price_in = 0.0  # US dollars per million tokens of prompts
  c.price_out = 0.0  # and of replies.
  c.max_spend = 0.0  # US dollars, over all the starts of the run.
  c.ledger = ''  # Where they are written down: WORKDIR/judge_spent.jsonl.
  return c


def add_sft_data(sft: ConfigDict) -> None:
  """Training data of one's own, in place of the expert's demos."""
  # A TFDS set of trajectories, a folder with trajectories.jsonl, or a file of
  # LLaMA-Factory's ShareGPT or ms-swift's messages; '' is the demos.
  sft.data = ''
  sft.epochs = 0.0  # Times that `data` is gone through; 0 is `steps` steps.
  sft.data_workers = 0  # Processes that read it; 0 is a thread.


def log() -> ConfigDict:
  """Where metrics go beside metrics.jsonl and TensorBoard's events/."""
  c = ConfigDict()
  # A project at Weights & Biases, if any; needs pip install wandb. Its own
  # variables hold: WANDB_MODE=offline, WANDB_ENTITY, WANDB_API_KEY.
  c.wandb = ''
  return c
