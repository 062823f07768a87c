"""A judge against labels made by hand."""

from __future__ import annotations

import json

from ml_collections import ConfigDict
import numpy as np
import pytest

from configs import judge as page
from gog_jax.app import commands
from gog_jax.config import from_page
from gog_jax.errors import RunStopped
from gog_jax.errors import UserError
from gog_jax.judge import agreement
from tests import endpoints
from tests import helpers
from tests import judge_helpers
from tests.judge_helpers import ANSWERS
from tests.judge_helpers import make_judge
from tests.judge_helpers import right_if

# Of what is labelled right: 2 exact matches, 2 that the judge calls right, 1
# that it calls wrong; of what is labelled wrong: 2 called right, 3 wrong, of
# which one is empty.
LABELS = [
    ('Eiffel Tower', True),
    ('tour eiffel', True),
    ('iron lady', True),
    ('the iron lady of Paris', True),
    ('Gustave\u2019s tower', True),
    ('Paris', False),
    ('some tower', False),
    ('Louvre', False),
    ('Big Ben', False),
    ('', False),
]
CALLED_RIGHT = ('iron lady', 'the iron lady of Paris', 'Paris', 'some tower')


def write_labels(path, labels=LABELS, *more: str):
  rows = [
      json.dumps({
          'question': 'Which tower?',
          'answers': ANSWERS,
          'answer': answer,
          'right': right,
      })
      for answer, right in labels
  ]
  path.write_text('\n'.join([*rows, *more]) + '\n')
  return path


def test_agreement_by_hand(tmp_path):
  labels = agreement.read(write_labels(tmp_path / 'labels.jsonl')).items
  with endpoints.serve(right_if(*CALLED_RIGHT)) as server:
    found = agreement.agreement(make_judge(server, tmp_path), labels)
  assert len(server.heard) == 7
  assert found['n'] == 10 and found['agreement'] == 0.7
  assert found['confusion'] == {
      'right_judged_right': 4, 'right_judged_wrong': 1,
      'wrong_judged_right': 2, 'wrong_judged_wrong': 3,
  }  # fmt: skip
  # By chance 0.5 * 0.6 + 0.5 * 0.4 = 0.5: (0.7 - 0.5) / 0.5.
  assert found['kappa'] == pytest.approx(0.4)
  z, p, n = 1.959963984540054, 0.7, 10
  middle, reach = p + z**2 / (2 * n), z * np.sqrt(
      p * (1 - p) / n + z**2 / (4 * n**2)
  )
  assert found['ci95'] == pytest.approx([
      (middle - reach) / (1 + z**2 / n), (middle + reach) / (1 + z**2 / n),
  ])  # fmt: skip
  asked = found['asked']
  assert (asked['n'], asked['agreement']) == (7, pytest.approx(4 / 7))
  differ = found['disagreements']
  assert [one['line'] for one in differ] == [5, 6, 7]
  assert [one['judged'] for one in differ] == [False, True, True]
  assert found['failed'] == 0


def test_failures_are_no_disagreement(tmp_path):
  labels = agreement.read(write_labels(tmp_path / 'labels.jsonl')).items
  with endpoints.serve(lambda _: endpoints.says('wrong')) as server:
    judge = make_judge(server, tmp_path)
    found = agreement.agreement(judge, labels)
    assert (found['n'], found['failed'], found['agreement']) == (3, 7, 1.0)
    assert found['asked']['n'] == 0 and found['asked']['kappa'] is None
    assert 'no verdict: 7' in agreement.table(found)
    with pytest.raises(RunStopped):
      strict = make_judge(server, tmp_path, min_success=0.95)
      agreement.agreement(strict, labels)


def test_kappa_is_scikit_learns():
  metrics = helpers.require('sklearn.metrics')
  random = np.random.default_rng(0)
  for n, share in ((5, 0.5), (40, 0.9), (300, 0.2)):
    labels = random.random(n) < share
    verdicts = np.where(random.random(n) < 0.8, labels, ~labels)
    labels[:2] = True, False
    pairs = list(zip(labels.tolist(), verdicts.tolist(), strict=True))
    found = agreement.summary(pairs)
    assert found['kappa'] == pytest.approx(
        metrics.cohen_kappa_score(labels, verdicts)
    )
    assert list(found['confusion'].values()) == (
        metrics.confusion_matrix(labels, verdicts, labels=[True, False])
        .ravel()
        .tolist()
    )
  assert agreement.summary([(True, True)] * 3)['kappa'] is None


BAD_LINES = {
    '{"question": ': 'is not JSON',
    '[1]': 'must be an object',
    '{}': 'question is missing',
    '{"question": "q", "answers": []}': 'answers must be one or more texts',
    '{"question": "q", "answers": "a"}': 'answers must be a list',
    '{"question": "q", "answers": [1]}': 'answers[0] must be text',
    '{"question": "q", "answers": ["a"]}': 'answer is missing',
    '{"question": "q", "answers": ["a"], "answer": "b", "right": 1}': 'right',
    '[' * 100_000: 'is not JSON',
}


def test_bad_lines_are_said_one_by_one(tmp_path):
  path = write_labels(tmp_path / 'labels.jsonl', LABELS[:2], '', *BAD_LINES)
  with path.open('ab') as f:
    f.write(b'{"question": "\xff"}\n')
  records = agreement.read(path)
  assert [label.line for label in records.items] == [1, 2]
  for number, (drop, words) in enumerate(
      zip(records.drops, [*BAD_LINES.values(), 'is not UTF-8'], strict=True),
      start=4,
  ):
    assert drop.where == f'{path}, line {number}' and words in drop.detail
  assert records.reasons() == {'wrong field': 7, 'not JSON': 3}
  first = path.read_bytes().splitlines()[0]
  path.write_bytes(b'\xef\xbb\xbf' + first + b'\r\n')
  assert len(agreement.read(path).items) == 1  # As Windows writes it.
  for text in ('', '{}\n'):
    path.write_text(text)
    with pytest.raises(UserError, match='holds no label.* each line is'):
      agreement.read(path)
  with pytest.raises(UserError, match='cannot be read .*--config.labels'):
    agreement.read(tmp_path / 'nowhere')


def test_the_command(tmp_path, capsys):
  config: ConfigDict = page.get_config()
  config.labels = str(
      write_labels(tmp_path / 'labels.jsonl', LABELS, '{"no": "label"}')
  )
  config.judge.model = 'm'
  with endpoints.serve(right_if(*CALLED_RIGHT)) as server:
    config.judge.url = server.url
    commands.do(from_page(config), tmp_path / 'run')
  said = capsys.readouterr()
  assert 'all labels: 10, agreement 70.0 % [39.7, 89.2], kappa 0.400' in (
      said.out
  )
  assert 'left out: 1 lines that hold no label' in said.out
  assert 'line 6: labelled wrong, judged right: "Paris"' in said.out
  assert f'{config.labels}, line 11: question is missing' in said.err
  written = json.loads((tmp_path / 'run' / 'agreement.json').read_text())
  assert written['kappa'] == pytest.approx(0.4)
  assert written['left_out'] == {'wrong field': 1}
  assert written['judge']['asked'] == 7 and written['judge']['model'] == 'm'
  assert len(written['judge']['prompt_sha256']) == 64
  assert judge_helpers.KEY not in said.out
