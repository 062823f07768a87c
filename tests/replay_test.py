"""A recorded run is played again to the same trajectories, bit for bit."""

import hashlib
import json

import pytest

from gog_jax.app import stages
from gog_jax.errors import UserError
from gog_jax.run import Run
from gog_jax.storage import trajectories as trajectories_lib
from gog_jax.tools import toolbox
from gog_jax.tools.counts import trouble
from gog_jax.toy.backend import WorldBackend
from gog_jax.types import ToolStatus
from tests import mini

_N, _SAMPLES = 12, 4


class Flaky(WorldBackend):
  """Fails a third of what it is asked, each time anew."""

  def __init__(self):
    self.n_asked = 0

  async def search_text(self, query, *, scope, top_k):
    self._maybe_fail(query)
    return await super().search_text(query, scope=scope, top_k=top_k)

  async def search_image(self, data, *, scope, top_k):
    self._maybe_fail(hashlib.sha256(data).hexdigest())
    return await super().search_image(data, scope=scope, top_k=top_k)

  def _maybe_fail(self, what):
    self.n_asked += 1
    digest = hashlib.sha256(f'{what} {self.n_asked}'.encode()).digest()
    if digest[0] < 85:
      raise RuntimeError('out of order')


def _with(run: Run, **tools) -> Run:
  # No policy of these runs is a general model.
  changes = {f'tools__{name}': value for name, value in tools.items()}
  config = mini.changed(run.config, general=None, **changes)
  return mini.run_of(config, run.workdir)


def _rollout(run: Run, policy, folder) -> tuple[list, list[dict]]:
  """Sampled trajectories, and their lines without what clocks said."""
  groups = run.rollout(
      policy, run.examples('test', n=_N), samples=_SAMPLES, seed=('replay',)
  )
  flat = [t for group in groups for t in group]
  trajectories_lib.write(folder / 'trajectories.jsonl', flat)
  lines = (folder / 'trajectories.jsonl').read_text().splitlines()
  rows = [json.loads(line) for line in lines]
  for row in rows:
    del row['seconds']['sample']
  return flat, rows


def test_a_recorded_rollout_is_replayed(finished, tmp_path, monkeypatch):
  flaky = Flaky()
  monkeypatch.setattr(toolbox, '_backend', lambda config, field: flaky)
  folder = tmp_path / 'recording'
  recorded = _with(finished, mode='record', recording=str(folder))
  assert recorded.config.sampler.n_slots < _N * _SAMPLES  # Slots are refilled.
  policy = finished.make_policy(
      finished.load_model('sft'), greedy=False
  )
  told, rows = _rollout(recorded, policy, tmp_path / 'a')
  statuses = [r.status for t in told for turn in t.turns for r in turn.results]
  assert statuses.count(ToolStatus.OK) > 10
  assert statuses.count(ToolStatus.INFRA_ERROR) > 2

  def none(config, field):
    raise AssertionError('a replay needs no backend')

  monkeypatch.setattr(toolbox, '_backend', none)
  played = _with(finished, mode='replay', recording=str(folder))
  assert played.toolbox.version == WorldBackend.version
  assert _rollout(played, policy, tmp_path / 'b')[1] == rows

  # What is not in the recording is not made up.
  path = folder / 'calls.jsonl'
  lines = path.read_text().splitlines(keepends=True)
  path.write_text(''.join(lines[1:]))
  cut = _with(finished, mode='replay', recording=str(folder))
  with pytest.raises(UserError, match='does not hold the call '):
    _rollout(cut, policy, tmp_path / 'c')


def test_stages_do_not_care_how_answers_came(finished, tmp_path):
  """But for the backend's version, which a stage is bound to."""
  own = stages.manifest_of(finished, 'grade')
  cache = str(tmp_path / 'cache')
  other = _with(finished, timeout_s=3.0, cache=cache, mode='record')
  assert stages.manifest_of(other, 'grade') == own
  assert own.inputs['searched'] == WorldBackend.version
  assert stages.manifest_of(_with(finished, top_k=2), 'grade') != own


def test_what_went_wrong_with_searches_is_said():
  counts = {
      'ok': 7, 'searches': 7, 'infra_error': 2, 'retries': 5, 'price': 0.03,
      'latency_p95_s': 0.255,
  }  # fmt: skip
  assert trouble(counts) == (
      '7 searches, 2 failed, 5 attempts anew, $0.0300 spent, '
      '95 % within 0.26 s'
  )
  assert trouble({'ok': 7, 'searches': 7}) == ''


def test_a_stage_says_how_its_searches_went(finished):
  manifest = json.loads((finished.workdir / 'grade/manifest.json').read_text())
  every = manifest['tools']['all']
  assert every['ok'] > 0
  assert every['latency_p95_s'] >= every['latency_p50_s'] > 0
