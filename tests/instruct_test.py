"""Builds of a GoG-Instruct set, small ones, from end to end."""

from __future__ import annotations

import collections
import json
import math

from aiohttp import web
import pytest

from gog_jax import interrupt
from gog_jax.conversations import tfds_set
from gog_jax.errors import UserError
from gog_jax.instruct import answers
from gog_jax.instruct import build
from gog_jax.instruct import estimate
from gog_jax.instruct import teachers
from gog_jax.questions import checked
from gog_jax.questions import sources
from gog_jax.questions import verl
from gog_jax.storage import files
from gog_jax.storage import rollouts
from tests import benchmark_fixtures
from tests import endpoints
from tests import instruct_helpers as helpers
from tests import mini

N = 30  # Questions about items; a chunk is 8 of them.


def make_run(workdir, fields, url='http://127.0.0.1:1/v1', **more):
  small = {
      'instruct__n': 10,
      'instruct__no_search': 0.3,
      'instruct__n_queries': N,
      'instruct__n_direct': 2,
      'instruct__chunk': 8,
      'instruct__concurrency': 4,
      'instruct__n_review': 5,
      'remote__url': url,
      'remote__timeout_s': 20.0,
  }
  fields = {name.replace('.', '__'): value for name, value in fields.items()}
  run = mini.make_run(workdir, 'instruct', **small | fields | more)
  return run.with_config(teachers.config_of(run.config))


@pytest.fixture(scope='module')
def world(tmp_path_factory):
  return helpers.make_world(tmp_path_factory.mktemp('items'), N)


@pytest.fixture(scope='module')
def built(world, tmp_path_factory):
  """A build by a teacher that fails 20 % of its calls, and all it was sent."""
  workdir = tmp_path_factory.mktemp('built')
  with endpoints.serve(helpers.teach, helpers.Failing) as server:
    run = make_run(workdir, world, server.url)
    facts = build.build(run, {})
  return run, facts, server


def expected(run):
  """What the teacher's rules make of each question, worked out anew."""
  fates = {}
  for number in range(N):
    name = f'q{number:03d}'

    def knows(*what, number=number, name=name):
      body = {
          'seed': run.seed('instruct', *what, name, 0),
          'messages': [
              {'role': 'system', 'content': ''},
              {'role': 'user', 'content': f'item {number}'},
          ],
      }
      return f'kelo {number}' in helpers.teach(body)['content']

    right = sum(knows('direct', k) for k in range(2))
    tries, kind = [], None
    if right == 2:
      kind = 'no_search'
    else:
      for attempt in range(2):
        if number % 5 == 4:
          tries.append('wrong answer')
        elif number % 5 == 1 and not knows('try', attempt):
          tries.append('box outside the image')
        else:
          kind = 'no_search' if number % 5 == 1 else 'search'
          break
    fates[name] = (right, kind, tries)
  return fates


def outcomes_of(run, n):
  """The first `n` questions' outcomes, by what is on disk."""
  direct, tries = (
      rollouts.items(run.workdir / 'instruct' / name)
      for name in ('direct', 'tries')
  )
  return [
      answers.outcome_of(i, direct, tries, run.config.instruct)
      for i in range(n)
  ]


def n_lines_and_items(run):
  """Conversations on disk, and how many of them are the last of an item."""
  folders = [run.workdir / 'instruct' / name for name in ('direct', 'tries')]
  paths = [folder / 'trajectories.jsonl' for folder in folders]
  return (
      sum(path.read_bytes().count(b'\n') for path in paths),
      sum(len(rollouts.items(folder)) for folder in folders),
  )


def link_answers(run, workdir):
  """Has a build in `workdir` find the answers of another one."""
  (workdir / 'instruct').mkdir(parents=True)
  for name in ('direct', 'tries'):
    (workdir / 'instruct' / name).symlink_to(run.workdir / 'instruct' / name)


def test_every_question_has_the_fate_that_the_rules_give(built):
  run, facts, server = built
  fates = expected(run)
  asked = list(fates)[: facts['asked']]
  tried = collections.defaultdict(list)
  for drop in files.read_jsonl(run.workdir / 'instruct' / 'drops.jsonl'):
    if drop['of'] == 'try':
      name = drop['where'].partition(',')[0]
      tried[name].append(drop['reason'])
  outcomes = outcomes_of(run, len(asked))
  assert [one.example_id for one in outcomes] == asked
  for one in outcomes:
    right, kind, tries = fates[one.example_id]
    assert (one.n_right, one.n_direct) == (right, 2)
    assert (one.kind, one.easy) == (kind, right == 2)
    assert [failure.reason for failure in one.failures] == tries
    assert tried[one.example_id] == tries
  # It did fail, and no failure of it was counted as the teacher's.
  assert server.n_failed > 10
  lines, items = n_lines_and_items(run)
  assert lines > items
  kinds = {name: fates[name][1] for name in asked}
  want = [n for n in asked if kinds[n] == 'no_search'][:3]
  want += [n for n in asked if kinds[n] == 'search'][:7]
  records = tfds_set.load(run.workdir / 'instruct' / 'set')
  assert [one.id for one in records] == sorted(want)
  # No more questions were asked than it took: without the last chunk, one
  # kind is short.
  before = [kinds[n] for n in asked[:-len(asked) % 8 - 8]]
  assert before.count('no_search') < 3 or before.count('search') < 7


def test_drops_and_the_card_tell_the_truth(built):
  run, facts, _ = built
  folder = run.workdir / 'instruct'
  fates = list(expected(run).items())[: facts['asked']]
  drops = list(files.read_jsonl(folder / 'drops.jsonl'))
  tries = collections.Counter(d['reason'] for d in drops if d['of'] == 'try')
  want = collections.Counter(r for _, (_, _, rs) in fates for r in rs)
  assert tries == want
  questions = [d for d in drops if d['of'] == 'question']
  assert len(questions) + facts['n'] == facts['asked'] == len(fates)
  reasons = collections.Counter(d['reason'] for d in questions)
  lost = collections.Counter(rs[-1] for _, (_, k, rs) in fates if k is None)
  n_passed = sum(kind is not None for _, (_, kind, _) in fates)
  lost[build.SURPLUS] = n_passed - facts['n']
  assert reasons == +lost
  card = (folder / 'set/gog_instruct/2.0.0/README.md').read_text()
  records = tfds_set.load(folder / 'set')
  sources_of = collections.Counter(one.columns['source'] for one in records)
  for name, n in (*reasons.items(), *tries.items(), *sources_of.items()):
    assert f'| {name} | {n} |' in card
  assert '10 samples, of which 3 (30.0 %) do not search' in card
  assert '| search | 7 |' in card and '| no_search | 3 |' in card
  assert f'{len(fates)} questions were asked' in card
  assert '- teacher: m (by an OpenAI-compatible endpoint)' in card
  assert '- judge: answer_match' in card
  assert f'searched: {run.toolbox.version}, from 20' in card
  assert '"instruct.n_direct": 2' in card
  easy = sum(one.columns['facts']['too_easy'] for one in records)
  assert f'{easy} of these answer at once' in card


def test_again_changes_nothing_and_asks_nobody(built, world):
  run, facts, server = built
  folder = run.workdir / 'instruct'
  before, n_heard = helpers.tree(folder), len(server.heard)
  manifest = (folder / 'manifest.json').read_bytes()
  # Its server is gone, and so is its address.
  again = make_run(run.workdir, world)
  assert build.build(again, {}) == facts
  assert helpers.tree(folder) == before and len(server.heard) == n_heard
  assert (folder / 'manifest.json').read_bytes() == manifest
  with pytest.raises(UserError, match='config.instruct.samples is 2, now 3'):
    build.build(make_run(run.workdir, world, instruct__samples=3), {})
  with pytest.raises(UserError, match='config.remote.model is .m., now .o.'):
    build.build(make_run(run.workdir, world, remote__model='o'), {})


def test_interrupted_and_without_failures_the_set_is_the_same(
    built, world, tmp_path, monkeypatch
):
  """The third check in each of several starts stops it; then it goes on."""
  run, _, _ = built
  heard = 0
  with endpoints.serve(helpers.teach) as server:
    stopped = make_run(tmp_path, world, server.url)
    for n in (N + 5, 11, 32):  # The questions are read once.
      with monkeypatch.context() as patch:
        mini.interrupt_at(patch, n)
        with pytest.raises(interrupt.Interrupted):
          build.build(stopped, {})
      assert len(server.heard) > heard
      heard = len(server.heard)
    build.build(stopped, {})
  want = helpers.tree(run.workdir / 'instruct')
  got = helpers.tree(tmp_path / 'instruct')
  assert got.keys() == want.keys()
  # Only clocks and what failed differ, which the set does not hold.
  differs = {name for name in want if want[name] != got[name]}
  lines = {'direct/trajectories.jsonl', 'tries/trajectories.jsonl'}
  assert differs <= lines | {'direct/examples.jsonl', 'tries/examples.jsonl'}
  # Every question was asked as often as the rules want, and no more often.
  lines, items = n_lines_and_items(stopped)
  assert lines == items == n_lines_and_items(run)[1]


def test_a_review_drops_what_it_rejects(built, world, tmp_path):
  run, facts, _ = built
  folder = run.workdir / 'instruct'
  records = tfds_set.load(folder / 'set')
  first = next(
      r.id for r in records if r.columns['facts']['kind'] == 'search'
  )
  page = (folder / 'review.html').read_text()
  shown = [f'q{i:03d}' for i in range(N) if f'data-id="q{i:03d}"' in page]
  assert len(shown) == 5
  fingerprint = page.partition('data-fingerprint="')[2].partition('"')[0]
  path = tmp_path / 'review.json'

  def review(**samples):
    path.write_text(json.dumps({
        'gog_jax_review': 1,
        'fingerprint': fingerprint,
        'samples': {
            name: {'verdict': verdict, 'note': 'so-so | <b>'}
            for name, verdict in samples.items()
        },
    }))
    other = tmp_path / 'reviewed'
    if not other.exists():
      link_answers(run, other)  # They are not asked for again.
    changed = make_run(other, world, instruct__review=str(path))
    return other / 'instruct', build.build(changed, {})

  other, changed = review(**{first: 'reject'})
  names = [one.id for one in tfds_set.load(other / 'set')]
  assert first not in names and len(names) == facts['n']
  reasons = changed['dropped']['question']
  assert reasons[build.REJECTED] == 1
  assert reasons[build.SURPLUS] == facts['dropped']['question'][
      build.SURPLUS
  ] - 1
  card = (other / 'set/gog_instruct/2.0.0/README.md').read_text()
  assert f'- {first}: so-so \\| &lt;b>' in card
  assert '0 accepted, 1 rejected by people' in card
  with pytest.raises(UserError, match="1 samples .* e.g. 'q999'"):
    review(q999='accept')
  fingerprint = 'of another'
  with pytest.raises(UserError, match='another build'):
    review(**{first: 'reject'})


def test_too_few_of_a_kind(built, world):
  run, facts, _ = built
  # Of N questions, as many as there are: nobody has to be asked for 12 of 24.
  least = {'instruct__n_queries': 8, 'instruct__n': 100}
  with pytest.raises(UserError, match='are needed.*n_queries.*fewer=True'):
    build.build(make_run(run.workdir, world, **least), {})
  fates = list(expected(run).values())[:8]
  held = collections.Counter(kind for _, kind, _ in fates)
  made = build.build(
      make_run(run.workdir, world, instruct__fewer=True, **least), {}
  )
  n = made['n']
  assert 0 < n <= held['search'] + held['no_search']
  assert made['by_kind'].get('no_search', 0) == round(0.3 * n)
  assert round(0.3 * (n + 1)) > held['no_search'] or (
      n + 1 - round(0.3 * (n + 1)) > held['search']
  )
  # And back to what it was.
  assert build.build(make_run(run.workdir, world), {}) == facts


def test_easy_ones_may_be_dropped(built, world, tmp_path):
  run, _, _ = built
  link_answers(run, tmp_path)
  facts = build.build(
      make_run(tmp_path, world, instruct__easy='drop', instruct__n=3,
               instruct__no_search=0.0, instruct__n_queries=8), {}
  )  # fmt: skip
  n_easy = sum(right == 2 for right, _, _ in list(expected(run).values())[:8])
  assert facts['dropped']['question'][build.TOO_EASY] == n_easy > 0
  assert facts['too_easy_kept'] == 0


def test_an_outage_is_no_outcome(built, world, tmp_path):
  run, facts, _ = built
  down = {'remote__max_attempts': 1, 'instruct__retries': 1}
  busy = lambda _: web.Response(status=503)
  with (
      endpoints.serve(busy) as server,
      pytest.raises(UserError, match='8 of the .*model failed: .* answers 503'),
  ):
    build.build(make_run(tmp_path, world, server.url, **down), {})
  assert not (tmp_path / 'instruct' / 'drops.jsonl').exists()
  # When it is over, all that was spoilt is asked again.
  with endpoints.serve(helpers.teach) as server:
    again = build.build(make_run(tmp_path, world, server.url), {})
  assert again == facts
  for name in ('drops.jsonl', 'review.html'):
    made = (tmp_path / 'instruct' / name).read_bytes()
    assert made == (run.workdir / 'instruct' / name).read_bytes()


def test_answers_to_other_questions_are_refused(built, world, tmp_path):
  run, _, _ = built
  link_answers(run, tmp_path)
  path = tmp_path / 'changed.py'
  path.write_text(f"""
import dataclasses
from tests import instruct_helpers as helpers
def questions():
  for i in range({N}):
    yield dataclasses.replace(helpers.example(i), answers=('other',))
""")
  other = make_run(
      tmp_path, world, questions__train=(f'{path}:questions',)
  )
  with pytest.raises(UserError, match='not about question q000 as it is now'):
    build.build(other, {})


def test_an_estimate_counts_what_is_left(built, world):
  run, facts, _ = built
  prices = {'remote__price_in': 2.0, 'remote__price_out': 10.0}
  priced = make_run(run.workdir, world, remote__max_spend=1e3, **prices)
  left = estimate.estimate(priced)
  # Every question that was asked is done.
  assert (left.queries, left.done) == (N, min(N, facts['asked']))
  n = N - left.done
  assert left.direct == 2 * n and left.conversations == 2 * n
  most = left.most
  assert (most['turns'], most['calls']) == (2 * n + 2 * n * 10, 2 * n * 9)
  assert most.get('completion_tokens', 0) == most['turns'] * 4096
  tokens = most.get('prompt_tokens', 0), most.get('completion_tokens', 0)
  dollars = (2.0 * tokens[0] + 10.0 * tokens[1]) / 1e6
  assert most['price'] == pytest.approx(dollars)
  assert f'${most["price"]:,.4f}' in '\n'.join(estimate.describe(left))
  unknown = estimate.estimate(make_run(run.workdir, world)).most['price']
  assert math.isnan(unknown) == bool(n)


def test_published_sets_are_sources(tmp_path):
  """Half of each, in turn; ids that both have are taken once."""
  fvqa = benchmark_fixtures.fvqa(tmp_path / 'fvqa', n=3) / 'fvqa_test.parquet'
  infoseek = benchmark_fixtures.small_infoseek(tmp_path / 'infoseek')
  (questions,) = infoseek.glob('*.jsonl')
  queries = sources.open(
      (f'verl:{fvqa}', f'infoseek:{questions}'), split='', workdir='', n=4
  )
  assert [q.source for q in queries] == ['verl', 'infoseek'] * 2
  assert all(q.images and q.answers for q in queries)
  found = verl.read(str(fvqa))
  again = checked.in_turn([found, found], n=6)
  assert len(again) == 3
  assert [drop.reason for drop in again.drops] == ['duplicate id'] * 3
