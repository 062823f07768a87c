"""Imports point down only, and pull in neither torch nor TensorFlow."""

from __future__ import annotations

import ast
import pathlib
import subprocess
import sys

import pytest

pytestmark = pytest.mark.quick

PACKAGE = pathlib.Path(__file__).parents[1] / 'gog_jax'

# Lowest first; a module may import from its own package and from lower layers,
# never from another package of its layer. A module that its package's layer is
# not right for is named by itself.
FLOORS = (
    (
        'errors', 'seams', 'interrupt', 'remote', 'types', 'storage', 'images',
        'boxes', 'config', 'models.sharding', 'tools.base', 'remote.ledger',
        'remote.endpoint', 'rewards.behaviour',
    ),
    ('models', 'tools', 'rewards', 'chat'),
    ('app.inspect_folder', 'index', 'train.pipeline'),
    ('rollout', 'toy', 'questions'),
    ('index.serve', 'judge', 'conversations', 'evaluation.scripts'),
    ('run',),
    ('evaluation.policies', 'evaluation.collect'),
    ('evaluation.grade', 'report', 'app.narrator'),
    ('train', 'instruct'),
    ('toy.train',),
    ('app.ask',),
    ('aot',),
    ('evaluation.evaluate',),
    ('evaluation.estimate',),
    ('app.stages',),
    ('app',),
    ('main',),
)  # fmt: skip
# On the ground floor modules do build on each other, in this order.
GROUND = FLOORS[0]


def room_of(module: str) -> str:
  """'gog_jax.models.text' -> 'models'."""
  name = module.removeprefix('gog_jax.')
  trains = ('demos', 'pretrain', 'lessons', 'probe', 'policy')
  if name.startswith(tuple(f'toy.{part}' for part in trains)):
    return 'toy.train'
  known = {room for floor in FLOORS for room in floor}
  while name not in known and '.' in name:
    name = name.rpartition('.')[0]
  return name


def floor_of(room: str) -> int:
  for floor, rooms in enumerate(FLOORS):
    if room in rooms:
      return floor
  raise AssertionError(f'{room} has no floor: add it to FLOORS')


def imports(path: pathlib.Path):
  """Modules of the package that a file imports, wherever in the file."""
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.ImportFrom) and node.module:
      if node.module.partition('.')[0] == 'gog_jax':
        for alias in node.names:
          yield f'{node.module}.{alias.name}'
    elif isinstance(node, ast.Import):
      for alias in node.names:
        if alias.name.startswith('gog_jax.'):
          yield alias.name


def upward_edges(package: pathlib.Path):
  edges = []
  for path in sorted(package.rglob('*.py')):
    parts = path.relative_to(package.parent).with_suffix('').parts
    if parts == ('gog_jax', '__init__'):
      continue
    here = room_of('.'.join(parts))
    for module in imports(path):
      there = room_of(module)
      if there == here:
        continue
      if here in GROUND and there in GROUND:
        if GROUND.index(there) > GROUND.index(here):
          edges.append(f'{path.name}: {here} -> {there}')
        continue
      if floor_of(there) >= floor_of(here):
        edges.append(f'{path.name}: {here} -> {there}')
  return edges


def test_imports_point_down():
  assert upward_edges(PACKAGE) == []


def test_an_upward_edge_is_seen(tmp_path):
  room = tmp_path / 'gog_jax' / 'tools'
  room.mkdir(parents=True)
  (room / 'bad.py').write_text('def f():\n  from gog_jax.chat import Chat\n')
  assert upward_edges(tmp_path / 'gog_jax') == ['bad.py: tools -> chat']


def test_no_torch_no_tensorflow_no_network():
  code = """
import socket, sys
def refuse(*args, **kwargs): raise OSError('network')
socket.socket.connect = refuse
import gog_jax, gog_jax.main, gog_jax.app.commands
assert not {'torch', 'tensorflow', 'transformers'} & sys.modules.keys()
"""
  subprocess.run([sys.executable, '-c', code], check=True, cwd=PACKAGE.parent)


def test_files_are_short():
  sources = [
      *PACKAGE.rglob('*.py'),
      *(PACKAGE.parent / 'configs').glob('*.py'),
      *(PACKAGE.parent / 'scripts').glob('*.py'),
      *(PACKAGE.parent / 'tests').glob('*.py'),
  ]
  long = {
      path.name: n
      for path in sources
      if (n := len(path.read_text().splitlines())) > 400
  }
  assert not long
