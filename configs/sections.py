"""Sections of `common.py`'s config that are long enough to stand apart."""

from ml_collections import ConfigDict


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


def add_sft_data(sft: ConfigDict) -> None:
  """Training data of one's own, in place of the expert's demos."""
  # A TFDS set of trajectories, a folder with trajectories.jsonl, or a file of
  # LLaMA-Factory's ShareGPT or ms-swift's messages; '' is the demos.
  sft.data = ''
  sft.epochs = 0.0  # Times that `data` is gone through; 0 is `steps` steps.
  sft.data_workers = 0  # Processes that read it; 0 is a thread.
