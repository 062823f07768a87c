"""The paper's recipe: instruct -> SFT -> grade -> RL -> evaluation -> table.

    python -m gog_jax.main --config=configs/gog.py:qwen3_vl_8b_thinking \
      --config.model.path=FOLDER \
      --config.questions.train="('verl:FVQA_TRAIN.parquet', \
      'infoseek:INFOSEEK_TRAIN.jsonl')" \
      --config.tools.index=DIR --config.remote.url=http://TEACHER/v1 \
      --config.judge.url=http://JUDGE/v1 --workdir=runs/gog --dry_run

Without --dry_run it runs. What is missing is asked for in one line; what is
complete is reused, so the same command goes on wherever it was stopped.
configs/sft.py, grade.py, rl.py and eval.py go on with its settings in the same
--workdir. InfoSeek's images lie beside its file, or in `questions.images`. With
a set of your own, --config.sft.data=SET, no teacher is asked.

Draw from InfoSeek-train first: as published it has about 930,000 questions, and
8 samples of each are 7 million conversations. 'infoseek:FILE*2' takes two of
its questions for each of FVQA-train, and `questions.n` that many in all;
`grade.n_queries` grades the first of those alone. Every image of a source is
opened once at each start, so a shorter file starts sooner. RL keeps the images
of its level in memory: 10,000 of 100 kB are 1 GB.

Beside each value stands where it is from, arXiv 2601.13942 ("paper") or us
("ours"). One thing is not the paper's and cannot be set here: it searches the
live web (a search API, Jina Reader), and this page an index of yours. Its
numbers may not stand beside the paper's until the live web can be searched.

Evaluated are 5 % of train's images, which are held out. For the paper's six
benchmarks name them in `questions.exclude`, as 'benchmark:NAME:PATH', before
the first start, and evaluate each with configs/eval.py, then configs/table.py,
in the same --workdir.

RL trains for all its epochs, as in the paper, and keeps no best checkpoint. For
one, add 'rl_best' to `eval.policies` and pass --config.rl.n_validation=256
--config.questions.validation="('train:5%',)".
"""

from gog_jax.config import sibling

common = sibling(__file__, 'common')
sections = sibling(__file__, 'sections')

PROFILES = ('qwen3_vl_8b_thinking', 'qwen2_5_vl_7b')  # Paper: both backbones.
_ALL = 10**9  # As many as there are.


def get_config(profile: str = PROFILES[0]):
  if profile not in PROFILES:
    raise ValueError(
        f'the paper trains {" and ".join(PROFILES)}, not {profile!r}; other '
        'pages take every profile'
    )
  c = common.get_base(profile)
  c.stage = 'gog'
  c.unasked = True
  c.questions.update(
      train=('verl:', 'infoseek:'),  # Paper: FVQA-train and InfoSeek-train.
      test=('train:5%',),  # Ours.
  )
  c.tools.update(
      backend='index',  # Ours, see above.
      top_k=3,  # Ours.
  )
  c.rollout.update(
      max_turns=8,  # Ours.
      # Paper: a response of 8,192, observations included.
      # Ours: 4,096 more, for the prompt and its images.
      max_context=12288,
  )
  c.batch.row_tokens = 12288  # Ours: any conversation fits.

  c.instruct = sections.instruct()
  c.instruct.update(
      teacher='remote',  # Paper: a larger model.
      n=5750,  # Paper.
      no_search=0.435,  # Paper.
      n_queries=_ALL,  # Ours.
      n_direct=4,  # Paper: the uncertainty filter's N.
      direct_temperature=1.0,  # Ours.
      easy='drop',  # Paper: all 4 right is too simple.
      samples=2,  # Ours.
      gold='any',  # Ours, as are the other automatic checks.
      evidence=True,  # Ours.
      n_review=50,  # Paper: people check; ours: how many.
  )
  c.remote.update(
      model='Qwen3-VL-235B-A22B-Instruct',  # Paper.
      temperature=0.7,  # Ours.
      seeded=True,  # Ours.
  )

  c.trainable = 'lora'  # Paper for SFT; ours for RL, of which it does not say.
  c.lora.update(
      rank=8,  # Paper, on all transformer blocks;
      vision=False,  # ours: those of the language model.
      alpha=16.0,  # Ours.
  )
  c.sft.update(
      epochs=3.0,  # Paper.
      batch_size=8,  # Paper.
      n_validation=0,  # Paper: for all its epochs.
      optimizer=common.optimizer(
          learning_rate=1e-4,  # Paper.
          warmup_steps=50,  # Ours.
          decay='constant',  # Ours.
      ),
  )

  c.grade.update(
      n_queries=_ALL,  # Paper: every original query.
      samples=8,  # Ours: "several times" in the paper.
      solved=0.75,  # Ours: Level 1 is "about 50 %" in the paper.
      often_failed=0.3,  # Ours: Level 2 "often fails".
  )
  c.rl.update(
      variant='grpo',  # Paper.
      level=2,  # Paper.
      group_size=4,  # Paper: N.
      epochs=15.0,  # Paper.
      n_prompts=64,  # Ours.
      updates_per_batch=1,  # Ours.
      n_validation=0,  # Paper: for all its epochs.
      optimizer=common.optimizer(
          # Ours, of adapters. Paper: 2e-6, to pass with trainable='full'.
          learning_rate=2e-5,
          warmup_steps=10,  # Ours.
          decay='constant',  # Ours.
      ),
  )
  c.rl.loss.kl_coef = 0.001  # Paper: to the SFT model.
  c.reward.update(
      accuracy='judge',  # Paper.
      format_weight=0.1,  # Ours, MMSearch-R1's: lambda is not in the paper.
  )
  c.judge.model = 'gpt-oss-120b'  # Paper.

  c.eval.update(
      benchmark='test',  # Ours, see above.
      n_examples=_ALL,  # Ours.
      # Paper: the rows of its table that need no other weights.
      policies=('direct@base', 'gog@base', 'full_search@base', 'sft', 'rl'),
  )
  c.untouched.update({'remote': c.remote})  # For the teacher alone.
  return c
