"""The experts, walked through the world with a loop of the test's own."""

from __future__ import annotations

import asyncio
import collections

import numpy as np
import pytest

from gog_jax.errors import UserError
from gog_jax.toy import expert
from gog_jax.toy import questions
from gog_jax.toy import scenes
from gog_jax.toy import vocabulary
from gog_jax.toy.backend import WorldBackend
from gog_jax.types import Example
from gog_jax.types import ParsedTurn
from gog_jax.types import ToolResult
from gog_jax.types import ToolStatus
from gog_jax.types import Turn
from tests.world_helpers import halved
from tests.world_helpers import ORACLE
from tests.world_helpers import questions_of

_MAX_TURNS = 5


def _walk(act, example: Example, seed: int) -> tuple[list[Turn], str | None]:
  """Lets a script talk to the backend; returns the turns and the answer."""
  backend = WorldBackend()
  turns: list[Turn] = []
  for number in range(_MAX_TURNS):
    rng = np.random.default_rng((seed, number))
    thought, calls, answer = act(example, tuple(turns), halved, rng)
    assert (answer is None) == (len(calls) == 1)
    assert 2 <= len(thought.split()) <= 16
    results = []
    for call in calls:
      if call.name == 'text_search':
        found = backend.search_text(
            call.arguments['query'], scope=example.scope, top_k=1
        )
      else:
        data = example.images[0]
        if call.name == 'gaze':
          box = tuple(2.0 * side for side in call.arguments['bbox_2d'])
          data = scenes.crop(data, box)
        found = backend.search_image(data, scope=example.scope, top_k=1)
      hits = asyncio.run(found).hits
      results.append(ToolResult(status=ToolStatus.OK, hits=hits))
    parsed = ParsedTurn(text='', thought=thought, calls=calls, answer=answer)
    turns.append(Turn(parsed=parsed, results=tuple(results)))
    if answer is not None:
      return turns, answer
  return turns, None


def _oracle(*args):
  return expert.expert_turn(*args, ORACLE)


def _questions(split: str, n: int) -> list[Example]:
  return [question.example for question in questions_of(split, n)]


@pytest.fixture(scope='module')
def demonstrations():
  return [
      (example, *_walk(expert.expert_turn, example, seed))
      for seed, example in enumerate(_questions('train', 800))
  ]


def test_oracle_answers_at_least_99_of_100():
  right = [
      _walk(_oracle, example, seed)[1] in example.answers
      for seed, example in enumerate(_questions('test', 500))
  ]
  assert np.mean(right) >= 0.99


def test_oracle_needs_no_more_searches_than_the_hops():
  for seed, example in enumerate(_questions('validation', 100)):
    turns, answer = _walk(_oracle, example, seed)
    if answer in example.answers:
      assert len(turns) == example.hops + 1


def test_expert_is_right_about_three_times_in_five(demonstrations):
  right = collections.defaultdict(list)
  for example, _, answer in demonstrations:
    assert answer is not None  # Five turns suffice.
    right[min(example.hops, 2)].append(answer in example.answers)
  accuracy = {hops: np.mean(values) for hops, values in right.items()}
  overall = np.mean([value for values in right.values() for value in values])
  assert 0.5 <= overall <= 0.7, accuracy
  assert accuracy[0] == 1.0
  assert accuracy[1] > accuracy[2] + 0.1


def test_expert_searches_mostly_when_it_must(demonstrations):
  searched = [
      (example.search_required, len(turns) > 1)
      for example, turns, _ in demonstrations
  ]
  assert np.mean([did for must, did in searched if must]) > 0.95
  assert 0.02 < np.mean([did for must, did in searched if not must]) < 0.2
  assert 0.25 < np.mean([not did for _, did in searched]) < 0.45


def _looks(turns):
  """Yields (thought, what the hit looks like) of every look."""
  for turn in turns:
    for call, result in zip(turn.parsed.calls, turn.results):
      if call.name != 'text_search':
        yield turn.parsed.thought, tuple(result.hits[0].text.split()[1:4])


def test_thoughts_name_what_is_sought_so_that_replies_contradict(
    demonstrations,
):
  recovered = twins = 0
  for example, turns, _ in demonstrations:
    question = questions.question_of(example)
    target = question.target
    looks = list(_looks(turns))
    if target is None or not looks:
      continue
    own = target.identity
    told = own.pattern in question.ref.split()
    assert f' {vocabulary.in_short(question.ref)}: ' in looks[0][0]
    for thought, _ in looks:
      assert thought.endswith(f'{own.colour} {own.shape}')
    glanced = turns[0].parsed.calls[0].name == 'image_search'
    for (_, (pattern, *look)), (thought, _) in zip(looks, looks[1:]):
      # A second look follows a contradiction, and says which.
      reflection, _, thought = thought.partition(': ')
      sought, _, shown = reflection.partition(' got ')
      pattern_told = own.pattern if told else 'any'
      assert sought == (
          f'{question.kind} of {pattern_told} {own.colour} {own.shape}'
      )
      assert shown.split()[:-1] == [pattern, *look]
      assert thought.startswith('wrong find')
      alike = look == [own.colour, own.shape]
      # Who is asked for the pattern looks closer at what a glance found.
      if alike and not (question.kind == 'pattern' and glanced):
        assert told and pattern != own.pattern
        twins += thought.startswith('wrong find other')
    recovered += len(looks) > 1 and looks[-1][1] == (
        own.pattern, own.colour, own.shape,
    )
  assert recovered >= 0.035 * len(demonstrations)
  assert twins >= 0.03 * len(demonstrations)


def test_most_episodes_are_given_up_at_the_first_obstacle(demonstrations):
  """The persistence that RL is to teach; whoever has it goes on to the end."""
  gone_on = collections.defaultdict(list)
  for example, turns, _ in demonstrations:
    question = questions.question_of(example)
    calls = [call.name for turn in turns for call in turn.parsed.calls]
    if question.target is None or calls[:1] != ['gaze']:
      continue
    own, look = question.target.identity, (next(_looks(turns))[1])
    right = look == (own.pattern, own.colour, own.shape)
    if right and question.kind in vocabulary.ATTRIBUTES:
      gone_on['to the text'].append(calls[1:2] == ['text_search'])
    told = own.pattern in question.ref.split()
    if look[1:] == (own.colour, own.shape) and told and not right:
      gone_on['to the other twin'].append(calls[1:2] == ['gaze'])
      looks = list(_looks(turns))
      if looks[1:] and looks[1][1] == (own.pattern, own.colour, own.shape):
        last = turns[-1].parsed.answer
        gone_on['to the end'].append(last in example.answers)
  rates = {step: np.mean(values) for step, values in gone_on.items()}
  assert min(len(values) for values in gone_on.values()) > 20
  assert 0.15 < rates['to the text'] < 0.4, rates
  assert 0.15 < rates['to the other twin'] < 0.4, rates
  assert rates['to the end'] == 1, rates


def test_without_gaze_there_is_none():
  def act(*args):
    return expert.expert_turn(*args, expert.EXPERT_WITHOUT_GAZE)

  right = []
  for seed, example in enumerate(_questions('train', 200)):
    turns, answer = _walk(act, example, seed)
    calls = [call.name for turn in turns for call in turn.parsed.calls]
    assert 'gaze' not in calls and answer is not None
    if example.hops and questions.question_of(example).target:
      right.append(answer in example.answers)
  assert np.mean(right) < 0.25  # A glance finds big emblems.


def test_jitter_moves_some_boxes_by_a_step():
  question = next(
      questions.question_of(e)
      for e in _questions('train', 40)
      if questions.question_of(e).target is not None
  )
  tight = list(halved(question.target.box))
  boxes = []
  for seed in range(200):
    rng = np.random.default_rng(seed)
    one = expert._Expert(question, (), halved, rng, expert.EXPERT)
    _, (call,), _ = one._gaze('find', question.target)
    boxes.append(call.arguments['bbox_2d'])
  assert 0.05 < np.mean([box != tight for box in boxes]) < 0.4


def test_expert_is_a_function_of_its_arguments():
  example = _questions('train', 40)[-1]
  first = [
      expert.expert_turn(example, (), halved, np.random.default_rng(seed))
      for seed in range(30)
  ]
  again = [
      expert.expert_turn(example, (), halved, np.random.default_rng(seed))
      for seed in range(30)
  ]
  assert first == again


def test_an_example_from_elsewhere_is_refused():
  example = _questions('train', 1)[0]
  strange = Example(
      id=example.id,
      images=example.images,
      question='colour of the sky?',
      answers=('blue',),
      source=example.source,
      scope=example.scope,
  )
  with pytest.raises(UserError, match='make the data set anew'):
    expert.expert_turn(strange, (), halved, np.random.default_rng(0))
