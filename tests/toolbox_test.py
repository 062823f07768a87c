"""What searches share over a run, and what each policy's config says."""

from __future__ import annotations

import asyncio
import shutil

import pytest

from gog_jax.app import stages
from gog_jax.errors import UserError
from gog_jax.evaluation import policies
from gog_jax.tools import toolbox
from gog_jax.tools.base import ToolContext
from gog_jax.types import ToolCall
from gog_jax.types import ToolStatus
from tests import loop_helpers
from tests import mini

_CALL = ToolCall(name='text_search', arguments={'query': 'beldak'})
_CONTEXT = ToolContext(scope='s', views=())


class Slow(loop_helpers.Backend):

  async def search_text(self, query, *, scope, top_k):
    await asyncio.sleep(0.5)
    return await super().search_text(query, scope=scope, top_k=top_k)


def test_a_policys_own_config_sets_the_limits_of_its_calls(
    tmp_path, monkeypatch
):
  monkeypatch.setattr(toolbox, '_backend', lambda config, field: Slow())
  run = mini.make_run(
      tmp_path, 'eval', tools__timeout_s=0.1, general__tools__timeout_s=60.0
  )
  remote = policies.run_of(run, 'gog@remote')
  assert remote.config.tools.timeout_s == 60
  results = [
      asyncio.run(one.executor.run(_CALL, _CONTEXT)) for one in (run, remote)
  ]
  assert results[0].status == ToolStatus.INFRA_ERROR
  assert results[1].status == ToolStatus.OK, results[1].error
  # What they share is counted together.
  totals = run.toolbox.counts.totals()
  assert totals['text_search/ok'] == totals['text_search/infra_error'] == 1


def test_a_remote_model_sees_images_as_large_as_its_config_says(tmp_path):
  """Whatever folder the run's own model comes from."""
  folder = tmp_path / 'mine'
  shutil.copytree(mini.make_run(tmp_path / 'a', 'eval').model_folder, folder)
  run = mini.make_run(tmp_path / 'b', 'eval', model__path=str(folder))
  remote = policies.run_of(run, 'gog@remote')
  assert remote.config.model.max_image_tokens == 2048
  assert remote.processor.seen_size(1200, 900) == (1216, 896)
  width, height = run.processor.seen_size(1200, 900)
  assert width * height <= 9 * 28**2


def test_a_policy_is_offered_what_its_own_config_names(tmp_path):
  path = tmp_path / 'mine.py'
  path.write_text('def count() -> str:\n  """Counts."""\n  return "1"\n')
  mine = f'{path}:count'
  run = mini.make_run(tmp_path / 'run', 'eval', tools__extra=(mine,))
  assert list(run.executor.tools)[-1] == 'count'
  for name in ('full_search@base', 'direct@base', 'mmsearch_r1@base'):
    assert 'count' not in policies.run_of(run, name).executor.tools
  alone = mini.changed(run.config, tools__offered=())
  assert list(run.with_config(alone).executor.tools) == ['count']


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        ({'offered': ('text_serach',)}, 'offered.0. must be one of text_sea'),
        ({'extra': ('os.path:join', 'os.path:join')}, 'must be all different'),
    ],
)
def test_tools_that_are_refused_with_the_page(changes, words):
  fields = {f'tools__{name}': value for name, value in changes.items()}
  with pytest.raises(UserError, match=words):
    mini.make_config('eval', **fields)


def test_two_tools_of_one_name_are_refused(tmp_path):
  path = tmp_path / 'mine.py'
  path.write_text('def gaze() -> str:\n  """Looks."""\n  return "1"\n')
  with pytest.raises(UserError, match="another tool is called 'gaze'"):
    mini.make_run(tmp_path / 'run', 'eval', tools__extra=(f'{path}:gaze',))


def test_what_is_offered_belongs_to_a_stages_identity(tmp_path):
  run = mini.make_run(tmp_path, 'eval')
  other = run.with_config(
      mini.changed(run.config, tools__offered=('text_search',))
  )
  for name in ('demos', 'sft', 'grade', 'rl'):
    manifests = [stages.manifest_of(one, name) for one in (run, other)]
    assert manifests[0] != manifests[1]
