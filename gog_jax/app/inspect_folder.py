"""What a model folder holds, and what will and won't work with it.

The verdicts are those of loading itself: each check calls what a run calls.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import math
from typing import TypeVar

from etils import epath

from gog_jax.chat import protocol
from gog_jax.chat.codec import Codec
from gog_jax.chat.dialect import load_dialect
from gog_jax.chat.template import load_template
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
_COPY = "copy it from the model's page"
_SAMPLING = ('temperature', 'top_p', 'top_k', 'repetition_penalty')

_T = TypeVar('_T')


@dataclasses.dataclass
class Findings:
  """What was found.

  Attributes:
    facts: (name, text) in the order of the report.
    checks: (whether it will work, what, and how to mend what will not).
  """

  facts: list[tuple[str, str]] = dataclasses.field(default_factory=list)
  checks: list[tuple[bool, str]] = dataclasses.field(default_factory=list)

  def fact(self, name: str, text: str) -> None:
    self.facts.append((name, text))

  def check(self, passed: str, load: Callable[[], _T]) -> _T | None:
    """What `load` returns; None, and its one line, where it refuses.

    Args:
      passed: Said of a success, formatted with the result; '' says nothing.
      load: What loading calls.
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
    width = max((len(name) for name, _ in self.facts), default=0)
    lines = [f'  {name:{width}}  {text}' for name, text in self.facts]
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
  found = Findings()
  found.fact('folder', str(folder))
  if 'adapter_config.json' in names:
    found.check('', lambda: _adapter(found, folder))
    if 'config.json' not in names:
      return found
  config = found.check(
      'config.json: a {0.family} model', lambda: hf_config.read_config(folder)
  )
  if config is not None:
    _architecture(found, config)
  tensors = found.check('', lambda: hf_files.tensors(folder))
  if tensors is not None:
    _weights(found, tensors)
    if config is not None:
      found.check(
          'weights: those that config.json describes, and of its shapes',
          lambda: hf_params.check(folder, config),
      )
  codec = found.check('', lambda: Codec(folder))
  if codec is not None:
    _tokenizer(found, codec, config)
  processor = found.check('', lambda: ImageProcessor.from_folder(folder))
  if processor is not None:
    _images(found, processor, config)
  opening = found.check('', lambda: _template(found, folder)) or ''
  found.check('', lambda: _generation(found, folder))
  if config is not None:
    box = FAMILIES[config.family].box
    found.fact('boxes', f'in {box.replace("_", " ")} (model.box={box})')
    small = codec is not None and codec.vocab_size < 2048
    found.fact('profile', 'toy' if small else _profile(config, bool(opening)))
  return found


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


def _architecture(found: Findings, config: VLMConfig) -> None:
  text, vision = config.text, config.vision
  found.fact(
      'architecture',
      f'{config.family}: {text.n_layers} layers of width {text.width}, '
      f'{text.n_heads} heads, {text.n_kv_heads} of keys and values; ViT '
      f'{vision.n_layers} layers of width {vision.width}',
  )
  found.fact(
      'vocabulary',
      f'{text.vocab_size} rows; the output head is '
      + ('the embedding (tied)' if config.tied else 'its own (untied)'),
  )
  sizes = {'text': 0, 'vision': 0}
  for entry in hf_table.table(config):
    n = max(entry.n_layers, 1) * math.prod(entry.shape)
    sizes[entry.path[0]] += n // entry.part[1]
  total = sum(sizes.values())
  found.fact(
      'parameters',
      f'{_count(total)} ({_count(sizes["text"])} text, '
      f'{_count(sizes["vision"])} vision): {_bytes(2 * total)} in bfloat16, '
      f'{_bytes(4 * total)} in float32',
  )


def _weights(found: Findings, tensors: list[hf_files.Tensor]) -> None:
  by_type: dict[str, int] = {}
  for tensor in tensors:
    by_type[tensor.dtype] = by_type.get(tensor.dtype, 0) + tensor.n_bytes
  kinds = ', '.join(f'{kind} {_bytes(n)}' for kind, n in by_type.items())
  n_files = len({tensor.path for tensor in tensors})
  found.fact(
      'weights',
      f'{n_files} file{"s" * (n_files > 1)}, {len(tensors)} tensors: {kinds}',
  )


def _tokenizer(
    found: Findings, codec: Codec, config: VLMConfig | None
) -> None:
  tags = [tag for tag in protocol.TAGS if codec.id_of(tag) is not None]
  as_text = [tag for tag in protocol.TAGS if tag not in tags]
  found.fact(
      'tokenizer',
      f'{codec.vocab_size} ids; one token each: {" ".join(tags) or "no tag"}'
      + (f'; spelled as text: {" ".join(as_text)}' if as_text else ''),
  )
  found.check(
      'tokenizer: all control tokens of messages and images', codec.check
  )
  if config is not None:
    found.check(
        'tokenizer: its ids are those of config.json',
        lambda: config.check_tokenizer(codec.vocab_size, codec.id_of),
    )


def _images(
    found: Findings, processor: ImageProcessor, config: VLMConfig | None
) -> None:
  unit = processor.unit
  high = processor.max_pixels
  low = min(processor.min_pixels, high)
  found.fact(
      'images',
      f'patches of {processor.patch_size} pixels, {unit} x {unit} a token; '
      f'{low} to {high} pixels, {low // unit**2} to {high // unit**2} tokens '
      '(model.max_image_tokens lowers it)',
  )
  if config is not None:
    found.check(
        'images: the processor cuts patches as the ViT reads them',
        lambda: config.vision.check_processor(processor),
    )


def _template(found: Findings, folder: epath.Path) -> str:
  """What the template begins the policy's messages with."""
  template = load_template(folder)
  if template is None:
    found.fact('chat template', "none: the dialect's own system message")
    return ''
  found.fact(
      'chat template',
      f'{epath.Path(template.where).name}: '
      + ('describes tools' if template.knows_tools()
         else 'knows no tools, the dialect does')
      + '; images in the replies of tools: '
      + ('yes' if template.takes_replies(images=True) else 'no, ours'),
  )  # fmt: skip
  opening = template.opening()
  if opening:
    found.fact(
        'thinking',
        f'every message begins with {opening!r}, which is not trained. '
        "Unverified: the structure is Qwen3's, no copy of Qwen3-VL-Thinking's "
        'own template was at hand',
    )
  dialect = load_dialect('qwen3_vl_thinking' if opening else 'qwen3_vl')
  found.check(
      f'chat: the template writes messages as dialect {dialect.name} does',
      lambda: template.check(dialect),
  )
  return opening


def _generation(found: Findings, folder: epath.Path) -> None:
  path = folder / 'generation_config.json'
  if not path.exists():
    return
  raw = files.read_json(path, advice=_COPY)
  shown = [f'{name} {raw[name]}' for name in _SAMPLING if name in raw]
  if shown:
    found.fact(
        'generation',
        f'{", ".join(shown)}: ignored; training samples at temperature 1, '
        'evaluation takes the most likely token',
    )


def _adapter(found: Findings, folder: epath.Path) -> None:
  raw = files.read_json(folder / 'adapter_config.json', advice=_COPY)
  base = raw.get('base_model_name_or_path') or 'a base it does not name'
  found.fact(
      'adapter',
      f'{raw.get("peft_type", "adapter")} of rank {raw.get("r", "?")}, alpha '
      f'{raw.get("lora_alpha", "?")}, on {base}',
  )
  raise UserError(
      f'an adapter is no model by itself: merge it into {base} '
      '(models.load_adapters, merge_lora, save_pretrained) and give that folder'
  )


def _count(n: int) -> str:
  return f'{n / 1e9:.2f} B' if n >= 1e9 else f'{n / 1e6:.2f} M'


def _bytes(n: int) -> str:
  return f'{n / 1e9:.2f} GB' if n >= 1e9 else f'{n / 1e6:.2f} MB'
