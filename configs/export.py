"""What was trained, as a folder that others load: whole, or as an adapter.

    python -m gog_jax.main --config=configs/export.py --workdir=runs/toy \
      --config.export.folder=my_agent
    python -m gog_jax.main --config=configs/export.py:qwen3_vl_8b \
      --config.export.stage=sft --config.export.folder=my_adapter \
      --config.export.format=adapter

`export.stage` is sft, sft_no_gaze, rl, an arm of it or base, of the run in
--workdir; how it was trained is read there. `export.format` is merged, a model
folder for transformers, vLLM and SGLang, or adapter, for peft. Tokenizer,
processor, chat template, generation settings and a model card go along. The
folder must be new, or empty; it is there when all of it is.

Adapters are merged in float32. In `export.dtype=bfloat16` the folder is half as
large, and less than the whole of a small adapter's effect is in it: how much is
said.
"""

from ml_collections import ConfigDict

from gog_jax.config import sibling

common = sibling(__file__, 'common')


def get_config(profile: str = 'toy'):
  c = common.get_base(profile)
  c.stage = 'export'
  c.seeds = ()
  c.export = ConfigDict({
      'stage': 'rl', 'folder': '', 'format': 'merged', 'dtype': 'float32',
  })  # fmt: skip
  return c
