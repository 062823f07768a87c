"""What a model folder holds, and what will and won't work with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import contextlib
import dataclasses
import json
import math
from typing import Any

from etils import epath
from flax import nnx
import jax
import jax.numpy as jnp

from gog_jax import models
from gog_jax.boxes import FRAMES
from gog_jax.chat import protocol
from gog_jax.chat.codec import Codec
from gog_jax.chat.codec import NEEDED
from gog_jax.chat.template import load_template
from gog_jax.errors import UserError
from gog_jax.images import ImageProcessor
from gog_jax.models import hf_config
from gog_jax.models import hf_files
from gog_jax.models import hf_params
from gog_jax.models import hf_table
from gog_jax.models.config import VLMConfig

# By family and width: published models, and the profile made for each.
_PROFILES = {
    ('qwen2_5_vl', 2048): 'qwen2_5_vl_3b',
    ('qwen2_5_vl', 3584): 'qwen2_5_vl_7b',
    ('qwen3_vl', 2048): 'qwen3_vl_2b',
    ('qwen3_vl', 2560): 'qwen3_vl_4b',
    ('qwen3_vl', 4096): 'qwen3_vl_8b',
}
# Where a size has no profile of its own.
_SMALLEST = {'qwen2_5_vl': 'qwen2_5_vl_3b', 'qwen3_vl': 'qwen3_vl_2b'}
_BOX_FRAMES = {
    'qwen2_5_vl': 'pixels of the image as the model sees it, resized',
    'qwen3_vl': "thousandths of the image's width and height",
}
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

  def check(self, works: bool, yes: str, no: str) -> None:
    self.checks.append((works, yes if works else no))

  @contextlib.contextmanager
  def looking(self) -> Iterator[None]:
    """What a user can mend is one more finding, not the end."""
    try:
      yield
    except UserError as error:
      self.checks.append((False, ' '.join(str(error).split())))

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
        f'{folder} is not a model folder: it holds neither config.json, '
        'weights nor a tokenizer; check --config.model.path'
    )
  found = Findings()
  found.fact('folder', str(folder))
  if 'adapter_config.json' in names:
    _adapter(found, folder)
    if 'config.json' not in names:
      return found
  config = None
  with found.looking():
    config = hf_config.from_folder(folder)
    found.check(True, f'config.json: a {config.family} model', '')
  if config is not None:
    _architecture(found, config)
  _weights(found, folder, config)
  codec = None
  with found.looking():
    codec = Codec(folder)
  if codec is not None:
    _tokenizer(found, codec, config)
  with found.looking():
    _images(found, ImageProcessor.from_folder(folder), config)
  opening = ''
  with found.looking():
    opening = _template(found, folder)
  with found.looking():
    _generation(found, folder)
  if config is not None:
    found.fact('boxes', _BOX_FRAMES[config.family]
               + f' (model.box={FRAMES[config.family]})')  # fmt: skip
    small = codec is not None and codec.vocab_size < 2048
    found.fact('profile', 'toy' if small else _profile(config, opening))
  return found


def _profile(config: VLMConfig, opening: str) -> str:
  exact = _PROFILES.get((config.family, config.text.width))
  name = exact or _SMALLEST[config.family]
  if opening:
    name += '_thinking'
  if exact is None:
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
  for path, shape in _shapes(config).items():
    sizes[path[0]] += math.prod(shape.shape)
  total = sum(sizes.values())
  found.fact(
      'parameters',
      f'{_count(total)} ({_count(sizes["text"])} text, '
      f'{_count(sizes["vision"])} vision): {_bytes(2 * total)} in bfloat16, '
      f'{_bytes(4 * total)} in float32',
  )


def _shapes(config: VLMConfig) -> dict[hf_table.Path, jax.ShapeDtypeStruct]:
  state = nnx.state(models.abstract(config, dtype=jnp.float32))
  return {path: x.get_value() for path, x in nnx.to_flat_state(state)}


def _weights(
    found: Findings,
    folder: epath.Path,
    config: VLMConfig | None,
) -> None:
  with found.looking():
    files = hf_files.shards(folder)
    tensors: dict[str, hf_files.Tensor] = {}
    whole = 0
    for path in files:
      with found.looking():
        tensors |= hf_files.read_header(path)
        whole += 1
    by_type: dict[str, int] = {}
    for tensor in tensors.values():
      by_type[tensor.dtype] = by_type.get(tensor.dtype, 0) + tensor.n_bytes
    kinds = ', '.join(f'{kind} {_bytes(n)}' for kind, n in by_type.items())
    found.fact(
        'weights',
        f'{len(files)} file{"s" * (len(files) > 1)}, {len(tensors)} tensors: '
        + (kinds or 'nothing that can be read'),
    )
    if config is None or whole < len(files):
      return
    hf_params.check(folder, config, _shapes(config))
    found.check(
        True, 'weights: those that config.json describes, and of its shapes', ''
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
  missing = [token for token in NEEDED if codec.id_of(token) is None]
  found.check(
      not missing,
      'tokenizer: all control tokens of messages and images',
      f'tokenizer: lacks {" ".join(missing)}; only Qwen-VL tokenizers are '
      'supported',
  )
  if config is None:
    return
  found.check(
      codec.vocab_size <= config.text.vocab_size,
      'tokenizer: every id has a row in the vocabulary',
      f'tokenizer: {codec.vocab_size} ids for {config.text.vocab_size} rows of '
      "the vocabulary; copy tokenizer.json from this very model's page",
  )
  for token, index in (
      ('<|image_pad|>', config.image_token_id),
      ('<|vision_start|>', config.vision_start_token_id),
      ('<|vision_end|>', config.vision_end_token_id),
  ):
    own = codec.id_of(token)
    if own not in (None, index):
      found.check(
          False,
          '',
          f'{token} is {own} in tokenizer.json, {index} in config.json; copy '
          "both from this very model's page",
      )


def _images(
    found: Findings, processor: ImageProcessor, config: VLMConfig | None
) -> None:
  unit = processor.patch_size * processor.merge_size
  low, high = processor.min_pixels, processor.max_pixels
  found.fact(
      'images',
      f'patches of {processor.patch_size} pixels, {unit} x {unit} a token; '
      f'{low} to {high} pixels, {low // unit**2} to {high // unit**2} tokens '
      '(model.max_image_tokens lowers it)',
  )
  if config is None:
    return
  vision = config.vision
  fields = ('patch_size', 'merge_size', 'temporal_patch_size')
  wrong = [
      f'{field} {getattr(processor, field)}, not {getattr(vision, field)}'
      for field in fields
      if getattr(processor, field) != getattr(vision, field)
  ]
  found.check(
      not wrong,
      'images: the processor cuts patches as the ViT reads them',
      f'images: the processor says {", ".join(wrong)} as config.json does; '
      "copy both from this very model's page",
  )


def _template(found: Findings, folder: epath.Path) -> str:
  """What the template begins the policy's messages with."""
  template = load_template(folder)
  if template is None:
    found.fact('chat template', "none: the dialect's own system message")
    found.check(True, 'chat: rendered by the dialect alone', '')
    return ''
  tools = template.knows_tools()
  found.fact(
      'chat template',
      f'{epath.Path(template.where).name}: '
      + ('describes tools' if tools else 'knows no tools, the dialect does')
      + '; images in the replies of tools: '
      + ('yes' if template.takes_replies(images=True) else 'no, ours'),
  )
  opening = template.opening()
  if opening:
    found.fact(
        'thinking',
        f'every message begins with {opening!r}, which is not trained. '
        "Unverified: the structure is Qwen3's, no copy of Qwen3-VL-Thinking's "
        'own template was at hand',
    )
    found.check(
        opening == '<think>\n',
        'chat: the opening of dialect qwen3_vl_thinking',
        f'chat: no dialect opens with {opening!r}; write one, '
        '--config.model.dialect=FILE.json',
    )
  found.check(
      template.shows_images(),
      'chat: the template shows images as we do',
      f'chat: {template.where} shows images otherwise than Qwen-VL models do; '
      'choose --config.model.dialect=gog',
  )
  if tools:
    found.check(
        template.takes_replies(images=False),
        "chat: the template writes tools' replies as we do",
        f"chat: {template.where} writes tools' replies otherwise than in "
        '<tool_response> blocks; choose --config.model.dialect=gog',
    )
  return opening


def _generation(found: Findings, folder: epath.Path) -> None:
  path = folder / 'generation_config.json'
  if not path.exists():
    return
  raw = _read(path)
  settings = {name: raw[name] for name in _SAMPLING if name in raw}
  if settings:
    shown = ', '.join(f'{name} {value}' for name, value in settings.items())
    found.fact(
        'generation',
        f'{shown}: ignored; training samples at temperature 1, evaluation '
        'takes the most likely token',
    )


def _adapter(found: Findings, folder: epath.Path) -> None:
  with found.looking():
    raw = _read(folder / 'adapter_config.json')
    base = raw.get('base_model_name_or_path') or 'a base it does not name'
    found.fact(
        'adapter',
        f'{raw.get("peft_type", "adapter")} of rank {raw.get("r", "?")}, alpha '
        f'{raw.get("lora_alpha", "?")}, on {base}',
    )
    found.check(
        False,
        '',
        f'an adapter is no model by itself: merge it into {base} '
        '(models.load_adapters, merge_lora, save_pretrained) and give that '
        'folder',
    )


def _read(path: epath.Path) -> Mapping[str, Any]:
  try:
    raw = json.loads(path.read_text())
  except (OSError, ValueError) as error:
    raise UserError(f'{path} is not JSON; copy it anew') from error
  if not isinstance(raw, Mapping):
    raise UserError(f'{path} is not a JSON object; copy it anew')
  return raw


def _count(n: int) -> str:
  for unit, name in ((1e9, 'B'), (1e6, 'M')):
    if n >= unit:
      return f'{n / unit:.2f} {name}'
  return str(n)


def _bytes(n: int) -> str:
  for unit, name in ((1e9, 'GB'), (1e6, 'MB')):
    if n >= unit:
      return f'{n / unit:.2f} {name}'
  return f'{n / 1e3:.1f} kB'
