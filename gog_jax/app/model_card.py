"""The model card: what it began with, how it was trained, how to talk to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
import json
import re
from typing import Any

from etils import epath
import jinja2

import gog_jax
from gog_jax.config import paradigms
from gog_jax.models.folders import TOY_BASE
from gog_jax.report import text
from gog_jax.run import RunOf
from gog_jax.storage import files
from gog_jax.storage import manifest
from gog_jax.storage import markdown

_UNKNOWN = 'not recorded'
# Before a file's name: /home/me/, ~/, ../; also after 'jsonl:', but no URL.
_FOLDERS = re.compile(
    r'(?<![^\s,:=\'"(])(?!//)(~|\.{1,2})?/([^\s,\'"]*/)?'
)


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
  weights = f'its own, in {c.dtype}'
  if c.format == 'adapter':
    weights = 'an adapter of peft, to be put on the base model'
  elif made and made['config']['trainable'] == 'lora':
    weights = (
        f'adapters merged in float32, written in {c.dtype}, which keeps '
        f'{kept:.1%} of what they add'
    )
  environment = jinja2.Environment(
      loader=jinja2.PackageLoader('gog_jax.app'),
      undefined=jinja2.StrictUndefined,
      trim_blocks=True,
      lstrip_blocks=True,
      keep_trailing_newline=True,
  )
  environment.filters |= {
      'fenced': _fenced, 'inline': markdown.inline, 'public': _public,
  }  # fmt: skip
  return environment.get_template('model_card.md.j2').render(
      base=hub_id(run),
      merged=c.format == 'merged',
      stage=c.stage,
      facts={
          'base model': hub_id(run) or run.model_folder.name,
          'weights': weights,
          **_trained_on(run.workdir, made),
          'images': f'at most {run.processor.max_pixels} pixels each, which '
          'the processor here sees to',
          'boxes': f'in {run.box_spec.kind.replace("_", " ")}',
          'made with': f'gog_jax {gog_jax.__version__}',
      },
      figures=list(_figures(run.workdir, c.stage)),
      system=run.chat.codec.decode(run.chat.head),
      serving=serving,
      config=json.dumps(made['config'], indent=2, sort_keys=True)
      if made
      else '',
  )


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
  began = made['config'].get('rl', {}).get('init', paradigms.SFT)
  if any(name.startswith('demos') for name in sft.get('inputs', ())):
    data = 'demonstrations of the embedded world\'s expert'
  found = {'SFT data': data or _UNKNOWN}
  if began != paradigms.SFT:
    found = {'RL began from': began}
  if made is not sft:
    found['RL questions'] = ', '.join(made.get('questions', ())) or _UNKNOWN
    found['rewarded by'] = _judge(made)
  found['searched'] = made['inputs'].get('searched', _UNKNOWN)
  return found


def _judge(made: Mapping[str, Any]) -> str:
  """What said what is right, by a stage's manifest."""
  name = made['config']['reward']['accuracy']
  version = made['inputs'].get('judge') or made['inputs'].get(f'reward {name}')
  return f'{name} ({version})' if version else name


def _figures(
    workdir: epath.Path, model: str
) -> Iterator[tuple[str, list[str]]]:
  """Rows of each report that are about these very weights, and who judged."""
  stage = model.removesuffix(paradigms.BEST)
  born = str(manifest.birthmark(workdir / stage))
  for path in sorted(workdir.glob('report*/summary.json')):
    summary = files.read_json(path, advice=f'delete {path.parent}')
    evals = workdir / path.parent.name.replace('report', 'eval', 1)
    rows, judges = [], set()
    for row in summary['rows']:
      if paradigms.spelled_out(row['policy']).rpartition('@')[-1] != model:
        continue
      of = manifest.read(evals / row['policy'])
      # Other weights of the stage may have been evaluated, before or since.
      if of.get('inputs', {}).get(stage, '').endswith(born):
        rows.append(row)
        judges.add(_judge(of))
    if rows:
      yield text.table({**summary, 'rows': rows}), sorted(judges)


def _public(text: str) -> str:
  """Without the folders of this machine."""
  return _FOLDERS.sub('', text)


def _fenced(code: str) -> str:
  """A block of code, whatever stands in it."""
  marks = max(map(len, re.findall('`+', code)), default=0)
  fence = '`' * max(3, marks + 1)
  return f'{fence}\n{code.rstrip()}\n{fence}'
