"""Writes what a stage has trained as a folder that others load."""

from __future__ import annotations

import dataclasses
import os
import shlex
from typing import Any

from etils import epath
from flax import nnx

from gog_jax import models
from gog_jax.app import model_card
from gog_jax.config import paradigms
from gog_jax.config.evaluation import ExportConfig
from gog_jax.config.pages import ExportPage
from gog_jax.errors import UserError
from gog_jax.evaluation import policies
from gog_jax.models import hf_files
from gog_jax.models import start as start_lib
from gog_jax.run import Run
from gog_jax.storage import files
from gog_jax.storage import manifest
from gog_jax.storage import metrics

# What belongs to tokenizer and processors, and is copied where it is there.
_COPIED = (
    'tokenizer.json', 'tokenizer_config.json', 'special_tokens_map.json',
    'added_tokens.json', 'vocab.json', 'merges.txt', 'chat_template.json',
    'chat_template.jinja', 'preprocessor_config.json', 'processor_config.json',
    'video_preprocessor_config.json', 'generation_config.json',
)  # fmt: skip
_CHOOSE = 'make room, or choose another folder with --config.export.folder'
# Below this share of the adapters' effect, a user is told.
_WHOLE = 0.99
# What vLLM takes for --max-lora-rank.
_VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)


def export(config: ExportPage, workdir: epath.Path) -> None:
  """Writes the folder, and says what to type to serve it.

  A kill leaves no folder, but what was written of it in FOLDER.partial.

  Raises:
    UserError: The folder holds something or cannot be written; the stage is
      not complete, or has no adapter where one is wanted.
  """
  c = config.export
  folder = _new(c.folder)
  run = policies.trained_run(config, workdir, c.stage)
  policy = paradigms.parse(c.stage, config.arms)
  made = manifest.read(workdir / policy.stage) if policy.stage else {}
  adapts = made.get('config', {}).get('trainable') == 'lora'
  if c.format == 'adapter' and not adapts:
    raise UserError(
        f'{c.stage} has no adapter, only weights of its own: pass '
        '--config.export.format=merged'
    )
  began = made.get('config', {}).get('rl', {}).get('init', paradigms.BASE)
  weights, _ = start_lib.weights_of(began, run.model_folder)
  # Nothing is rounded before it is written.
  exact = c.dtype if made and not adapts else _dtype_of(weights)
  run = run.with_config(
      dataclasses.replace(
          run.config, model=dataclasses.replace(run.config.model, dtype=exact)
      )
  )
  model = run.load_model(policy.stage, params=policy.params)
  hub_id = model_card.hub_id(run)
  base = str(weights.resolve())
  if hub_id and '@' not in hub_id and weights == run.model_folder:
    base = hub_id
  rollout = made.get('config', {}).get('rollout', vars(run.config.rollout))
  context = rollout['max_context']
  kept = 1.0
  metrics.say(f'export: writes {c.stage}, {c.format}, for {folder}')
  partial = folder.with_name(f'{folder.name}.partial')
  with files.writable(folder, _CHOOSE):
    partial.rmtree(missing_ok=True)
    partial.mkdir(parents=True)
    if c.format == 'adapter':
      models.save_adapters(model, partial, base=base)
    else:
      kept = models.save_pretrained(model, partial, dtype=c.dtype)
      raw = files.read_json(run.model_folder / 'config.json', advice=_CHOOSE)
      raw = _in_dtype({'dtype': '', **raw}, c.dtype)
      files.write_json(partial / 'config.json', raw)
    _copy_others(run, partial)
    shown = serving(c, model, 'FOLDER', hub_id or 'BASE', context)
    card = model_card.write(run, made, kept=kept, serving=shown)
    files.write_atomic(partial / 'README.md', card)
    os.replace(partial, folder)  # Where an empty one is, too.
  if kept < _WHOLE:
    metrics.say(
        f'export: {kept:.0%} of what the adapters add is left in {c.dtype}; '
        '--config.export.dtype=float32 or --config.export.format=adapter '
        'keeps all of it'
    )
  metrics.say(f'export: {c.stage} is in {folder}; the license in its README.md '
              'is yours to fill in. To serve it, one of:')
  print('\n'.join(serving(c, model, str(folder), base, context)))


def serving(
    c: ExportConfig, model: models.VLM, folder: str, base: str, context: int
) -> list[str]:
  """Commands that serve a folder: vLLM's, then SGLang's.

  Args:
    c: How it was written.
    model: With the adapters, if it has any.
    folder: Where it is.
    base: What an adapter is put on.
    context: Tokens of a conversation.
  """
  adapter = c.format == 'adapter'
  path, dtype = shlex.quote(folder), '' if adapter else f' --dtype {c.dtype}'
  served = shlex.quote(base) if adapter else path
  vllm = f'vllm serve {served}{dtype} --max-model-len {context}'
  sglang = (
      f'python -m sglang.launch_server --model-path {served}{dtype} '
      f'--context-length {context}'
  )
  if not adapter:
    return [vllm, sglang]
  ranks = {  # By tower; of the vision tower's qkv see peft_files.
      path[0]: leaf.get_value().shape[-1]
      for path, leaf in nnx.to_flat_state(nnx.state(model, nnx.LoRAParam))
      if path[-1] == 'lora_a'
  }
  rank = max(ranks['text'], 3 * ranks.get('vision', 0))
  rank = next((n for n in _VLLM_RANKS if n >= rank), rank)
  vision = ' --enable-tower-connector-lora' if 'vision' in ranks else ''
  return [
      f'{vllm} --enable-lora --max-lora-rank {rank}{vision} '
      f'--lora-modules {c.stage}={path}',
      f'{sglang} --enable-lora --lora-paths {c.stage}={path}',
  ]


def _new(path: str) -> epath.Path:
  """The folder that is to be.

  Raises:
    UserError: It is not local, or holds something.
  """
  if '://' in path:
    raise UserError(
        f'--config.export.folder={path} is not on this machine: export to a '
        'local folder, and copy that'
    )
  folder = epath.Path(path).resolve()
  if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
    raise UserError(
        f'--config.export.folder={path} is there already: choose another, or '
        'delete it'
    )
  return folder


def _dtype_of(folder: epath.Path) -> str:
  """Of a model folder's weights; float32 where they are several."""
  dtypes = {tensor.dtype for tensor in hf_files.tensors(folder)}
  return 'bfloat16' if dtypes == {'BF16'} else 'float32'


def _in_dtype(raw: dict[str, Any], dtype: str) -> dict[str, Any]:
  """The base's own config.json, which may hold more than we read."""
  inner = {
      name: _in_dtype(value, dtype) if isinstance(value, dict) else value
      for name, value in raw.items()
  }
  named = {name: dtype for name in ('dtype', 'torch_dtype') if name in inner}
  return inner | named


def _copy_others(run: Run, folder: epath.Path) -> None:
  """Tokenizer, processor, chat template and generation settings.

  Images are no larger than those it was trained on, wherever it is served.
  """
  for name in _COPIED:
    if (source := run.model_folder / name).exists():
      (folder / name).write_bytes(source.read_bytes())
  for name in ('preprocessor_config.json', 'processor_config.json'):
    if not (path := folder / name).exists():
      continue
    raw = files.read_json(path, advice='fetch the base again')
    own = raw.get('image_processor', raw)
    least, most = run.processor.min_pixels, run.processor.max_pixels
    own['size'] = {'shortest_edge': least, 'longest_edge': most}
    own |= {'min_pixels': least, 'max_pixels': most}
    files.write_json(path, raw)
  if not (path := folder / 'generation_config.json').exists():
    ends = list(run.chat.stop_ids)
    files.write_json(path, {'eos_token_id': ends, 'pad_token_id': ends[-1]})
