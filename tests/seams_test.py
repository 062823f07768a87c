"""What a user names by file or module is found, or refused in one line."""

from __future__ import annotations

import pytest

from gog_jax import seams
from gog_jax.errors import UserError

pytestmark = pytest.mark.quick

KNOWN = {'join': 'os.path:join', 'split': 'os.path:split'}


def test_ours_by_a_short_name():
  assert seams.load('join', KNOWN, field='config.x')('a', 'b') == 'a/b'


def test_a_module_and_a_file(tmp_path):
  path = tmp_path / 'mine.py'
  path.write_text(
      'import dataclasses\n'
      '@dataclasses.dataclass\n'
      'class Pair:\n  a: int = 1\n'
      'def double(x):\n  return 2 * x\n'
  )
  assert seams.load('math:floor', KNOWN, field='config.x')(1.5) == 1
  double = seams.load(f'{path}:double', KNOWN, field='config.x')
  assert double(4) == 8
  assert seams.load(f'{path}:Pair', KNOWN, field='config.x')().a == 1
  # One module, however often it is asked for.
  assert seams.load(f'{path}:double', KNOWN, field='config.x') is double


@pytest.mark.parametrize(
    ('name', 'said'),
    [
        ('joim', "config.x: there is no 'joim'; the nearest is 'join'"),
        ('missing.py:f', 'there is no file missing.py'),
        ('no_such_module:f', 'No module named'),
        ('math:no_such', 'no_such'),
        (':f', "there is no ':f'"),
        ('math:', "there is no 'math:'"),
    ],
)
def test_what_is_not_there_is_one_line(name, said):
  with pytest.raises(UserError, match=said) as raised:
    seams.load(name, KNOWN, field='config.x')
  assert 'config.x' in str(raised.value) or 'no file' in str(raised.value)


def test_a_file_that_raises_is_the_users_to_mend(tmp_path):
  path = tmp_path / 'broken.py'
  path.write_text('1 / 0\n')
  for _ in range(2):  # Not kept half imported.
    with pytest.raises(UserError, match='ZeroDivisionError'):
      seams.load(f'{path}:f', KNOWN, field='config.x')


def test_a_digest_follows_the_source(tmp_path):
  one, two = tmp_path / 'one.py', tmp_path / 'two.py'
  one.write_text('def f():\n  return 1\n')
  two.write_text('def f():\n  return 2\n')
  digests = {
      seams.digest(f'{path}:f', KNOWN, field='config.x').split()[1]
      for path in (one, two)
  }
  assert len(digests) == 2
  assert seams.digest('join', KNOWN, field='config.x') == 'join'
  with pytest.raises(UserError, match='has no Python source'):
    seams.digest('math:floor', KNOWN, field='config.x')
