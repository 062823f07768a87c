"""Model folders: where they are, and what is read from them first."""

from __future__ import annotations

from collections.abc import Sequence
import re

from etils import epath

from gog_jax.config import Config
from gog_jax.errors import first_line
from gog_jax.errors import UserError
from gog_jax.images import ImageProcessor
from gog_jax.models.families import FAMILIES

# Ships with the package; `configs/pretrain.py` makes it.
TOY_BASE = epath.Path(__file__).parents[1] / 'assets' / 'toy_base'
_GENERAL_SIDE = 32  # Pixels of a merged patch.

# On the Hugging Face hub: org/name or org/name@revision.
_HUB_ID = re.compile(r'([\w-][\w.-]*/[\w-][\w.-]*)(?:@([\w./-]+))?')

# The files that are read from a repository.
_FILES = ('*.json', '*.safetensors', '*.txt', '*.jinja')


def model_folder(config: Config) -> epath.Path:
  """Where weights and tokenizer are.

  Raises:
    UserError: No path is given, or there is no such folder.
  """
  path = config.model.path
  if not path:
    raise UserError(
        f'profile {config.profile} needs weights: pass '
        '--config.model.path=FOLDER, a Hugging Face model folder or the id '
        'of one on the hub (org/name)'
    )
  return local_folder(TOY_BASE if path == TOY_BASE.name else path)


def local_folder(path: epath.PathLike) -> epath.Path:
  """A local model folder, downloaded if need be.

  Args:
    path: A local folder; or a Hugging Face id, 'org/name', or 'org/name@' and
      a branch, tag or commit, which is fetched into the hub's own cache unless
      it is there. A folder of that name comes first.

  Raises:
    UserError: There is no such folder, it is not local, or the hub cannot
      provide it.
  """
  name = str(path)
  if '://' in name:
    raise UserError(
        f'model folder {name} is not on this machine: copy it to a local '
        'folder, --config.model.path'
    )
  folder = epath.Path(path)
  if name and folder.is_dir():
    return folder
  fetched = fetch(
      name, repo_type='model', patterns=_FILES, field='--config.model.path'
  )
  if fetched is None:
    raise UserError(
        f'model folder {name!r} does not exist: set --config.model.path to a '
        'Hugging Face folder, or to the id of one on the hub (org/name)'
    )
  return fetched


def fetch(
    name: str, *, repo_type: str, patterns: Sequence[str], field: str
) -> epath.Path | None:
  """A folder in the hub's own cache; None where `name` is not an id.

  Args:
    name: As `local_folder` takes ids.
    repo_type: 'model' or 'dataset'.
    patterns: Glob patterns of the files that are needed.
    field: The config field that holds the name, for messages.

  Raises:
    UserError: The hub cannot provide it.
  """
  hub_id = _HUB_ID.fullmatch(name)
  if not hub_id:
    return None
  repository, revision = hub_id.groups()
  import huggingface_hub  # Slow, and rarely needed.
  from huggingface_hub.errors import RevisionResolutionError

  try:
    fetched = huggingface_hub.snapshot_download(
        repository,
        revision=revision,
        repo_type=repo_type,
        allow_patterns=list(patterns),
    )
  except (OSError, ValueError, RevisionResolutionError) as error:
    raise UserError(
        f'{name} is no local folder, and cannot be fetched from the Hugging '
        f'Face hub ({type(error).__name__}: {first_line(error)}): check '
        f'{field}, the network and HF_TOKEN'
    ) from error
  return epath.Path(fetched)


def processor_of(config: Config, folder: epath.Path) -> ImageProcessor:
  """The image processor, with the config's cap on the tokens of an image."""
  c = config.model
  if c.processor == 'general':
    return ImageProcessor(
        patch_size=_GENERAL_SIDE // 2,
        merge_size=2,
        temporal_patch_size=2,
        min_pixels=_GENERAL_SIDE**2,
        max_pixels=c.max_image_tokens * _GENERAL_SIDE**2,
        # Nothing reads the normalised pixels.
        image_mean=(0.5, 0.5, 0.5),
        image_std=(0.5, 0.5, 0.5),
    )
  return ImageProcessor.from_folder(folder, max_tokens=c.max_image_tokens)


def check_family(profile: str, family: str) -> None:
  """Refuses a model of another family than the profile is named after.

  Its boxes would silently be read in the wrong frame.
  """
  families = [one for one in FAMILIES if profile.startswith(one)]
  if families and family not in families:
    raise UserError(
        f'profile {profile} is not for {family} models, which '
        f'--config.model.path holds; choose a profile that begins in {family}'
    )
