"""What a model folder holds, and what will and won't work with it.

The verdicts are those of loading itself: each check calls what a run calls.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
import dataclasses
import math
from typing import Any, TypeVar

from etils import epath

from gog_jax.chat import protocol
from gog_jax.chat.codec import Codec
from gog_jax.chat.dialect import load_dialect
from gog_jax.chat.template import load_template
from gog_jax.chat.template import Template
from gog_jax.errors import UserError
from gog_jax.images import ImageProcessor
from gog_jax.models import hf_config
from gog_jax.models import hf_files
from gog_jax.models import hf_params
from gog_jax.models import hf_table
from gog_jax.models.config import VLMConfig
from gog_jax.models.families import FAMILIES
from gog_jax.storage import files

# A folder with a file that ends so is one to look at.
_SIGNS = (
    'config.json',
    'tokenizer.json',
    'index.json',
    '.safetensors',
    '.bin',
    '.gguf',
)
_SAMPLING = ('temperature', 'top_p', 'top_k', 'repetition_penalty')

_T = TypeVar('_T')


@dataclasses.dataclass
class Findings:
  """What was found.

  Attributes:
    facts: Name to text, in the order of the report.
    checks: (whether it will work, what, and how to mend what will not).
  """

  facts: dict[str, str] = dataclasses.field(default_factory=dict)
  checks: list[tuple[bool, str]] = dataclasses.field(default_factory=list)

  def check(self, load: Callable[[], _T], passed: str = '') -> _T | None:
    """What `load` returns; None, and its one line, where it refuses.

    Args:
      load: What loading calls.
      passed: Said of a success, formatted with the result; '' says nothing.
    """
    try:
      result = load()
    except UserError as error:
      self.checks.append((False, ' '.join(str(error).split())))
      return None
    if passed:
      self.checks.append((True, passed.format(result)))
    return result

  def __str__(self) -> str:
    width = max(map(len, self.facts))
    lines = [f'  {name:{width}}  {text}' for name, text in self.facts.items()]
    lines += ['']
    lines += [f'  {"OK" if ok else "NO"}  {text}' for ok, text in self.checks]
    return '\n'.join(lines)


def inspect(folder: epath.PathLike) -> Findings:
  """Looks at a model folder, as far as it goes; writes nothing.

  Raises:
    UserError: It holds nothing that a model folder holds.
  """
  folder = epath.Path(folder)
  names = {path.name for path in folder.iterdir()}
  if not any(name.endswith(_SIGNS) for name in names):
    raise UserError(
        f'{folder} is not a model folder (no config.json, weights or '
        'tokenizer): check --config.model.path'
    )
  found = Findings(facts={'folder': str(folder)})
  if 'adapter_config.json' in names:
    found.check(lambda: _adapter(found, _json(folder, 'adapter_config.json')))
    if 'config.json' not in names:
      return found
  config = found.check(
      lambda: hf_config.read_config(folder), 'config.json: a {0.family} model'
  )
  if config is not None:
    found.facts |= _architecture(config)
  tensors = found.check(lambda: hf_files.tensors(folder))
  if tensors is not None:
    found.facts['weights'] = _weights(tensors)
    if config is not None:
      found.check(
          lambda: hf_params.check(folder, config),
          'weights: those that config.json describes, and of its shapes',
      )
  codec = found.check(lambda: Codec(folder))
  if codec is not None:
    found.facts['tokenizer'] = _tokenizer(codec)
    found.check(
        codec.check, 'tokenizer: all control tokens of messages and images'
    )
    if config is not None:
      found.check(
          lambda: config.check_tokenizer(codec.vocab_size, codec.id_of),
          'tokenizer: its ids are those of config.json',
      )
  processor = found.check(lambda: ImageProcessor.from_folder(folder))
  if processor is not None:
    found.facts['images'] = _images(processor)
    if config is not None:
      found.check(
          lambda: config.vision.check_processor(processor),
          'images: the processor cuts patches as the ViT reads them',
      )
  thinks = found.check(lambda: _template(found, load_template(folder)))
  if 'generation_config.json' in names:
    found.check(
        lambda: _generation(found, _json(folder, 'generation_config.json'))
    )
  if config is not None:
    box = FAMILIES[config.family].box
    found.facts['boxes'] = f'in {box.replace("_", " ")} (model.box={box})'
    small = codec is not None and codec.vocab_size < 2048
    found.facts['profile'] = 'toy' if small else _profile(config, bool(thinks))
  return found


def _json(folder: epath.Path, name: str) -> dict[str, Any]:
  return files.read_json(folder / name, advice="copy it from the model's page")


def _profile(config: VLMConfig, thinks: bool) -> str:
  """The profile of the published model of this size, or of the smallest."""
  widths = {}
  for path in hf_config.PUBLISHED.iterdir():
    published = hf_config.published_config(path.name)
    if published.family == config.family:
      widths[published.text.width] = path.name
  if not widths:
    return 'none is made for this family'
  width = config.text.width
  name = widths.get(width, widths[min(widths)])
  if thinks:
    name += '_thinking'
  if width not in widths:
    name += ' (no profile has this size: its memory and rates are a guess)'
  return name


def _architecture(config: VLMConfig) -> dict[str, str]:
  text, vision = config.text, config.vision
  head = 'the embedding (tied)' if config.tied else 'its own (untied)'
  sizes = {'text': 0, 'vision': 0}
  for entry in hf_table.table(config):
    n = max(entry.n_layers, 1) * math.prod(entry.shape)
    sizes[entry.path[0]] += n // entry.part[1]
  total = sum(sizes.values())
  return {
      'architecture': (
          f'{config.family}: {text.n_layers} layers of width {text.width}, '
          f'{text.n_heads} heads, {text.n_kv_heads} of keys and values; ViT '
          f'{vision.n_layers} layers of width {vision.width}'
      ),
      'vocabulary': f'{text.vocab_size} rows; the output head is {head}',
      'parameters': (
          f'{_count(total)} ({_count(sizes["text"])} text, '
          f'{_count(sizes["vision"])} vision): {_bytes(2 * total)} in '
          f'bfloat16, {_bytes(4 * total)} in float32'
      ),
  }


def _weights(tensors: list[hf_files.Tensor]) -> str:
  by_type = collections.Counter()
  for tensor in tensors:
    by_type[tensor.dtype] += tensor.n_bytes
  kinds = ', '.join(f'{kind} {_bytes(n)}' for kind, n in by_type.items())
  n_files = len({tensor.path for tensor in tensors})
  plural = 's' * (n_files > 1)
  return f'{n_files} file{plural}, {len(tensors)} tensors: {kinds}'


def _tokenizer(codec: Codec) -> str:
  tags = [tag for tag in protocol.TAGS if codec.id_of(tag) is not None]
  as_text = [tag for tag in protocol.TAGS if tag not in tags]
  return (
      f'{codec.vocab_size} ids; one token each: {" ".join(tags) or "no tag"}'
      + (f'; spelled as text: {" ".join(as_text)}' if as_text else '')
  )


def _images(processor: ImageProcessor) -> str:
  unit = processor.unit
  high = processor.max_pixels
  low = min(processor.min_pixels, high)
  return (
      f'patches of {processor.patch_size} pixels, {unit} x {unit} a token; '
      f'{low} to {high} pixels, {low // unit**2} to {high // unit**2} tokens '
      '(model.max_image_tokens lowers it)'
  )


def _template(found: Findings, template: Template | None) -> bool:
  """Whether the template begins the policy's messages with a thought."""
  if template is None:
    found.facts['chat template'] = "none: the dialect's own system message"
    return False
  tools = 'knows no tools, the dialect does'
  if template.knows_tools():
    tools = 'describes tools'
  images = 'yes' if template.takes_replies(images=True) else 'no, ours'
  found.facts['chat template'] = (
      f'{epath.Path(template.where).name}: {tools}; images in the replies of '
      f'tools: {images}'
  )
  opening = template.opening()
  if opening:
    found.facts['thinking'] = (
        f'every message begins with {opening!r}, which is not trained. '
        "Unverified: the structure is Qwen3's, no copy of Qwen3-VL-Thinking's "
        'own template was at hand'
    )
  dialect = load_dialect('qwen3_vl_thinking' if opening else 'qwen3_vl')
  found.check(
      lambda: template.check(dialect),
      f'chat: the template writes messages as dialect {dialect.name} does',
  )
  return bool(opening)


def _generation(found: Findings, raw: dict[str, Any]) -> None:
  shown = [f'{name} {raw[name]}' for name in _SAMPLING if name in raw]
  if shown:
    found.facts['generation'] = (
        f'{", ".join(shown)}: ignored; training samples at temperature 1, '
        'evaluation takes the most likely token'
    )


def _adapter(found: Findings, raw: dict[str, Any]) -> None:
  base = raw.get('base_model_name_or_path') or 'a base it does not name'
  found.facts['adapter'] = (
      f'{raw.get("peft_type", "adapter")} of rank {raw.get("r", "?")}, alpha '
      f'{raw.get("lora_alpha", "?")}, on {base}'
  )
  raise UserError(
      f'an adapter is no model by itself: merge it into {base} '
      '(models.load_adapters, save_pretrained) and give that folder'
  )


def _count(n: int) -> str:
  return f'{n / 1e9:.2f} B' if n >= 1e9 else f'{n / 1e6:.2f} M'


def _bytes(n: int) -> str:
  return f'{n / 1e9:.2f} GB' if n >= 1e9 else f'{n / 1e6:.2f} MB'
