"""One question about one image, told on the terminal and on a web page.

    python -m gog_jax.main --config=configs/ask.py \
      --config.image=photo.jpg --config.question="Who built this?" \
      --config.policy=remote --config.remote.url=http://127.0.0.1:8080/v1 \
      --config.remote.model=NAME \
      --config.tools.backend=index --config.tools.index=DIR
    python -m gog_jax.main --config=configs/ask.py:qwen3_vl_8b \
      --config.model.path=FOLDER --config.image=... --config.question=...
    python -m gog_jax.main --config=configs/ask.py --config.policy=rl \
      --workdir=runs/toy --config.image=... --config.question=...

Who is asked is `policy`:

    remote    a vision model behind an OpenAI-compatible endpoint (vLLM, SGLang,
              llama.cpp's server, Ollama, a vendor), told the method in words.
              Its key, if it wants one, is read from the variable of the
              environment that remote.key_variable names, and sent to
              remote.url; it is in no flag, no output and no file.
    model     the model in --config.model.path as it is
    sft, rl   what that stage of the run in --workdir has trained, as also the
              others that configs/eval.py compares

A remote model needs no folder of its own: the toy's tokenizer serves to keep
the record, and whatever you do not set is as a general model needs it. With a
published profile and its folder, that profile's prompts and limits are used:
for the same model, served by another machine.

Everything goes into WORKDIR/ask/NUMBER: index.html, and trajectories.jsonl and
examples.jsonl with their images. Without --workdir that is runs/PROFILE, as on
the other pages, so that trained policies are found there. Of a run of several
seeds, pass the folder of one.
"""

from ml_collections import ConfigDict
from ml_collections import FieldReference

from configs import common

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
    follows = not self._given and self._policy.get() == 'remote'
    return self._remote if follows else super().get()


def get_config(profile: str = 'toy'):
  c = common.get_base(profile)
  c.stage = 'ask'
  c.image = ''  # A file: PNG, JPEG, WebP, ...
  c.question = ''
  own_weights = not c.model.path  # A published profile.
  c.policy = 'model' if own_weights else 'remote'
  c.scope = ''  # Which world or corpus is searched; the backend says which.
  c.page = ''  # Where the page goes, if not beside the record.
  c.seeds = ()
  c.sampler.n_slots = 1
  c.remote = ConfigDict()  # See rollout/endpoint.py.
  c.remote.url = ''
  c.remote.model = ''
  c.remote.key_variable = 'OPENAI_API_KEY'
  c.remote.timeout_s = 300.0  # Of a message, all attempts together.
  c.remote.max_attempts = 4  # Where a failure may be gone soon.
  c.remote.temperature = 0.0  # Negative leaves it to the endpoint.
  c.remote.max_tokens = 4096  # Of a message; 0 leaves it to the endpoint.
  if not own_weights:
    policy = c.get_ref('policy')
    for field, remote in _REMOTE.items():
      section, name = field.split('.')
      default = _Default(c[section][name], remote=remote, policy=policy)
      del c[section][name]
      c[section][name] = default
  return c
