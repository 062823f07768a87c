"""The model folder that a config names, and what is read from it first."""

from __future__ import annotations

from etils import epath

from gog_jax.config import Config
from gog_jax.errors import UserError
from gog_jax.images import ImageProcessor
from gog_jax.models import hub
from gog_jax.models.families import FAMILIES

# Ships with the package; `configs/pretrain.py` makes it.
TOY_BASE = epath.Path(__file__).parents[1] / 'assets' / 'toy_base'
_GENERAL_SIDE = 32  # Pixels of a merged patch.


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
  return hub.local_folder(TOY_BASE if path == TOY_BASE.name else path)


def processor_of(config: Config, folder: epath.Path) -> ImageProcessor:
  """What cuts images into patches, with the config's cap on their tokens."""
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
