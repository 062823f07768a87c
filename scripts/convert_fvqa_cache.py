"""FVQA's pickled image searches -> documents and pictures to search.

    python scripts/convert_fvqa_cache.py \
      fvqa_test_image_search_results_cache.pkl FOLDER

The pickle is read by a process of its own that can make nothing of it but texts
and pictures, see gog_jax/questions/fvqa_cache.py. Then
`configs/index.py` with --config.docs=FOLDER/docs.jsonl and
--config.images=FOLDER/images makes an index of them.
"""

from __future__ import annotations

import argparse
import sys

from gog_jax.errors import UserError
from gog_jax.questions import fvqa_cache


def main(argv: list[str] | None = None) -> int:
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument('cache')
  parser.add_argument('folder')
  parser.add_argument('--memory_gb', type=float, default=16.0)
  args = parser.parse_args(argv)
  try:
    made = fvqa_cache.convert(
        args.cache, args.folder, memory_gb=args.memory_gb
    )
  except UserError as error:
    print(error, file=sys.stderr)
    return 2
  print(
      f'{made.n_documents} documents of {made.n_searches} searches, '
      f'{made.n_images} with a picture, in {args.folder}'
  )
  for drop in made.drops[:5]:
    print(f'left out: {drop}')
  if len(made.drops) > 5:
    print(f'left out: {len(made.drops) - 5} more')
  return 0


if __name__ == '__main__':
  sys.exit(main())
