"""What a stage is bound to, and what may change while it is under way."""

from __future__ import annotations

from etils import epath
import pytest

from gog_jax.app import stages
from gog_jax.errors import UserError
from gog_jax.storage import files
from tests import mini

pytestmark = pytest.mark.quick

BUILT = ('data', 'demos', 'sft', 'grade', 'rl')


def build(run):
  for name in BUILT:
    write(run, name)


def write(run, name):
  stages.manifest_of(run, name).write(run.workdir / name, complete=True)


def is_complete(run, name):
  return stages.manifest_of(run, name).is_complete(run.workdir / name)


def test_what_stands_on_an_sft_made_again_is_refused(tmp_path):
  run = mini.make_run(tmp_path, 'rl')
  build(run)
  assert all(is_complete(run, name) for name in BUILT)
  write(run, 'demos')  # The same settings make the same demos again,
  assert is_complete(run, 'sft')
  write(run, 'sft')  # but other parameters.
  with pytest.raises(UserError, match='another sft than .*delete .*grade'):
    is_complete(run, 'grade')


def test_another_world_is_another_evaluation(tmp_path):
  def manifest_of(**changed):
    run = mini.make_run(tmp_path, 'rl', eval__policies=('expert',), **changed)
    return stages.manifest_of(run, 'eval expert')

  folder = tmp_path / 'eval' / 'expert'
  manifest_of().write(folder, complete=True)
  assert manifest_of().is_complete(folder)
  with pytest.raises(UserError, match='another data than there is now'):
    manifest_of(data__world_seed=1).is_complete(folder)


def test_what_nothing_hangs_on_may_change(tmp_path):
  build(mini.make_run(tmp_path, 'rl'))
  run = mini.make_run(
      tmp_path,
      'rl',
      sft__checkpoint_every=7,
      rl__checkpoint_every=3,
      rl__trajectories_every=5,
      rl__alarms__kl=9.0,
      rl__alarms__stop=True,
  )
  assert all(is_complete(run, name) for name in BUILT)
  with pytest.raises(UserError, match='rl.n_prompts is 4, now 2'):
    is_complete(mini.make_run(tmp_path, 'rl', rl__n_prompts=2), 'rl')
  # What searches cost concerns RL alone.
  costly = mini.make_run(tmp_path, 'rl', rl__call_cost=0.1)
  assert is_complete(costly, 'grade')
  with pytest.raises(UserError, match='rl.call_cost'):
    is_complete(costly, 'rl')


NOTES = """
class Notes:
  version = 'notes/{}'
  kinds = ('text',)
  async def search_text(self, query, *, scope, top_k):
    raise NotImplementedError
"""
OTHERS = {  # Than those with which a policy was trained.
    'tools__top_k': 3,
    'tools__hit_characters': 500,
    'rollout__max_turns': 2,
    'rollout__max_context': 300,
    'batch__row_tokens': 300,
    'reward__format_weight': 0.5,
    'eval__benchmark': 'world_hard',
}


def notes(folder, version):
  """A backend of one's own, with so many documents."""
  path = folder / f'notes_{version}.py'
  path.write_text(NOTES.format(version))
  return f'{path}:Notes'


@pytest.mark.parametrize('validates', [0, 8])
def test_a_policy_is_evaluated_with_other_tools_and_limits(tmp_path, validates):
  """Than it was trained with; what it was trained with stays written down."""
  work = tmp_path / 'run'
  same = {
      'sft__n_validation': validates, 'eval__policies': ('rl',),
  }  # fmt: skip
  trained = mini.make_run(work, 'rl', **same)
  build(trained)
  backend = notes(tmp_path, 1)
  run = mini.make_run(work, 'eval', tools__backend=backend, **OTHERS, **same)
  assert all(is_complete(run, name) for name in BUILT)
  for name in BUILT:
    assert stages.identity(run, name) == stages.identity(trained, name)
  # The evaluation says with what.
  made = stages.manifest_of(run, 'eval rl')
  assert made.config['tools.top_k'] == 3
  assert made.config['tools.text'] == backend
  assert made.inputs['searched'] == 'text notes/1'
  assert made.inputs['rl'] == stages.identity(trained, 'rl')
  # One document more: what was evaluated before is not mixed with it.
  folder = stages.folder_of(run, 'eval rl')
  made.write(folder, complete=True)
  more = mini.make_run(
      work, 'eval', tools__backend=notes(tmp_path, 2), **OTHERS, **same
  )
  assert is_complete(more, 'rl')
  with pytest.raises(UserError, match='search backend .*move away or delete'):
    stages.manifest_of(more, 'eval rl').is_complete(folder)
  # Whoever trains is told of all that differs, and who evaluates of the rest.
  with pytest.raises(UserError, match='tools.top_k is 1, now 3'):
    is_complete(mini.make_run(work, 'rl', tools__top_k=3, **same), 'rl')
  for changed in ({'rl__n_prompts': 2}, {'seed': 1}):
    with pytest.raises(UserError, match='made with other settings'):
      is_complete(mini.make_run(work, 'eval', **changed, **same), 'rl')


def test_what_is_not_complete_is_gone_on_with_as_it_was_begun(tmp_path):
  run = mini.make_run(tmp_path, 'rl')
  build(run)
  stages.manifest_of(run, 'rl').write(tmp_path / 'rl', complete=False)
  other = mini.make_run(tmp_path, 'eval', tools__top_k=3)
  for name in ('grade', 'rl'):  # RL would be built upon these grades.
    with pytest.raises(UserError, match='tools.top_k is 1, now 3'):
      is_complete(other, name)


def test_sft_on_a_file_hangs_on_no_search_and_no_limits(tmp_path):
  path = tmp_path / 'mine.jsonl'
  path.write_text('{}')

  def run_of(page='sft', **changed):
    return mini.make_run(
        tmp_path / 'run', page, sft__data=str(path), **changed
    )

  others = {k: v for k, v in OTHERS.items() if not k.startswith('batch')}
  others |= {'rollout__max_context': 200}
  plain = stages.manifest_of(run_of(), 'sft')
  other = run_of(tools__backend=notes(tmp_path, 1), **others)
  # Only the tools it is told of stand in its prompts: that they stay while it
  # is trained is all there is to it.
  assert stages.manifest_of(other, 'sft').config == plain.config
  plain.write(tmp_path / 'run' / 'sft', complete=False)
  with pytest.raises(UserError, match='another description of the tools'):
    is_complete(other, 'sft')
  plain.write(tmp_path / 'run' / 'sft', complete=True)
  for page in ('sft', 'grade', 'rl', 'eval'):
    again = run_of(page, tools__backend=notes(tmp_path, 1), **others)
    assert is_complete(again, 'sft')
  with pytest.raises(UserError, match='sft.batch_size is 8, now 4'):
    is_complete(run_of('eval', sft__batch_size=4), 'sft')
  # Its validation does search.
  validated = run_of(sft__n_validation=8)
  assert 'tools.top_k' in stages.manifest_of(validated, 'sft').config


@pytest.mark.parametrize('damage', [b'', b'[]', b'{"half', b'\xff\xfe\x00'])
def test_a_damaged_manifest_names_the_folder_to_delete(damage, tmp_path):
  run = mini.make_run(tmp_path, 'rl')
  build(run)
  (tmp_path / 'sft' / 'manifest.json').write_bytes(damage)
  for name in ('sft', 'grade'):  # Itself, and what stands on it.
    with pytest.raises(UserError, match='cannot be read .* delete .*sft'):
      is_complete(run, name)


def test_a_digest_changes_with_any_byte_and_reads_a_file_once(
    tmp_path, monkeypatch
):
  """A merge in place leaves names, sizes and the first megabyte."""
  weights = tmp_path / 'model.safetensors'
  weights.write_bytes(b'0' * (2**21))
  (tmp_path / 'notes.txt').write_text('of no matter')
  before = files.model_digest(tmp_path)
  assert files.model_digest(tmp_path, salt='x') != before
  with monkeypatch.context() as patch:
    patch.setattr(type(epath.Path(weights)), 'open', None)  # Nothing is read.
    assert files.model_digest(tmp_path) == before
  with weights.open('r+b') as f:
    f.seek(-1, 2)
    f.write(b'1')
  assert files.model_digest(tmp_path) != before
  weights.write_bytes(b'0' * (2**21))
  (tmp_path / 'notes.txt').write_text('')
  assert files.model_digest(tmp_path) == before
