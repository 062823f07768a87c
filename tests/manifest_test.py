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
