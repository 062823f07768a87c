"""A local index under deadlines: a thread that runs on keeps its place."""

import asyncio
import threading
import time

from gog_jax.index import build
from gog_jax.index.backend import LocalIndex
from gog_jax.tools.base import ToolContext
from gog_jax.tools.search import text_search
from gog_jax.types import ToolCall
from gog_jax.types import ToolStatus
from tests.index_helpers import write_docs
from tests.search_helpers import make_executor


class Slow(LocalIndex):
  """Takes its time, and knows how many searches run at once."""

  running = most = n = 0
  guard = threading.Lock()

  def text(self, query, top_k):
    with self.guard:
      self.n += 1
      self.running += 1
      self.most = max(self.most, self.running)
    time.sleep(0.3)
    with self.guard:
      self.running -= 1
    return super().text(query, top_k)


def test_no_more_searches_run_than_are_counted(tmp_path):
  docs = tmp_path / 'docs.jsonl'
  write_docs(docs, {'id': 1, 'text': 'a word'})
  build.build(str(tmp_path / 'index'), docs=str(docs))
  index = Slow(str(tmp_path / 'index'))
  executor = make_executor(
      text_search(index, top_k=1),
      backend=index,
      timeout_s=0.05,
      max_concurrency=1,
  )
  calls = [
      ToolCall(name='text_search', arguments={'query': 'word'})
      for _ in range(4)
  ]

  async def scenario():
    results = await executor.run_turn(calls, ToolContext(scope='', views=()))
    while index.running:
      await asyncio.sleep(0.01)
    return results

  results = asyncio.run(scenario())
  assert [r.status for r in results] == [ToolStatus.INFRA_ERROR] * 4
  assert (index.most, index.n) == (1, 4)
