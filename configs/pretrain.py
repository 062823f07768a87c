"""Makes the toy base: a tiny Qwen2.5-VL that sees, grounds and reads.

    python -m gog_jax.main --config=configs/pretrain.py

The result, a Hugging Face folder, is in WORKDIR/pretrain/model. After SFT it
answers nine in ten of the questions that need no search; the one in
gog_jax/assets/toy_base, the last of fourteen runs, each begun from the one
before (pretrain.start_from), is better at noticing a wrong gaze, see
docs/log.md.
"""

from ml_collections import ConfigDict

from gog_jax.config import sibling

common = sibling(__file__, 'common')


def get_config(profile: str = 'toy'):
  if profile != 'toy':
    raise ValueError('only the toy is pretrained; others come with weights')
  c = common.get_base(profile)
  c.stage = 'pretrain'
  c.rollout.max_context = 208  # Lessons.
  c.batch.row_tokens = 312  # Two lessons most often.
  c.batch.row_patches = 144  # Of a scene and n_exchanges crops at most.
  c.rollout.max_turn_tokens = 80  # The longest answer lists four emblems.
  c.pretrain = ConfigDict()
  c.pretrain.batch_size = 32
  c.pretrain.micro_rows = 4
  c.pretrain.n_exchanges = 3
  c.pretrain.read = phase(steps=180, reading=1.0)
  c.pretrain.look = phase(steps=760, reading=0.2)
  c.pretrain.look.update(
      survey=0.34, box=0.34, look=0.3, link=0.02
  )
  c.pretrain.refer = phase(steps=1010, reading=0.15)
  c.pretrain.refer.update(
      survey=0.07, list=0.04, box=0.2, look=0.43, switch=0.14, confirm=0.1,
      link=0.02, twins=0.3,
  )
  c.pretrain.copying = 0.3
  c.pretrain.start_from = ''
  c.pretrain.checkpoint_every = 200
  c.pretrain.n_probes = 128
  c.pretrain.optimizer = common.optimizer(
      name='muon',
      learning_rate=2e-3,
      muon_learning_rate=0.015,
      warmup_steps=50,
      decay='cosine',
  )
  # What the model's config.json will say; token ids are the tokenizer's.
  c.pretrain.architecture = ConfigDict({
      'model_type': 'qwen2_5_vl',
      'tie_word_embeddings': True,
      'hidden_size': 128,
      'num_hidden_layers': 4,
      'num_attention_heads': 4,
      'num_key_value_heads': 2,
      'intermediate_size': 384,
      'rms_norm_eps': 1e-6,
      'rope_parameters': {
          'rope_type': 'default',
          'rope_theta': 10000.0,
          'mrope_section': [4, 6, 6],
      },
      'vision_config': {
          'hidden_size': 96,
          'depth': 4,
          'num_heads': 4,
          'intermediate_size': 256,
          'out_hidden_size': 128,
          'patch_size': 14,
          'temporal_patch_size': 2,
          'spatial_merge_size': 2,
          'window_size': 56,
          'fullatt_block_indexes': [1, 3],
      },
  })
  return c


def phase(*, steps: int, reading: float) -> ConfigDict:
  """A phase about boxes alone, beside texts; see Phase of gog_jax/config/."""
  c = ConfigDict({'steps': steps, 'reading': reading, 'twins': 0.0})
  c.update(survey=0.0, list=0.0, box=1.0, look=0.0, crop=0.0, link=0.0,
           switch=0.0, confirm=0.0)
  return c
