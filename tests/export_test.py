"""configs/export.py: what others load is what a run has trained."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
import shlex
import shutil

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gog_jax import images
from gog_jax import models
from gog_jax.app import ask
from gog_jax.app import commands
from gog_jax.app import model_card
from gog_jax.app import stages
from gog_jax.errors import UserError
from gog_jax.models.families import FAMILIES
from gog_jax.report import pages as report
from gog_jax.storage import checkpoint
from gog_jax.storage import manifest
from gog_jax.storage import trajectories as store
from gog_jax.toy import knowledge
from gog_jax.toy import questions
from gog_jax.types import Trajectory
from tests import helpers
from tests import main_test
from tests import mini
from tests import report_helpers
from tests.chat_helpers import TOY
from tests.images_test import file_of
from tests.images_test import noise

TOLERANCE = 2e-4
ADAPTERS = {
    'trainable': 'lora', 'lora__rank': 3, 'lora__alpha': 9.0,
    'lora__vision': True, 'sft__optimizer__name': 'adamw',
    'rl__optimizer__name': 'adamw',
}  # fmt: skip


def make_base(folder, family: str, dtype=jnp.float32, **changes) -> None:
  """A tiny random model with the toy's tokenizer, as transformers keeps it."""
  for name in (
      'tokenizer.json', 'tokenizer_config.json', 'preprocessor_config.json'
  ):
    folder.mkdir(exist_ok=True)
    shutil.copy(TOY / name, folder)
  added = json.loads((TOY / 'tokenizer.json').read_text())['added_tokens']
  ids = {token['content']: token['id'] for token in added}
  config = helpers.tiny_config(family=family, **changes)
  config = dataclasses.replace(
      config,
      text=dataclasses.replace(config.text, vocab_size=832),
      image_token_id=ids['<|image_pad|>'],
      video_token_id=ids['<|video_pad|>'],
      vision_start_token_id=ids['<|vision_start|>'],
      vision_end_token_id=ids['<|vision_end|>'],
      eos_token_id=ids['<|im_end|>'],
      pad_token_id=ids['<|endoftext|>'],
  )
  models.save_pretrained(helpers.tiny_model(config), folder, dtype=dtype)
  # What we do not read and others do.
  raw = json.loads((folder / 'config.json').read_text())
  raw['text_config'] |= {'max_position_embeddings': 777, 'dtype': 'float32'}
  (folder / 'config.json').write_text(json.dumps(raw))
  (folder / 'chat_template.jinja').write_text('{{ messages }}')


def train(workdir: pathlib.Path, stage: str, **changes):
  """A stage's output as it would be, but for how its parameters came about."""
  run = mini.make_run(workdir, 'rl', **changes)
  model = run.load_model()
  _, params, _ = models.split(model, run.config.trainable)
  random = helpers.rng(5)
  params = jax.tree.map(
      lambda x: x.astype(jnp.float32)
      + jnp.float32(0.05) * random.standard_normal(x.shape, np.float32),
      params,
  )
  checkpoint.save_pytree(workdir / stage / 'params', params)
  made = stages.manifest_of(run, stage)
  about = stages.stages_of(run.config)[stage].about(run)
  made.write(workdir / stage, complete=True, **about)
  nnx.update(model, params)
  return run, model


def export(workdir, folder, stage='sft', base=TOY.name, **more) -> None:
  more = {f'export__{name}': value for name, value in more.items()}
  config = mini.make_config(
      'export', model__path=str(base), export__stage=stage,
      export__folder=str(folder), **more,
  )  # fmt: skip
  commands.do(config, workdir)


@pytest.fixture(scope='module', params=FAMILIES)
def adapted(request, tmp_path_factory):
  """The workdir of an SFT with adapters, the run, and its model."""
  folder = tmp_path_factory.mktemp(request.param)
  base = folder / 'base'
  make_base(base, request.param, tied=request.param == 'qwen2_5_vl')
  run, model = train(
      folder / 'run', 'sft', model__path=str(base), **ADAPTERS
  )
  return run, model, base


def conversation(run):
  """A photo and some words: what our model and theirs are given."""
  data = file_of(noise(150, 90))
  patches, grid = run.processor.patches(data)
  c = run.model_config
  n = len(patches) // c.vision.merge_size**2
  words = run.chat.codec.encode_text('which shape is it?')
  tokens = np.array([[
      c.vision_start_token_id, *[c.image_token_id] * n,
      c.vision_end_token_id, *words,
  ]])  # fmt: skip
  return data, (tokens, np.ones_like(tokens), patches, np.array([grid]))


def their_logits(model, run, tokens, mask, patches, grids):
  torch = helpers.require_torch()
  with torch.no_grad():
    return model(
        input_ids=torch.tensor(tokens),
        attention_mask=torch.tensor(mask),
        pixel_values=torch.tensor(patches),
        image_grid_thw=torch.tensor(grids),
        mm_token_type_ids=torch.tensor(
            tokens == run.model_config.image_token_id
        ).int(),
    ).logits.numpy()


def test_a_merged_folder_is_the_model_in_transformers(
    adapted, tmp_path, capsys
):
  run, model, base = adapted
  transformers = helpers.require('transformers')
  data, inputs = conversation(run)
  # Rank, scale and towers are not given again: the run knows them.
  folder = tmp_path / 'out'
  export(run.workdir, folder, base=base)
  loaded, info = transformers.AutoModelForImageTextToText.from_pretrained(
      folder, output_loading_info=True
  )
  assert type(loaded).__name__ == FAMILIES[run.model_config.family].hf_class
  assert not any(info[key] for key in ('missing_keys', 'unexpected_keys'))
  assert loaded.config.text_config.max_position_embeddings == 777
  expected = np.asarray(model(*inputs))
  plain, _ = models.from_pretrained(base, dtype=jnp.float32)
  assert np.abs(expected - plain(*inputs)).max() > 0.1
  found = their_logits(loaded.eval(), run, *inputs)
  np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)
  # Ours read it, too.
  ours, _ = models.from_pretrained(folder, dtype=jnp.float32)
  np.testing.assert_allclose(ours(*inputs), expected, rtol=0, atol=TOLERANCE)
  # Tokenizer, template and pixels are those of training, whose images are of 9
  # tokens at most.
  tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
  text = 'which shape?<|im_end|>\n'
  assert tokenizer.encode(text) == tokenizer.encode('which shape?') + [
      run.chat.stop_ids[0], *run.chat.codec.encode_text('\n')
  ]  # fmt: skip
  assert tokenizer.chat_template == '{{ messages }}'
  processor = transformers.AutoImageProcessor.from_pretrained(folder)
  theirs = processor(images.decode(data), return_tensors='np')
  np.testing.assert_array_equal(theirs['pixel_values'], inputs[2])
  np.testing.assert_array_equal(theirs['image_grid_thw'], inputs[3])
  generation = transformers.GenerationConfig.from_pretrained(folder)
  assert generation.eos_token_id == list(run.chat.stop_ids)
  said = capsys.readouterr()
  assert f'vllm serve {folder} --dtype float32' in said.out
  assert f'launch_server --model-path {folder} --dtype float32' in said.out
  assert 'is left' not in said.err


def test_an_adapter_is_the_model_in_peft(adapted, tmp_path, capsys):
  run, model, base = adapted
  peft = helpers.require('peft')
  transformers = helpers.require('transformers')
  _, inputs = conversation(run)
  export(run.workdir, tmp_path / 'out', base=base, format='adapter')
  # It names its base, which is where it was.
  named = json.loads((tmp_path / 'out' / 'adapter_config.json').read_text())
  theirs = transformers.AutoModelForImageTextToText.from_pretrained(
      named['base_model_name_or_path']
  )
  loaded = peft.PeftModel.from_pretrained(theirs, tmp_path / 'out').eval()
  found = their_logits(loaded, run, *inputs)
  np.testing.assert_allclose(found, model(*inputs), rtol=0, atol=TOLERANCE)
  transformers.AutoTokenizer.from_pretrained(tmp_path / 'out')
  # The vision tower's query, key and value are one of rank 9.
  said = capsys.readouterr().out
  assert '--max-lora-rank 16 --enable-tower-connector-lora' in said
  assert f'--lora-paths sft={tmp_path}/out' in said


def test_bfloat16_says_what_it_leaves_of_small_adapters(tmp_path, capsys):
  """Merged in bfloat16, half of them would be gone without a word."""
  base = tmp_path / 'base'
  make_base(base, 'qwen2_5_vl', dtype=jnp.bfloat16)
  run, _ = train(
      tmp_path / 'run', 'sft', model__path=str(base), **ADAPTERS
  )
  params = mini.trained_params(run, 'sft')
  small = jax.tree.map(lambda x: 0.04 * x, params)
  checkpoint.save_pytree(run.workdir / 'sft' / 'params', small)
  export(run.workdir, tmp_path / 'whole', base=base)
  assert 'is left in' not in capsys.readouterr().err
  export(run.workdir, tmp_path / 'half', base=base, dtype='bfloat16')
  said = capsys.readouterr().err
  (percent,) = map(int, re.findall(r'(\d+)% of what the adapters add', said))
  assert 1 < percent < 90
  assert 'export.dtype=float32' in said
  card = (tmp_path / 'half' / 'README.md').read_text()
  (share,) = map(float, re.findall(r'which keeps ([0-9.]+)%', card))
  assert abs(share - percent) < 0.6
  whole, half = (
      models.from_pretrained(tmp_path / name, dtype=jnp.float32)[0]
      for name in ('whole', 'half')
  )
  exact = whole.text.blocks.up.kernel[...]
  assert (exact != exact.astype(jnp.bfloat16)).mean() > 0.9
  np.testing.assert_array_equal(  # Rounded once.
      half.text.blocks.up.kernel[...], exact.astype(jnp.bfloat16)
  )
  written = json.loads((tmp_path / 'half' / 'config.json').read_text())
  assert written['dtype'] == written['text_config']['dtype'] == 'bfloat16'


@pytest.fixture(scope='module', name='toy')
def the_toy(tmp_path_factory):
  """Its workdir with an RL that trained all but the vision tower."""
  workdir = tmp_path_factory.mktemp('toy')
  return train(workdir, 'rl')[0]


def test_what_cannot_be_exported_is_one_line(toy, tmp_path):
  workdir, out = toy.workdir, tmp_path / 'out'

  def refused(words, **options):
    options = {'folder': out, 'stage': 'rl'} | options
    with pytest.raises(UserError, match=words) as error:
      export(workdir, **options)
    assert len(str(error.value).splitlines()) == 1

  refused('rl has no adapter.*format=merged', format='adapter')
  refused('base has no adapter', format='adapter', stage='base')
  refused('there is no complete sft in', stage='sft')
  refused("export.stage is 'gog@rl', not one of base", stage='gog@rl')
  refused('arms are those of the page', stage='rl_fast')
  refused('gs://b/x is not on this machine', folder='gs://b/x')
  refused('export.folder must be given', folder='')
  make_base(tmp_path / 'other', 'qwen2_5_vl')
  refused('trained on the weights and word', base=tmp_path / 'other')
  assert not list(tmp_path.glob('out*'))
  out.mkdir()
  (out / 'precious').write_text('x')
  refused('is there already: choose another')
  assert [path.name for path in out.iterdir()] == ['precious']
  refused('is there already', folder=out / 'precious')
  saved = manifest.read(workdir / 'rl')
  try:
    (workdir / 'rl' / 'manifest.json').write_text(
        json.dumps(saved | {'complete': False})
    )
    refused('there is no complete rl in', folder=tmp_path / 'new')
  finally:
    (workdir / 'rl' / 'manifest.json').write_text(json.dumps(saved))


def test_half_a_folder_is_none(toy, tmp_path, monkeypatch):
  def killed(*unused_args, **unused):
    raise KeyboardInterrupt

  monkeypatch.setattr(model_card, 'write', killed)
  (tmp_path / 'out').mkdir()
  with pytest.raises(KeyboardInterrupt):
    export(toy.workdir, tmp_path / 'out', 'rl')
  assert not list((tmp_path / 'out').iterdir())
  monkeypatch.undo()
  export(toy.workdir, tmp_path / 'out', 'rl')
  assert not (tmp_path / 'out.partial').exists()
  # What is trained is kept in float32, and rounded once.
  export(toy.workdir, tmp_path / 'half', 'rl', dtype='bfloat16')
  whole, half = (
      models.from_pretrained(tmp_path / name, dtype=jnp.float32)[0]
      for name in ('out', 'half')
  )
  exact = whole.text.blocks.up.kernel[...]
  assert (exact != exact.astype(jnp.bfloat16)).mean() > 0.9
  leaves = (jax.tree.leaves(nnx.state(model)) for model in (whole, half))
  for one, other in zip(*leaves, strict=True):
    np.testing.assert_array_equal(one.astype(jnp.bfloat16), other)


def test_the_card_says_what_is_known(toy, tmp_path):
  workdir = tmp_path / 'run'
  shutil.copytree(toy.workdir, workdir)
  born = manifest.birthmark(workdir / 'rl')
  found = report_helpers.ten()
  for policy, made_from in (('rl', born), ('direct@rl', 'another')):
    folder = workdir / 'eval' / policy
    examples = list(found.examples.values())
    store.write(folder / 'trajectories.jsonl', found.trajectories, examples)
    manifest_of = {
        'complete': True,
        'config': {'reward': {'accuracy': 'judge'}},
        'inputs': {'rl': f'0123 {made_from}', 'judge': 'a model, prompt 7'},
        'benchmark': {'name': 'mine', 'n': 10},
    }
    (folder / 'manifest.json').write_text(json.dumps(manifest_of))
  report.make(workdir, n_trajectories=0, seed=0)
  export(workdir, tmp_path / 'out', 'rl')
  card = (tmp_path / 'out' / 'README.md').read_text()
  front = card.split('---\n')[1]
  assert 'library_name: transformers' in front
  assert '# license: yours to choose' in front
  assert 'base_model' not in front  # It has no name on the hub.
  assert '- RL questions: world\n' in card
  assert '- rewarded by: answer_match\n' in card
  assert '- searched: world/' in card
  assert 'Right is what judge (a model, prompt 7) says' in card
  assert re.search(r'^rl +70\.0 ', card, re.M)
  # Those are other weights' figures.
  assert 'direct@rl' not in card
  assert toy.chat.codec.decode(toy.chat.head).strip() in card
  assert '"learning_rate"' in card
  assert str(tmp_path) not in card and str(TOY.parent) not in card


@pytest.mark.parametrize(
    ('said', 'shown'),
    [
        ('/home/me/data/x.jsonl', 'x.jsonl'),
        ('jsonl:/home/me/x.jsonl, verl:~/y', 'jsonl:x.jsonl, verl:y'),
        ('../../secret/x', 'x'),
        ('data/sub/x.jsonl', 'data/sub/x.jsonl'),
        ('retriever/http://127.0.0.1:8000/v1', 'retriever/http://127.0.0.1:8000/v1'),
        ('Qwen/Qwen2.5-VL', 'Qwen/Qwen2.5-VL'),
        ('{"a": "/x/y/z", "b": 1}', '{"a": "z", "b": 1}'),
    ],
)
def test_a_card_names_no_folder_of_the_machine(said, shown):
  assert model_card._public(said) == shown


def test_the_readme_s_commands(toy, tmp_path):
  """Export, and a question to what was exported, as they are printed."""
  text = (main_test.ROOT / 'README.md').read_text()
  section = text.split('## Export\n')[1].split('\n## ')[0]
  printed = re.findall(r'^    (python(?:.*\\\n)*.*)$', section, re.M)
  commands_ = [shlex.split(one.replace('\\\n', '')) for one in printed]
  assert [one[3] for one in commands_] == [
      '--config=configs/export.py', '--config=configs/ask.py'
  ]  # fmt: skip
  scene = tmp_path / 'photo.jpg'
  scope = knowledge.make_scope('test', 0)
  example = questions.make_question(scope, 0).example
  scene.write_bytes(example.images[0])
  there = {
      'runs/toy': str(toy.workdir),
      'my_agent': str(tmp_path / 'my_agent'),
      'photo.jpg': str(scene),
      'SCOPE': scope,
  }
  for one in commands_:
    args = [
        '='.join(there.get(part, part) for part in arg.split('='))
        for arg in one
    ]
    if 'ask' in args[3]:
      args.append(f'--workdir={tmp_path}/asked')
    code, lines = main_test.run(*args[3:])
    assert code == 0, lines
  # Word for word what the run's own policy says.
  config = mini.make_config(
      'ask', policy='rl', image=str(scene), scope=scope,
      question='which shape?',
  )  # fmt: skip
  ask.ask(config, toy.workdir)
  exported, own = (
      store.read(folder / 'ask/0001/trajectories.jsonl', Trajectory)[0]
      for folder in (tmp_path / 'asked', toy.workdir)
  )
  np.testing.assert_array_equal(exported.token_ids, own.token_ids)
  np.testing.assert_allclose(
      exported.sampler_logprobs, own.sampler_logprobs, atol=1e-4
  )
