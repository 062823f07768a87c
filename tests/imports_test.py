"""Imports point down only, and pull in neither torch nor TensorFlow."""

from __future__ import annotations

import ast
import graphlib
import pathlib
import subprocess
import sys

import pytest

pytestmark = pytest.mark.quick

PACKAGE = pathlib.Path(__file__).parents[1] / 'gog_jax'

# Lowest first. A package, or a module at the root, imports from lower layers
# only.
LAYERS = (
    ('errors', 'interrupt', 'types'),
    ('language', 'seams', 'storage'),
    ('boxes', 'config', 'images', 'remote'),
    ('models', 'chat', 'tools', 'rewards'),
    ('rollout', 'judge', 'index', 'report'),
    ('run', 'questions'),
    ('evaluation', 'conversations', 'train'),
    ('instruct', 'toy', 'aot'),
    ('app',),
    ('main',),
)
CORE = (
    *LAYERS[0], *LAYERS[1], *LAYERS[2], *LAYERS[3], 'rollout', 'run', 'train',
)
# What can be left out: the core loads it by name, if at all.
SHELVES = (
    'questions', 'judge', 'index', 'report', 'evaluation', 'conversations',
    'instruct', 'toy', 'aot',
)  # fmt: skip


def package_of(module: str) -> str:
  """'gog_jax.models.text' -> 'models'."""
  return module.split('.')[1]


def layer_of(package: str) -> int:
  for layer, packages in enumerate(LAYERS):
    if package in packages:
      return layer
  raise AssertionError(f'{package} has no layer: add it to LAYERS')


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


def edges(package: pathlib.Path):
  """(file, importing package, imported package), where they differ."""
  for path in sorted(package.rglob('*.py')):
    parts = path.relative_to(package.parent).with_suffix('').parts
    if parts == ('gog_jax', '__init__'):
      continue
    here = package_of('.'.join(parts))
    for module in imports(path):
      there = package_of(module)
      if there not in (here, '__version__'):
        yield path.name, here, there


def upward_edges(package: pathlib.Path) -> list[str]:
  return [
      f'{name}: {here} -> {there}'
      for name, here, there in edges(package)
      if layer_of(there) >= layer_of(here)
  ]


def test_imports_point_down():
  assert upward_edges(PACKAGE) == []


def test_no_module_imports_itself_by_way_of_others():
  """Within a package, too."""
  modules = {
      '.'.join(path.relative_to(PACKAGE.parent).with_suffix('').parts): path
      for path in PACKAGE.rglob('*.py')
  }
  known = {name.removesuffix('.__init__'): name for name in modules}
  graph = {}
  for name, path in modules.items():
    # A module, or a name in one.
    found = {
        known.get(there) or known.get(there.rpartition('.')[0])
        for there in imports(path)
    }
    graph[name] = found - {None, name}
  assert sum(map(len, graph.values())) > 500
  graphlib.TopologicalSorter(graph).prepare()  # Raises at a circle.


def test_the_core_imports_no_shelf():
  assert {*CORE, *SHELVES, 'app', 'main'} == {
      package for layer in LAYERS for package in layer
  }
  found = [edge for edge in edges(PACKAGE) if edge[1] in CORE]
  assert found and not [edge for edge in found if edge[2] in SHELVES]


def test_few_files_stand_at_the_root():
  assert len(list(PACKAGE.glob('*.py'))) <= 9 and len(LAYERS) <= 10


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
