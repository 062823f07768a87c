r"""Conversations of an agent, in this project's files and in those of others.

Your data in ten lines, here of LLaMA-Factory's kind (ms-swift's will do too):

    import json, pathlib
    call = {'name': 'text_search', 'arguments': {'query': 'belwen year'}}
    turns = [('human', '<image>year of the blue circle?'),
             ('function_call', '<think>belwen</think>' + json.dumps(call)),
             ('observation', 'belwen year 129'), ('gpt', '129')]
    row = {'images': ['images/scene.png'],  # Beside the file.
           'conversations': [{'from': f, 'value': v} for f, v in turns]}
    with pathlib.Path('mine.jsonl').open('a') as f:
      f.write(json.dumps(row) + '\n')

    python -m gog_jax.main --config=configs/sft.py --workdir=runs/mine \
      --config.sft.data=mine.jsonl --config.sft.epochs=3 \
      --config.sft.batch_size=8 --config.sft.n_validation=0

    python -m gog_jax.main --config=configs/convert.py \
      --config.input=mine.jsonl --config.output=set --config.format=tfds
"""
