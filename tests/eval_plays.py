"""Scripted policies for the tests of evaluation."""

from __future__ import annotations

import hashlib


def mixed(request, turns):
  """Searches as its seed says, and is right in some way of two in three."""
  kind = request.seed % 6
  searches = {0: 0, 1: 1, 2: 2}.get(kind, 0)
  if len(turns) < searches:
    query = f'{request.example.question} {len(turns)}'
    return 'look', [('text_search', {'query': query})], None
  if kind in (1, 4):
    return 'no', [], 'wrong'
  return 'so', [], request.example.answers[0]


def by_hand(request, turns):
  """What `mixed` must come to: (right, calls) of a seed."""
  del turns
  kind = request.seed % 6
  return kind not in (1, 4), {0: 0, 1: 1, 2: 2}.get(kind, 0)


def reads(request, turns):
  """Looks odd items up and says the end of what it finds; knows most others."""
  number = int(request.example.id.rpartition('_')[2])
  if turns and turns[-1].results:
    return 'so', [], turns[-1].results[0].hits[0].text[-8:]
  if number % 2:
    query = {'query': request.example.question}
    return 'look', [('text_search', query)], None
  return 'so', [], request.example.answers[0] if number else 'wrong'


def silent(request, turns):
  """Says its example's id, whatever it is asked."""
  del turns
  return 'hm', [], hashlib.sha256(request.example.id.encode()).hexdigest()[:6]


def nonsense(request, turns):
  del request, turns
  return {'answer': 'no'}
