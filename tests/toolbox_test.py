"""What searches share over a run, and what each policy's config says."""

from __future__ import annotations

import asyncio

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
  monkeypatch.setattr(toolbox, '_backend', lambda config: Slow())
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
