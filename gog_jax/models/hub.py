"""Where a model's folder is: on this machine, or on the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Sequence
import re

from etils import epath

from gog_jax import errors

# org/name or org/name@revision.
_HUB_ID = re.compile(r'([\w-][\w.-]*/[\w-][\w.-]*)(?:@([\w./-]+))?')

# The files that are read from a repository.
_FILES = ('*.json', '*.safetensors', '*.txt', '*.jinja')


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
    raise errors.UserError(
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
    raise errors.UserError(
        f'model folder {name!r} does not exist: set --config.model.path to a '
        'Hugging Face folder, or to the id of one on the hub (org/name)'
    )
  return fetched


def fetch(
    name: str, *, repo_type: str, patterns: Sequence[str], field: str
) -> epath.Path | None:
  """A folder in the hub's own cache; None where `name` is no id.

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
    why = str(error).strip().splitlines() or [type(error).__name__]
    raise errors.UserError(
        f'{name} is no local folder, and cannot be fetched from the Hugging '
        f'Face hub ({type(error).__name__}: {why[0]}): check {field}, the '
        'network and HF_TOKEN'
    ) from error
  return epath.Path(fetched)
