"""What making a stage would take: its `plan`, see app/stage.py.

Questions and training data are read whole, as the stage reads them; nothing is
asked, sampled or written. What an earlier stage has not made yet is unknown,
and said to be.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import math
import pathlib

from etils import epath
import jax.numpy as jnp
import numpy as np

from gog_jax import interrupt
from gog_jax.aot.plan import make_plan
from gog_jax.app.stage import Plan
from gog_jax.config import paradigms
from gog_jax.config import training
from gog_jax.config.pages import ExportPage
from gog_jax.config.pages import IndexPage
from gog_jax.config.pages import InstructPage
from gog_jax.conversations import reader
from gog_jax.conversations import sft_data
from gog_jax.errors import UserError
from gog_jax.evaluation import estimate
from gog_jax.evaluation import evaluate
from gog_jax.evaluation import policies
from gog_jax.index import corpora
from gog_jax.instruct import build
from gog_jax.instruct import estimate as instruct_estimate
from gog_jax.instruct.teachers import InstructRun
from gog_jax.run import Run
from gog_jax.storage import metrics
from gog_jax.storage import rollouts
from gog_jax.storage.manifest import read
from gog_jax.train import curriculum
from gog_jax.train.sft import n_steps_of
from gog_jax.types import Example
from gog_jax.types import Trajectory

_UNITS = {'GB': 1e9, 'MB': 1e6, 'kB': 1e3}
_MULTIPLE = 256  # Of rows that are proposed.
_UNKNOWN = 'prompts: unknown until data has made the embedded world'
_TRAINER = ('frozen parameters', 'trained parameters', 'optimizer')
_SAMPLER = ('frozen parameters', 'trained parameters', 'KV cache')


def sft(run: Run, folder: epath.Path, *, demos: str) -> Plan:
  """Plans SFT: its rows, tokens, steps and validation.

  Args:
    run: Its own.
    folder: The stage's.
    demos: The stage that makes them; '' reads `sft.data`.
  """
  c = run.config.sft
  cache = ('KV cache',) * bool(c.n_validation)
  memory = _memory(run, *_TRAINER, *cache, optimizer=c.optimizer)

  def plan(steps: int, *lines: str) -> Plan:
    n = _validated(run, c, steps)
    return _rolled_out(run, paradigms.SFT, n, [*lines, memory], 'validation ')

  if n := _to_be_made(run, demos):
    steps = n_steps_of(c, n, of_data=not demos)
    return plan(
        steps,
        f'records: {n:,} of {demos or "instruct"}, which is not made yet: '
        'their lengths are unknown',
        f'steps: {steps:,} of {c.batch_size} records, if none is dropped',
    )
  seen, kept = [], []  # Tokens and patches; of what is trained on, targets.

  def take(one: Trajectory) -> None:
    seen.append(sft_data.size_of(one))
    if not demos:
      sft_data.check(run, one)  # Or it is dropped.
    kept.append((len(one.token_ids), int(one.loss_mask.sum())))

  dropped = ''
  if demos:
    for one in sft_data.read(run, folder, demos=demos, path='')[0]:
      take(one)
  else:
    found = reader.read(c.data, run=lambda: run, data_box=c.data_box)
    reasons = sft_data.encoded_as(run, found, take)[0].reasons()
    dropped = ', '.join(f'{n:,} {why}' for why, n in reasons.items())
  tokens, patches = zip(*seen, strict=True)
  row = run.config.batch
  longest, most = (
      math.ceil(n / _MULTIPLE) * _MULTIPLE
      for n in (max(tokens), np.quantile(tokens, 0.99, method='higher'))
  )
  n_tokens, n_targets = (sum(column) for column in zip(*kept, strict=True))
  steps = n_steps_of(c, len(kept), of_data=not demos)
  return plan(
      steps,
      f'records: {len(kept):,} of {demos or c.data}; dropped: '
      f'{dropped or "none"}',
      f'longest record {max(tokens):,} tokens, batch.row_tokens='
      f'{row.row_tokens:,}: rows of {longest:,} hold all, 99 % fit {most:,}',
      f'most patches of a record {max(patches):,}, batch.row_patches='
      f'{row.row_patches:,}',
      f'{n_tokens:,} tokens an epoch, {n_targets:,} of them targets',
      f'steps: {steps:,} of {c.batch_size} records, '
      f'{steps * c.batch_size / len(kept):.1f} epochs',
  )


def _validated(
    run: Run, c: training.SFTConfig | training.RLConfig, steps: int
) -> int:
  """Validation conversations: after every `eval_every` steps and the last."""
  n = c.n_validation
  if n and not _lacks_world(run, 'validation'):
    n = len(run.examples('validation', n=n))
  return math.ceil(steps / c.eval_every) * n


def _to_be_made(run: Run, demos: str) -> int:
  """How many records SFT is to read that this page has to make yet; or 0."""
  c, data = run.config, epath.Path(run.config.sft.data)
  if demos:
    made = read(run.workdir / demos).get('complete')
    return 0 if made else c.sft.n_demos
  own = data == build.set_of(run.workdir) and not data.exists()
  return c.instruct.n if own and isinstance(c, InstructPage) else 0


def grade(run: Run, folder: epath.Path) -> Plan:
  """Plans grading: samples of the questions of train."""
  lines, n = [_UNKNOWN], run.config.grade.n_queries
  if not _lacks_world(run, 'train'):
    lines, n = _prompts(run, run.graded_examples())
    lines = [_left_out(run), *lines]
  done = len(rollouts.items(folder / 'samples'))
  n = max(n * run.config.grade.samples - done, 0)
  return _rolled_out(run, paradigms.SFT, n, [*lines, _memory(run, *_SAMPLER)])


def rl(run: Run, folder: epath.Path) -> Plan:
  """Plans RL: rollouts of the level's queries, and updates."""
  del folder
  c = run.config.rl
  level = f'Level {c.level}'
  if c.level == curriculum.ALL_LEVELS:
    level = 'all levels'
  if read(run.workdir / 'grade').get('complete'):
    ids = curriculum.ids_of(run)
    lines, _ = _prompts(run, run.graded_examples(ids))
    steps = curriculum.n_steps_of(c, len(ids))
    epochs = steps * c.n_prompts / len(ids)
    lines.append(f'{len(ids):,} queries of {level}: {epochs:.1f} epochs')
  else:
    lines = [
        f'queries of {level}: unknown until grade is made; fewer than '
        f'rl.n_prompts={c.n_prompts} stop RL'
    ]
    if c.epochs:
      lines.append(f'steps: unknown, rl.epochs={c.epochs:g} of these queries')
      return Plan([*lines, _memory(run)], price=math.nan)
    steps = c.steps
  lines.append(
      f'steps: {steps:,} of {c.n_prompts} x {c.group_size} rollouts, '
      f'{steps * c.updates_per_batch:,} updates'
  )
  n = steps * c.n_prompts * c.group_size
  if c.dynamic_sampling:
    lines.append(f'and up to {c.max_refills} times as many to refill groups')
    n *= 1 + c.max_refills
  if run.config.validates_rl:
    validated = _validated(run, c, steps)
    lines.append(f'validation: {validated:,} conversations among those below')
    n += validated
  return _rolled_out(run, paradigms.RL, n, [*lines, _memory(run)])


def evaluation(run: Run, folder: epath.Path, *, name: str) -> Plan:
  """Plans a policy's evaluation; `run` is the policy's own."""
  del folder
  found = estimate.estimate(run, name)
  lines = estimate.describe(found)
  if _lacks_world(run, 'test'):
    lines.append(_UNKNOWN)
  else:
    lines += _prompts(run, evaluate.items(run).examples)[0]
  if found.parameters:
    lines.append(_memory(run, *_SAMPLER))
  return Plan(lines, found.most['price'], found.most['judged'])


def instruct(run: InstructRun) -> Plan:
  """Plans a GoG-Instruct build; `run` has the teacher's config."""
  c = run.config.instruct
  if _lacks_world(run, 'train'):
    return Plan([f'{c.n_queries:,} questions at most', _UNKNOWN])
  prompts, _ = _prompts(run, build.questions_of(run))
  found = instruct_estimate.estimate(run)
  lines = [
      _left_out(run, n=c.n_queries),
      *prompts,
      *instruct_estimate.describe(found),
  ]
  if c.teacher not in (paradigms.REMOTE, paradigms.EXPERT):
    lines.append(_memory(run, *_SAMPLER))
  return Plan(lines, found.most['price'], found.most['judged'])


def export(config: ExportPage, workdir: epath.Path) -> Plan:
  """Plans an export: the size of the weights."""
  c = config.export
  run = policies.trained_run(config, workdir, c.stage)
  size = ''
  if c.format == 'merged':
    n = estimate.n_parameters(run) * jnp.dtype(c.dtype).itemsize
    size = f', {_size(n)}'
  return Plan([f'{c.stage}, {c.format}{size}, into {c.folder}'])


def index(config: IndexPage) -> Plan:
  """Plans an index: what is in its sources; features take most of the time."""
  names, refused = [], {}
  if config.images:
    names, refused = corpora.image_names(pathlib.Path(config.images))
  n = 0
  if config.docs:
    path = pathlib.Path(config.docs)
    for document in corpora.read_documents(path, {*names, *refused}):
      interrupt.check()
      n += not document.empty
  if not n and not names:
    raise UserError('there is nothing to index: no document and no image')
  lines = [f'{n:,} documents, {len(names):,} images, into {config.index}']
  for name, why in list(refused.items())[:1]:
    lines.append(f'left out: {len(refused):,} images ({name}: {why})')
  return Plan(lines)


def _lacks_world(run: Run, split: str) -> bool:
  """Whether a split has questions of the world that are not made yet."""
  c = run.config
  asks = c.questions.has_world(split) or split == 'test' and bool(c.world_split)
  return asks and not read(run.workdir / 'data').get('complete')


def _left_out(run: Run, *, n: int | None = None) -> str:
  """Why questions of train are not asked."""
  why = run.questions('train', n=n).left_out
  return f'left out of questions.train: {why or "none"}'


def _prompts(
    run: Run, examples: Sequence[Example]
) -> tuple[list[str], int]:
  """What questions' prompts take, and how many can be asked."""
  sizes, refused = [], []
  with metrics.Progress('prompts', total=len(examples)) as progress:
    for example in examples:
      interrupt.check()
      progress.advance()
      if why := run.refusal(example):
        refused.append(why)
      else:
        sizes.append(len(run.chat.prompt(example).token_ids))
  if not sizes:
    raise UserError(f'no conversation can begin: {refused[0]}')
  c = run.config.rollout
  lines = [f'prompts: {len(sizes):,}']
  if refused:
    lines[-1] += f', left out: {len(refused):,} ({refused[0]})'
  lines.append(
      f'longest prompt {max(sizes):,} tokens; rollout.max_context='
      f'{c.max_context:,} leaves {c.max_context - max(sizes):,} for its turns '
      'and what tools return'
  )
  return lines, len(sizes)


def _rolled_out(
    run: Run, name: str, n: int, lines: list[str], of: str = ''
) -> Plan:
  """Plans `n` conversations with a policy that is loaded."""
  if not n:
    return Plan(lines)
  most = estimate.most(run, paradigms.parse(name), n)
  n_tokens = n * run.limits.max_context
  told = [
      f'{n:,} {of}conversations, {n_tokens:,} tokens at most',
      f'at most   {estimate.line(most)}',
  ]
  return Plan([*lines, *told], most['price'], most['judged'])


def _memory(
    run: Run, *names: str, optimizer: training.OptimizerConfig | None = None
) -> str:
  """What each device holds all the time, so without activations.

  Args:
    run: Its config and its devices.
    *names: Of what RL holds, see `aot.program.Plan`; all without any.
    optimizer: In place of RL's.

  Raises:
    UserError: It is more than the device has.
  """
  c = run.config
  rl = dataclasses.replace(c.rl, optimizer=optimizer or c.rl.optimizer)
  c = dataclasses.replace(c, rl=rl)
  held = make_plan(c, run.model_config, run.mesh).held
  held = {name: held[name] for name in names or held}
  n = sum(held.values())
  parts = ', '.join(f'{name} {_size(held[name])}' for name in held)
  stats = run.mesh.devices.flat[0].memory_stats() or {}
  limit = stats.get('bytes_limit')
  if limit and n > limit:
    raise UserError(
        f'{_size(n)} are held on each of {run.mesh.size} devices ({parts}), '
        f'and one has {_size(limit)}: take more devices, or lower '
        '--config.sampler.n_slots'
    )
  return f'held on each of {run.mesh.size} devices: {_size(n)} ({parts})'


def _size(n_bytes: float) -> str:
  unit = next((u for u in _UNITS if n_bytes >= _UNITS[u]), 'kB')
  return f'{n_bytes / _UNITS[unit]:,.1f} {unit}'
