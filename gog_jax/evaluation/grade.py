"""Grading: how often does the frozen SFT policy answer each query?

K samples a query -> pass rate -> Level 0 (solved), 1 (about half), 2 (often
failed).

    FOLDER/samples/      what came of every sample, see collect.py
    FOLDER/asked.json    the ids of one's own questions
    FOLDER/graded.jsonl  one Grade per query
    FOLDER/table.md      what the levels consist of

Killed at any instant, the next start continues and ends with the same files.
"""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
import dataclasses
import functools
from typing import Any

from etils import epath

from gog_jax.evaluation.collect import Collector
from gog_jax.questions import checked
from gog_jax.rewards import behaviour
from gog_jax.rewards.levels import Grade
from gog_jax.rewards.levels import level_of
from gog_jax.rollout.policy import Policy
from gog_jax.rollout.policy import Request
from gog_jax.run import Run
from gog_jax.storage import files
from gog_jax.storage import markdown
from gog_jax.storage import metrics
from gog_jax.types import Example
from gog_jax.types import Trajectory

_TABLE_ROWS = 200  # Of `table.md`.


def grade_examples(
    run: Run,
    policy: Policy,
    examples: Sequence[Example],
    folder: epath.Path,
) -> list[Grade]:
  """Grades every example, reusing the samples that `folder` already holds.

  Those that no conversation can begin with are not graded, and said.

  Raises:
    UserError: In an outage nothing is graded; see `Collector.collect`. Or the
      folder holds samples of other questions.
  """
  c = run.config.grade
  if not run.config.questions.only_world('train'):
    asked = [example.id for example in examples]
    checked.check_same(asked, folder / 'asked.json')

  # The loop encodes the prompt of one object once.
  held = functools.lru_cache(maxsize=1)(examples.__getitem__)

  def request(index: int) -> Request:
    number, sample = divmod(index, c.samples)
    return run.request(
        held(number), sample=sample, seed=('grade',), what='', again=sample
    )

  refused: set[int] = set()
  with Collector(
      run,
      folder / 'samples',
      request,
      samples=c.samples,
      notes=_notes,
      keep_records=False,
      max_errors=c.most_errors,
  ) as collector:
    for number, example in enumerate(examples):
      begun = number * c.samples in collector.items
      if not begun and (why := run.refusal(example)):
        refused.add(number)
        metrics.say(f'grade: {example.id} is left out: {why}')
    wanted = [
        number * c.samples + sample
        for number in range(len(examples))
        if number not in refused
        for sample in range(c.samples)
    ]
    collector.collect(wanted, lambda: policy, what='grade')
  items = collections.defaultdict(list)
  for index in wanted:
    items[index // c.samples].append(collector.items[index])
  grades = [
      _grade(run, example, items[number])
      for number, example in enumerate(examples)
  ]
  files.write_jsonl(
      folder / 'graded.jsonl', (dataclasses.asdict(g) for g in grades)
  )
  files.write_atomic(
      folder / 'table.md',
      table(examples[:_TABLE_ROWS], grades[:_TABLE_ROWS]) + '\n',
  )
  return grades


def _notes(example: Example, trajectory: Trajectory) -> dict[str, Any]:
  """Whether the region asked about was gazed at."""
  return {'seen': any(g.hit for g in behaviour.gazes(example, trajectory))}


def _grade(
    run: Run, example: Example, items: Sequence[Mapping[str, Any]]
) -> Grade:
  c = run.config.grade
  valid = [item for item in items if item['valid']]
  wrong = [item for item in valid if item['accuracy'] < 1]
  to_gaze = bool(example.search_required and example.gold_regions)
  short = [item['searches'] < (example.hops or 0) for item in wrong]
  unseen = [to_gaze and not item['seen'] for item in wrong]
  n_correct, n_errors = len(valid) - len(wrong), len(items) - len(valid)
  level = None
  if n_errors <= c.most_errors * len(items):
    level = level_of(
        n_correct, len(valid), solved=c.solved, often_failed=c.often_failed
    )
  return Grade(
      example_id=example.id,
      n_valid=len(valid),
      n_correct=n_correct,
      n_errors=n_errors,
      n_short=sum(short),
      n_unseen=sum(unseen),
      n_else=sum(not (a or b) for a, b in zip(short, unseen, strict=True)),
      hops=example.hops,
      level=level,
  )


def facts(grades: Sequence[Grade]) -> dict[str, Any]:
  """The number of queries in each level, and what kind they are."""
  levels = [grade.level for grade in grades]
  return {
      'levels': {str(level): levels.count(level) for level in (0, 1, 2)},
      'ungraded': levels.count(None),
      'errors': sum(grade.n_errors for grade in grades),
      'composition': {
          str(level): composition([g for g in grades if g.level == level])
          for level in (0, 1, 2)
      },
  }


def composition(grades: Sequence[Grade]) -> dict[str, Any]:
  """What a level consists of.

  Returns:
    `hops`: number of queries by hops; `pass_rate`: over all samples;
    `too_few_searches`, `never_seen`: of the wrong samples, the share that
    lacked a step, and that never gazed at what is asked about, which may be
    the same ones; `something_else`: the share of which neither is true.
  """
  hops = collections.Counter(
      'unknown' if g.hops is None else str(g.hops) for g in grades
  )
  n_valid = sum(g.n_valid for g in grades)
  n_correct = sum(g.n_correct for g in grades)
  n_wrong = n_valid - n_correct

  def of_wrong(count: int) -> float | None:
    return count / n_wrong if n_wrong else None

  return {
      'hops': dict(sorted(hops.items())),
      'pass_rate': n_correct / n_valid if n_valid else None,
      'too_few_searches': of_wrong(sum(g.n_short for g in grades)),
      'never_seen': of_wrong(sum(g.n_unseen for g in grades)),
      'something_else': of_wrong(sum(g.n_else for g in grades)),
  }


def table(examples: Sequence[Example], grades: Sequence[Grade]) -> str:
  """What the levels consist of, question by question, in Markdown."""
  pairs = zip(grades, examples, strict=True)
  return markdown.table(
      ('level', 'right', 'hops', 'too few searches', 'never seen', 'else',
       'question'),
      [
          (g.level, f'{g.n_correct}/{g.n_valid}', g.hops, g.n_short,
           g.n_unseen, g.n_else, markdown.inline(example.question))
          for g, example in sorted(pairs, key=lambda pair: str(pair[0].level))
      ],
  )  # fmt: skip
