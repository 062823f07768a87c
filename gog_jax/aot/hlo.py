"""What a compiled program sends between devices, read from its text.

XLA's own cost analysis counts the body of a loop once, and no collectives.
"""

from __future__ import annotations

import math
import re

_COMPUTATION = re.compile(r'^(?:ENTRY )?%?([\w.\-]+) \(.*\{$')
# A brace alone: what a kernel says of itself may break lines before one.
_END = re.compile(r'^\}(?:, execution_thread=.*)?$')
_RESULT = re.compile(r'^\s+(?:ROOT )?%?[\w.\-]+ = (.*?) ([\w\-]+)\(')
_ARRAY = re.compile(r'\b(pred|[suf]\d+|bf16|f8\w*)\[([\d,]*)\]')
_CALLED = re.compile(
    r'(?:calls|to_apply|body|condition|branch_computations|called_computations|'
    r'(?:true|false)_computation)'
    r'=\{?((?:%[\w.\-]+(?:, )?)+)'
)
_BODY = re.compile(r'body=%([\w.\-]+)')
_CONDITION = re.compile(r'condition=%([\w.\-]+)')
_CONSTANT = re.compile(r'[su]32\[\]\S* constant\((\d+)\)')
_ELEMENT = re.compile(r'[su]32\[\]\S* get-tuple-element\(.*\), index=(\d+)')
_NAME = re.compile(r'^\s+(?:ROOT )?%([\w.\-]+) = ')
_OPERAND = re.compile(r'%([\w.\-]+)')
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_CHANNEL = re.compile(r'channel_id=(\d+)')
# Three ways to say who takes part: a number of groups of a size, lists of
# devices, and some axes of a mesh.
_GROUPS = re.compile(r'replica_groups=\[(\d+),(\d+)\]')
_GROUP_LIST = re.compile(r'replica_groups=\{\{([\d,]*)\}')
_GROUP_AXES = re.compile(r'replica_groups=\w*\[([^\]]*)\] ?\{([^}]*)\}')

COLLECTIVES: tuple[str, ...] = (
    'all-gather',
    'all-reduce',
    'reduce-scatter',
    'all-to-all',
    'collective-permute',
)
# A kernel and the scope that models/attention.py calls it in.
_SPLASH = re.compile(
    r'op_name="[^"]*\b(causal|bidirectional)\b[^"]*'
    r'splash_mha_(fwd|dq|dkv)[^"]*/pallas_call"'
)


def collective_bytes(
    text: str, *, of_unknown: int | None = None
) -> dict[str, int]:
  """Bytes that each device sends, by the kind of collective.

  Of an array of n bytes in a group of g devices: an all-gather (n gathered)
  and a reduce-scatter (n before it) send n (g - 1) / g from each, an
  all-reduce twice that, an all-to-all n (g - 1) / g, a permute n. Loops count
  as often as they run, the branches of a condition all.

  Args:
    text: `compiled.as_text()`.
    of_unknown: How often a loop runs that does not say so.

  Raises:
    ValueError: Such a loop has a collective in it, and `of_unknown` is None.
  """
  computations, entry = _computations(text)
  totals: dict[str, dict[tuple[str, str], int]] = {}

  def total(name: str) -> dict[tuple[str, str], int]:
    """Of a computation, by kind and channel.

    A collective that runs beside other work is written several times, with one
    channel: where it starts, where it ends, and in what runs between, which may
    be a loop of which it sees but one turn.
    """
    if name in totals:
      return totals[name]
    result: dict[tuple[str, str], int] = {}

    def add(key: tuple[str, str], n_bytes: int):
      result[key] = min(result.get(key, n_bytes), n_bytes)

    for number, line in enumerate(computations.get(name, ())):
      kind, n_bytes = _own(line)
      if kind == 'all-reduce' and name.startswith('all-reduce-scatter'):
        # A kernel of which each device keeps only its part.
        kind, n_bytes = 'reduce-scatter', n_bytes // 2
      if kind:
        channel = _CHANNEL.search(line)
        add((kind, channel[1] if channel else f'{name}:{number}'), n_bytes)
      body = _BODY.search(line)
      for called in _called(line):
        inner = total(called)
        times = 1
        if body and called == body[1] and inner:
          times = _trips(line, computations) or of_unknown
          if times is None:
            raise ValueError(f'{called} does not say how often it runs')
        for key, value in inner.items():
          add(key, times * value)
    totals[name] = result
    return result

  sums: dict[str, int] = dict.fromkeys(COLLECTIVES, 0)
  for (kind, _), value in total(entry).items():
    sums[kind] += value
  return sums


def splash_kernels(text: str) -> frozenset[str]:
  """Which of splash attention's kernels are called, and under which mask.

  Returns:
    Of 'causal fwd', 'causal dq', 'causal dkv' (the decoder's) and the same of
    'bidirectional' (the vision tower's).
  """
  return frozenset(f'{mask} {what}' for mask, what in _SPLASH.findall(text))


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
  computations: dict[str, list[str]] = {}
  entry, name = '', None
  for line in text.splitlines():
    if found := _COMPUTATION.match(line):
      name = found[1]
      computations[name] = []
      if line.startswith('ENTRY'):
        entry = name
    elif _END.match(line):
      name = None
    elif name is not None:
      computations[name].append(line)
  return computations, entry


def _trips(line: str, computations: dict[str, list[str]]) -> int | None:
  """How often a loop runs: as it says, or as its counter says.

  The counter starts at 0, the condition compares it with the only number there
  is in it, and the body adds to it.
  """
  if found := _TRIPS.search(line):
    return int(found[1])
  condition, body = _CONDITION.search(line), _BODY.search(line)
  lines = computations.get(condition[1], []) if condition else []
  for inner in [name for one in lines for name in _called(one)]:
    lines = lines + computations.get(inner, [])
  bounds = {int(n) for n in _CONSTANT.findall('\n'.join(lines))}
  # One that ends early, as decoding does, has another test beside it.
  if len(bounds) != 1 or any(' and(' in one for one in lines):
    return None
  counters = {int(n) for n in _ELEMENT.findall('\n'.join(lines))}
  step = 1
  if len(counters) == 1 and body:
    step = _step(computations.get(body[1], []), counters.pop())
  return -(-bounds.pop() // step)


def _step(body: list[str], counter: int) -> int:
  """What a body adds to an element of what it carries; 1 if it is not seen."""
  by_name = {
      found[1]: line for line in body if (found := _NAME.match(line))
  }
  [root] = [line for line in body if line.lstrip().startswith('ROOT ')]
  carried = _operands(root, 'tuple')
  if counter >= len(carried):
    return 1
  added = _operands(by_name.get(carried[counter], ''), 'add')
  steps = [
      int(found[1])
      for name in added
      if (found := _CONSTANT.search(by_name.get(name, '')))
  ]
  return steps[0] if len(steps) == 1 else 1


def _operands(line: str, operation: str) -> list[str]:
  """Names of the operands, if the line is of this operation."""
  _, found, rest = line.partition(f' {operation}(')
  return _OPERAND.findall(rest.partition(')')[0]) if found else []


def _called(line: str) -> list[str]:
  names = []
  for group in _CALLED.findall(line):
    names += [name.strip().lstrip('%') for name in group.split(',')]
  return [name for name in names if name]


def _own(line: str) -> tuple[str | None, int]:
  """Kind of the collective on this line, if it is one, and what it sends."""
  found = _RESULT.match(line)
  if not found:
    return None, 0
  kind = found[2].removesuffix('-start')
  if kind not in COLLECTIVES:
    return None, 0
  sizes = [_n_bytes(*array) for array in _ARRAY.findall(found[1])]
  group = _group_size(line)
  if kind == 'all-reduce':
    # Several arrays may be reduced at once.
    moved = 2 * sum(sizes) * (group - 1) // group
  elif kind == 'all-gather':
    # A start's result holds operands as well as what is gathered.
    moved = (sum(sizes) if '-start(' not in line else max(sizes)) * (
        group - 1
    ) // group
  elif kind == 'reduce-scatter':
    # The result is one of g parts.
    moved = min(sizes) * (group - 1)
  elif kind == 'all-to-all':
    moved = sum(sizes) * (group - 1) // group
  else:
    moved = max(sizes)
  return kind, moved


def _n_bytes(dtype: str, shape: str) -> int:
  bits = 8 if dtype == 'pred' else int(re.findall(r'\d+', dtype)[0])
  return math.prod(int(n) for n in shape.split(',') if n) * bits // 8


def _group_size(line: str) -> int:
  if found := _GROUPS.search(line):
    return max(int(found[2]), 1)
  if found := _GROUP_LIST.search(line):
    return max(len(found[1].split(',')), 1)
  if found := _GROUP_AXES.search(line):
    sizes = dict(re.findall(r"'(\w+)'=(\d+)", found[1]))
    return math.prod(int(sizes[a]) for a in re.findall(r"'(\w+)'", found[2]))
  return 1
