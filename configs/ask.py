"""One question about one image, told on the terminal and on a web page.

    python -m gog_jax.main --config=configs/ask.py \
      --config.image=photo.jpg --config.question="Who built this?" \
      --config.policy=remote --config.remote.url=http://127.0.0.1:8080/v1 \
      --config.remote.model=NAME \
      --config.tools.backend=index --config.tools.index=DIR
    python -m gog_jax.main --config=configs/ask.py:qwen3_vl_8b \
      --config.model.path=FOLDER --config.image=... --config.question=... \
      --config.tools.backend=index --config.tools.index=DIR
    python -m gog_jax.main --config=configs/ask.py --config.policy=rl \
      --workdir=runs/toy --config.image=... --config.question=... \
      --config.scope=SCOPE

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

from gog_jax.config import sibling

common = sibling(__file__, 'common')


def get_config(profile: str = 'toy'):
  c = common.get_base(profile)
  c.stage = 'ask'
  c.image = ''
  c.question = ''
  # A published profile has weights of its own, the toy's base knows nothing.
  c.policy = 'remote' if c.model.path else 'model'
  c.scope = ''
  c.page = ''
  c.seeds = ()
  c.sampler.n_slots = 1
  return c
