"""What a judge may cost, and what its settings may be."""

from __future__ import annotations

import pytest

from gog_jax.errors import RunStopped
from gog_jax.errors import UserError
from gog_jax.judge.judge import describe
from gog_jax.judge.judge import Judge
from gog_jax.storage import files
from tests import endpoints
from tests import judge_helpers
from tests.judge_helpers import case
from tests.judge_helpers import failing_on
from tests.judge_helpers import make_judge
from tests.judge_helpers import right_if

PRICES = {'price_in': 2.0, 'price_out': 10.0, 'max_tokens': 100}


def test_verdicts_are_paid_by_what_the_endpoint_says(tmp_path):
  usage = {'prompt_tokens': 300, 'completion_tokens': 20}
  price = (300 * 2 + 20 * 10) / 1e6
  with endpoints.serve(right_if(usage=usage)) as server:
    judge = make_judge(server, tmp_path, max_spend=1.0, **PRICES)
    judge.verdicts([case('louvre'), case('big ben')])
    totals = judge.counts.totals()
  assert totals['price'] == pytest.approx(2 * price)
  assert (totals['prompt_tokens'], totals['completion_tokens']) == (600, 40)
  assert '2 asked about, $0.0016 spent' == describe(totals)
  rows = list(files.read_jsonl(tmp_path / 'judge_spent.jsonl'))
  assert sum(row['price'] for row in rows) == pytest.approx(2 * price)
  # What was turned away costs nothing; without usage, the most it can be.
  with endpoints.serve(failing_on('big')) as server:
    judge = make_judge(server, tmp_path / 'b', max_spend=1.0, **PRICES)
    judge.verdicts([case('big')])
    assert judge.counts['price'] == pytest.approx(0, abs=1e-12)
    judge.verdicts([case('louvre')])
    n_bytes = len(judge_helpers.prompt_of(server.bodies[-1]).encode())
    assert judge.counts['price'] == pytest.approx((2 * n_bytes + 1000) / 1e6)


def test_a_cap_is_never_passed(tmp_path):
  with endpoints.serve(right_if()) as server:
    judge = make_judge(
        server, tmp_path, max_spend=0.008, concurrency=1, **PRICES
    )
    with pytest.raises(RunStopped, match='--config.judge.max_spend=0.008'):
      judge.verdicts([case(f'answer {n}') for n in range(9)])
    assert 0 < len(server.heard) < 9 and judge.counts['price'] <= 0.008
    again = make_judge(server, tmp_path, max_spend=0.008, **PRICES)
    with pytest.raises(RunStopped, match='--config.judge.max_spend=0.008'):
      again.verdicts([case('one more')])  # Of the same ledger.


def test_a_cache_that_cannot_be_one(tmp_path):
  (tmp_path / 'verdicts').write_text('no database, but long enough for one')
  for path in (tmp_path / 'verdicts', tmp_path, 'gs://bucket/verdicts'):
    config = judge_helpers.settings('http://127.0.0.1:1/v1', cache=str(path))
    with pytest.raises(UserError, match='--config.judge.cache'):
      Judge(config, tmp_path)


@pytest.mark.parametrize(
    ('fields', 'words'),
    [
        ({'url': ''}, '--config.judge.url='),
        ({'url': 'localhost'}, '--config.judge.url'),
        ({'key_variable': 'sk-1'}, '--config.judge.key_variable'),
        ({'min_success': 1.5}, 'config.judge.min_success must be from 0 to 1'),
        ({'min_success': float('nan')}, 'min_success must be from 0 to'),
        ({'concurrency': 0}, 'config.judge.concurrency must be 1'),
        ({'max_attempts': 0}, 'config.judge.max_attempts must be 1'),
        ({'max_answer_characters': 0}, 'max_answer_characters must be 1'),
        ({'timeout_s': 0.0}, 'timeout_s must be more than 0'),
        ({'price_out': -1.0}, 'price_out must be 0 or more'),
        ({'price_in': 1.0}, 'config.judge.max_spend is 0'),
        (
            {'price_in': 1.0, 'max_spend': 1.0, 'max_tokens': 0},
            'max_tokens=0 sets no bound',
        ),
    ],
)
def test_settings_that_are_refused(tmp_path, fields, words):
  with pytest.raises(UserError, match=words):
    fields = {'url': 'http://127.0.0.1:1/v1'} | fields
    Judge(judge_helpers.settings(**fields), tmp_path)
