"""Images by their addresses: whom a set may ask, and what becomes of failures.
"""

from __future__ import annotations

import collections
import json
import socket
from typing import Any

import pytest

from configs import sections
from gog_jax.config.evaluation import FetchConfig
from gog_jax.errors import UserError
from gog_jax.questions import fetched
from gog_jax.questions import questions as q
from gog_jax.questions import sources
from gog_jax.questions import splits
from gog_jax.remote import public
from gog_jax.storage import typed
from tests import benchmark_fixtures as fixtures
from tests import chaos_server
from tests import mini

LOOPBACK = ('127.0.0.1',)
IMAGE = (200, {}, fixtures.picture(0))


def folder_of(path, *, allowed=True, **fields: Any):
  values = sections.fetch().to_dict() | {'private': LOOPBACK} | fields
  return fetched.Fetched(
      str(path),
      typed.read(FetchConfig, values),
      allowed=allowed,
      section='questions',
  )


def save(path, *images):
  rows = [
      {'id': f'q{i}', 'question': 'who?', 'answer': 'x', 'image': image}
      for i, image in enumerate(images)
  ]
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  return f'jsonl:{path}'


def opened(name, folder, **options):
  return sources.open(
      (name,), split='train', workdir='', fetched=folder, **options
  )


def connect(address, *allowed):
  family = socket.AF_INET6 if ':' in address else socket.AF_INET
  networks = typed.read(
      FetchConfig, sections.fetch().to_dict() | {'private': allowed}
  ).networks
  found = (family, socket.SOCK_STREAM, 6, '', (address, 80))
  public.maker(networks)(found).close()


@pytest.mark.parametrize(
    'address',
    [
        '127.0.0.1', '10.0.0.1', '172.16.0.1', '192.168.0.1', '0.0.0.0',
        '100.64.0.1', '100.100.100.200', '169.254.169.254', '168.63.129.16',
        '192.0.0.192', '198.18.0.1', '224.0.0.1', '240.0.0.1',
        '255.255.255.255', '::', '::1', '::127.0.0.1', '::ffff:127.0.0.1',
        '::ffff:169.254.169.254', '64:ff9b::a9fe:a9fe', '2002:7f00:1::',
        '2002:a9fe:a9fe::1', '2001:db8::1', 'fd00:ec2::254', 'fe80::1%1',
        'fec0::1', 'ff02::1',
    ],
)  # fmt: skip
def test_addresses_that_no_set_may_ask(address):
  with pytest.raises(public.NotPublic):
    connect(address)
  with pytest.raises(public.NotPublic):
    connect(address, '10.9.0.0/16', 'fd12::/16')


@pytest.mark.parametrize(
    'address',
    ['8.8.8.8', '192.31.196.1', '2606:4700::1111', '64:ff9b::808:808'],
)
def test_addresses_of_the_public_internet(address):
  connect(address)


def test_networks_that_are_allowed():
  connect('10.9.1.1', '10.9.0.0/16')
  connect('::ffff:10.9.1.1', '10.9.0.0/16')
  connect('fd00:ec2::254', 'fd00::/8')
  with pytest.raises(UserError, match="private=.'intranet',.: 'intranet' does"):
    connect('10.9.1.1', 'intranet')
  with pytest.raises(UserError, match='private=.*has host bits set'):
    connect('10.9.1.1', '10.9.1.1/16')


def test_private_hosts_are_asked_only_where_that_is_set(tmp_path, monkeypatch):
  """By number, by name, and by way of a server that may be asked."""
  resolve = socket.getaddrinfo

  def here(host, *args, **kwargs):  # As a name whose owner means us harm.
    hosts = ['127.0.0.1', '::1'] if host == 'x.test' else [host]
    return [found for one in hosts for found in resolve(one, *args, **kwargs)]

  monkeypatch.setattr(socket, 'getaddrinfo', here)
  answers: dict[str, Any] = {'/a.png': IMAGE}
  with fixtures.server(answers) as (host, asked):
    port = host.rpartition(':')[2]
    elsewhere = f'http://127.0.0.2:{port}/a.png'
    answers['/moved'] = (302, {'Location': elsewhere}, b'')
    answers['/file'] = (302, {'Location': 'file:///etc/passwd'}, b'')
    urls = [
        f'http://{name}:{port}/a.png'
        for name in ('127.0.0.1', 'x.test', 'localhost', '[::ffff:127.0.0.1]')
    ]
    name = save(tmp_path / 'a.jsonl', *urls, fixtures.PNG_URI)
    found = opened(name, folder_of(tmp_path / 'no', private=()))
    assert found.ids == ('q4',) and not asked
    assert {drop.reason for drop in found.drops} == {q.NOT_FETCHED}
    for drop, url in zip(found.drops, urls, strict=True):
      assert drop.detail == (
          f'{url} could not be fetched: its host is not on the public internet '
          '(--config.questions.fetch.private allows it)'
      )
    found = opened(name, folder_of(tmp_path / 'yes'))
    assert found.ids == ('q0', 'q1', 'q2', 'q3', 'q4') and len(asked) == 4
    assert {one.images for one in found} == {(fixtures.picture(0),)}
    other = save(tmp_path / 'b.jsonl', f'{host}/moved', f'{host}/file', urls[0])
    found = opened(other, folder_of(tmp_path / 'moved'))
    assert found.ids == ('q2',)
    assert asked[4:].count('/a.png') == 1  # Of its own address, q2.
    moved, to_file = (drop.detail for drop in found.drops)
    assert 'its host is not on the public internet' in moved
    assert 'NonHttpUrlRedirect' in to_file
    # Who may be asked may change.
    failed = json.loads((tmp_path / 'moved' / 'failed.json').read_text())
    assert [*failed] == [f'{host}/file']
    wider = folder_of(tmp_path / 'moved', private=('127.0.0.0/8',))
    found = opened(other, wider)
    assert 'Connect call failed' in found.drops[0].detail


def test_what_was_fetched_is_the_image_itself(tmp_path):
  """By the digests of stages; and from then on, nobody is asked."""
  (tmp_path / 'a.png').write_bytes(fixtures.picture(0))
  local = opened(save(tmp_path / 'a.jsonl', 'a.png'), folder_of(tmp_path / 'x'))
  with fixtures.server({'/a.png': IMAGE}) as (host, asked):
    name = save(tmp_path / 'b.jsonl', f'{host}/a.png')
    whole = opened(name, folder_of(tmp_path / 'images'))
    assert asked == ['/a.png']
    again = opened(name, folder_of(tmp_path / 'images'))
    assert asked == ['/a.png']
  assert local.digest == whole.digest == again.digest
  assert whole[0].images == again[0].images == local[0].images
  (file,) = (tmp_path / 'images').glob('*.png')
  file.unlink()
  with pytest.raises(UserError, match='record 0: http.*fetch_images'):
    again[0]


def test_parquet_and_functions_name_images_by_address(tmp_path):
  pa = pytest.importorskip('pyarrow')
  with fixtures.server({'/a.png': IMAGE, '/b': IMAGE}) as (host, asked):
    rows = [
        fixtures.verl_row(0, images=[{'bytes': None, 'path': f'{host}/a.png'}]),
        fixtures.verl_row(1, images=[{'bytes': None, 'path': f'{host}/none'}]),
    ]
    fixtures.write(tmp_path / 'a.parquet', rows, fixtures.VERL)
    schema = fixtures.VERL.set(1, pa.field('images', pa.list_(pa.string())))
    rows = [fixtures.verl_row(2, images=[f'{host.upper()}/b'])]
    fixtures.write(tmp_path / 'b.parquet', rows, schema)
    own = tmp_path / 'own.py'
    own.write_text(
        'def mine():\n  yield {"question": "who?", "answer": "x", "image": '
        f'"{host}/a.png"}}\n'
    )
    found = sources.open(
        (f'verl:{tmp_path}/a.parquet', f'parquet:{tmp_path}/b.parquet',
         f'{own}:mine'),
        split='train', workdir='', fetched=folder_of(tmp_path / 'images'),
    )  # fmt: skip
  assert found.ids == ('fvqa_test_0', 'fvqa_test_2', '0')
  assert {one.images for one in found} == {(fixtures.picture(0),)}
  assert found.left_out == f'1 {q.NOT_FETCHED}'
  assert sorted(asked) == ['/a.png', '/b', '/none']


def test_a_failure_costs_its_own_question(tmp_path, capsys):
  answers = {
      '/a.png': [(503, {}, b''), IMAGE],
      '/gone': (404, {}, b''),
      '/gone2': (404, {}, b''),
      '/page': (200, {'Content-Type': 'image/png'}, b'<html>no image</html>'),
      '/big': (200, {}, fixtures.picture(0) + bytes(2**19)),
      '/packed': (200, {'Content-Encoding': 'gzip'}, b''),
      '/bomb': (200, {}, chaos_server.bomb(10_000)),
      '/cut': (200, {}, fixtures.picture(0)[:60]),
      '/loop': (302, {'Location': '/loop'}, b''),
      '/down': (503, {}, b''),
  }
  with fixtures.server(answers) as (host, asked):
    urls = [f'{host}{path}' for path in answers] + ['http://', 'ftp://x/a.png']
    name = save(tmp_path / 'a.jsonl', *urls)
    folder = tmp_path / 'images'
    options: dict[str, Any] = {'max_bytes': 2**19, 'max_attempts': 2}
    found = opened(name, folder_of(folder, **options))
    n = len(asked)
    assert found.ids == ('q0',)
    counts = collections.Counter(asked)
    assert (counts['/a.png'], counts['/down'], counts['/gone']) == (2, 2, 1)
    details = {
        drop.detail.partition(' ')[0]: drop.detail for drop in found.drops
    }
    assert len(details) == 11
    for url, why in {
        f'{host}/gone': 'HTTP 404',
        f'{host}/page': 'no known image format',
        f'{host}/big': 'more than 524288 bytes',
        f'{host}/packed': 'Content-Encoding gzip',
        f'{host}/bomb': 'pixels',
        f'{host}/cut': 'cannot read',
        f'{host}/loop': 'TooManyRedirects',
        f'{host}/down': 'HTTP 503',
        'http://': 'InvalidUrl',
        'its': "'ftp://x/a.png' is not in",
    }.items():
      assert why in details[url] and '\n' not in details[url]
    assert len(list(folder.iterdir())) == 2  # The image, and what failed.
    said = capsys.readouterr().err
    assert '11 images are fetched into' in said
    assert '10 of 11 images could not be fetched: HTTP 404 (2), ' in said
    # Until one wants them to be asked for, it stays the same set.
    answers['/gone'] = IMAGE
    again = opened(name, folder_of(folder, **options))
    assert len(asked) == n and again.origin == found.origin
    (folder / 'failed.json').unlink()
    later = opened(name, folder_of(folder, **options))
    assert later.ids == ('q0', 'q1') and later.origin != found.origin


def test_splits_share_what_failed(tmp_path):
  """Each split is opened by itself, and in one process after another."""
  answers = {'/a': IMAGE, '/b': IMAGE, '/c': (200, {}, fixtures.picture(1))}
  with fixtures.server(answers) as (host, asked):
    train = save(tmp_path / 'a.jsonl', f'{host}/a', f'{host}/no', f'{host}/b')
    test = save(tmp_path / 'b.jsonl', f'{host}/c', f'{host}/none')
    config = mini.make_config(
        'eval',
        questions__fetch__private=LOOPBACK,
        questions__train=(train,),
        questions__validation=(test,),
        questions__test=(test,),
        eval__policies=('direct@base',),
    )
    found = splits.open(config, 'train', workdir=tmp_path)
    assert found.ids == ('q0', 'q2')
    splits._open.cache_clear()
    splits._leaked.cache_clear()
    again = splits.open(config, 'train', workdir=tmp_path)
    splits.open(config, 'test', workdir=tmp_path)
  assert sorted(asked) == ['/a', '/b', '/c', '/no', '/none']
  assert again.origin == found.origin
  failed = json.loads((tmp_path / 'fetched' / 'failed.json').read_text())
  assert failed == {f'{host}/{name}': 'HTTP 404' for name in ('no', 'none')}


def test_a_network_that_is_down_is_no_images_failure(tmp_path):
  with fixtures.server({}) as (host, _):
    name = save(tmp_path / 'a.jsonl', f'{host}/a.png')
  folder = folder_of(tmp_path / 'images', max_attempts=1)
  words = 'a.png could not be fetched: .*Connect call failed'
  with pytest.raises(UserError, match=words):
    opened(name, folder)
  assert not (tmp_path / 'images').exists()


def test_a_slow_server_has_its_time(tmp_path):
  with socket.socket() as silent:
    silent.bind(('127.0.0.1', 0))
    silent.listen()
    url = f'http://127.0.0.1:{silent.getsockname()[1]}/a.png'
    name = save(tmp_path / 'a.jsonl', url, fixtures.PNG_URI)
    found = opened(name, folder_of(tmp_path / 'x', timeout_s=0.3))
  assert found.ids == ('q1',)
  assert 'no answer within 0.3 s' in found.drops[0].detail


def test_nobody_is_asked_where_it_is_off_or_for_more_than_it_takes(tmp_path):
  with fixtures.server({f'/{i}': IMAGE for i in range(9)}) as (host, asked):
    name = save(tmp_path / 'a.jsonl', *(f'{host}/{i}' for i in range(9)))
    with pytest.raises(UserError, match='set --config.questions.fetch_images'):
      opened(name, folder_of(tmp_path / 'x', allowed=False))
    with pytest.raises(UserError, match='--config.questions.fetch.folder=FOLD'):
      opened(name, folder_of('gs://bucket/fetched'))
    assert not asked
    assert len(opened(name, folder_of(tmp_path / 'x'), n=3)) == 3
    assert sorted(asked) == ['/0', '/1', '/2']


def test_one_section_for_ones_own_and_for_benchmarks(tmp_path):
  with fixtures.server({'/a.png': IMAGE}) as (host, _):
    name = save(tmp_path / 'a.jsonl', f'{host}/a.png')
    config = mini.make_config(
        'eval',
        questions__fetch__private=LOOPBACK,
        benchmark__fetch__timeout_s=5.0,
        questions__test=(name,),
        eval__policies=('direct@base',),
    )
    assert config.questions.fetch == config.benchmark.fetch
    assert config.questions.fetch.timeout_s == 5
    found = splits.open(config, 'test', workdir=tmp_path)
  assert found[0].images == (fixtures.picture(0),)
  assert len(list((tmp_path / 'fetched').iterdir())) == 2
