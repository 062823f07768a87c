"""The model card: what it began with, how it was trained, how to talk to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
import json
import pathlib
import re
from typing import Any

from etils import epath

import gog_jax
from gog_jax.config import paradigms
from gog_jax.models.folders import TOY_BASE
from gog_jax.report import text
from gog_jax.run import RunOf
from gog_jax.storage import files
from gog_jax.storage import manifest
from gog_jax.storage import markdown

_ABOUT = (
    'A vision-language agent that looks at an image and decides, turn by turn, '
    'to answer, to search text, to search with the image, or to *gaze*: to '
    'crop a region and search with it '
    '([Glance-or-Gaze](https://arxiv.org/abs/2601.13942)).'
)
_UNKNOWN = 'not recorded'
_NO_FIGURES = 'The run holds none of these very weights.'
# Before a file's name: /home/me/, ~/, ../; also after 'jsonl:', but no URL.
_FOLDERS = re.compile(r'(?<![^\s,:=\'"(])(?!//)(~|\.{1,2})?/([^\s,]*/)?')


def write(
    run: RunOf[Any],
    made: Mapping[str, Any],
    *,
    kept: float,
    serving: Sequence[str],
) -> str:
  """The card as Markdown; paths in it are names of files alone.

  Args:
    run: Of configs/export.py.
    made: The stage's manifest; empty for the base.
    kept: As models.save_pretrained says.
    serving: What to type.
  """
  c = run.config.export
  merged = c.format == 'merged'
  base = hub_id(run)
  front = [
      *([f'base_model: {base.partition("@")[0]}'] if base else []),
      f'library_name: {"transformers" if merged else "peft"}',
      'pipeline_tag: image-text-to-text',
      'tags: [glance-or-gaze, gog_jax]',
      '# license: yours to choose; that of the base model binds as well.',
  ]
  if merged:
    weights = f'of their own, in {c.dtype}'
    if made and made['config']['trainable'] == 'lora':
      weights = (
          f'adapters merged in float32, written in {c.dtype}, which keeps '
          f'{kept:.1%} of what they add'
      )
  else:
    weights = 'an adapter of peft, to be put on the base model'
  processor = run.processor
  facts = {
      'base model': base or pathlib.Path(run.model_folder).name,
      'stage': c.stage,
      'weights': weights,
      **_trained_on(run.workdir, made),
      'images': f'at most {processor.max_pixels} pixels each, which the '
      'processor here sees to',
      'boxes': f'in {run.box_spec.kind.replace("_", " ")}',
      'made with': f'gog_jax {gog_jax.__version__}',
  }
  system = run.chat.codec.decode(run.chat.head)
  blocks = [
      '---\n' + '\n'.join(front) + '\n---',
      f'# {run.model_folder.name if not made else c.stage}',
      _ABOUT,
      '\n'.join(
          f'- {name}: {markdown.inline(str(said))}'
          for name, said in facts.items()
      ),
      '## Figures',
      *(list(_figures(run.workdir, c.stage)) or [_NO_FIGURES]),
      '## How to talk to it',
      'Every conversation begins with this, and a question with its image '
      'follows:' if system else 'There is no system message.',
      *([_fenced(system)] if system else []),
      '## How to serve it',
      _fenced('\n'.join(serving)),
  ]
  if made:
    config = json.dumps(_public(made['config']), indent=2, sort_keys=True)
    blocks += ['## How it was trained', _fenced(config, 'json')]
  return '\n\n'.join(blocks) + '\n'


def hub_id(run: RunOf[Any]) -> str:
  """The base's id on the Hugging Face hub; '' where it is a local folder."""
  path = run.config.model.path
  local = path == TOY_BASE.name or epath.Path(path).is_dir()
  return '' if local else path


def _trained_on(
    workdir: epath.Path, made: Mapping[str, Any]
) -> dict[str, str]:
  """Data, search and judge, of RL those of SFT too."""
  if not made:
    return {}
  sft = made
  if made['stage'] not in (paradigms.SFT, paradigms.SFT_NO_GAZE):
    sft = manifest.read(workdir / paradigms.SFT)
  data = sft.get('data')
  if any(name.startswith('demos') for name in sft.get('inputs', ())):
    data = 'demonstrations of the embedded world\'s expert'
  found = {'SFT data': data or _UNKNOWN}
  if made is not sft:
    found['RL questions'] = ', '.join(made.get('questions', ())) or _UNKNOWN
    found['rewarded by'] = _judge(made)
  found['searched'] = made['inputs'].get('searched', _UNKNOWN)
  return {name: _public(said) for name, said in found.items()}


def _judge(made: Mapping[str, Any]) -> str:
  """What said what is right, by a stage's manifest."""
  name = made['config']['reward']['accuracy']
  version = made['inputs'].get('judge') or made['inputs'].get(f'reward {name}')
  return f'{name} ({version})' if version else name


def _figures(workdir: epath.Path, stage: str) -> Iterator[str]:
  """The stage's rows of each report that is about these very weights."""
  born = str(manifest.birthmark(workdir / stage))
  for path in sorted(workdir.glob('report*/summary.json')):
    summary = files.read_json(path, advice=f'delete {path.parent}')
    evals = workdir / path.parent.name.replace('report', 'eval', 1)
    rows, judges = [], set()
    for row in summary['rows']:
      of = manifest.read(evals / row['policy'])
      # Other weights of the stage may have been evaluated, before or since.
      if of.get('inputs', {}).get(stage, '').endswith(born):
        rows.append(row)
        judges.add(_judge(of))
    if rows:
      yield _fenced(text.table({**summary, 'rows': rows}))
      yield f'Right is what {", ".join(sorted(judges))} says is right.'


def _public(value: Any) -> Any:
  """Without the folders of this machine."""
  if isinstance(value, Mapping):
    return {name: _public(inner) for name, inner in value.items()}
  if isinstance(value, (list, tuple)):
    return [_public(inner) for inner in value]
  if isinstance(value, str):
    return _FOLDERS.sub('', value)
  return value


def _fenced(code: str, language: str = '') -> str:
  """A block of code, whatever stands in it."""
  marks = max(map(len, re.findall('`+', code)), default=0)
  fence = '`' * max(3, marks + 1)
  return f'{fence}{language}\n{code.rstrip()}\n{fence}'
