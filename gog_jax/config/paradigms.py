"""What an evaluation compares: PARADIGM@MODEL, how it works and who it is.

Paradigms:

    direct        answers at once; an untrained model is told of no tool
    full_search   answers after a search with the whole image and one with the
                  question, which are made for it (the paper's workflow)
    gog           Glance-or-Gaze: decides by itself, with all tools; a model
                  that is not trained for it, by prompt
    no_gaze       the same without Selective Gaze
    mmsearch_r1   in MMSearch-R1's dialect: its tags, its limits, no gaze

Models:

    base          the one in config.model.path as it is
    sft           after stage 1
    sft_no_gaze   after stage 1 without Selective Gaze: the tool, and its demos
    rl, rl_...    after stage 2: the page's, or an arm's
    ..._best      the same, the checkpoint that was best in validation
    remote        behind an OpenAI-compatible endpoint, config.remote
    expert        the embedded world's, whom SFT imitates
    script        a user's script in Python, config.eval.script

A model that was trained is asked in the words it was trained with; the others
in those that the dialect has for the paradigm.
"""

from __future__ import annotations

from collections.abc import Iterable
import dataclasses
import re

from gog_jax.errors import nearest
from gog_jax.errors import UserError

DIRECT, FULL_SEARCH, GOG = 'direct', 'full_search', 'gog'
NO_GAZE, MMSEARCH_R1 = 'no_gaze', 'mmsearch_r1'
PARADIGMS = (DIRECT, FULL_SEARCH, GOG, NO_GAZE, MMSEARCH_R1)

BASE, REMOTE, EXPERT, SCRIPT = 'base', 'remote', 'expert', 'script'
SFT, SFT_NO_GAZE, RL = 'sft', 'sft_no_gaze', 'rl'
BEST = '_best'  # Ends the name of RL's best.
# Each is trained by the stage of its name, as are the arms of RL.
TRAINED = (SFT, SFT_NO_GAZE, RL)

# Short names; any other names a model that plays GOG.
_ALIASES = {
    'model': f'{GOG}@{BASE}',
    DIRECT: f'{DIRECT}@{SFT}',
    FULL_SEARCH: f'{FULL_SEARCH}@{SFT}',
    SFT_NO_GAZE: f'{NO_GAZE}@{SFT_NO_GAZE}',
}
# The short names, but for those of arms, in the order of the story.
SHORT = (DIRECT, FULL_SEARCH, EXPERT, SFT_NO_GAZE, SFT, RL)
# Who may teach: all whose trajectories show how they search.
TEACHERS = (REMOTE, 'model', EXPERT, *TRAINED)

TEST = 'test'  # The benchmark that the config's `questions.test` are.
# Benchmarks that are splits of the embedded world, 'world_hard' being harder.
_WORLD = {
    'world': 'test', 'world_hard': 'hard', 'world_validation': 'validation',
}  # fmt: skip


def split_of(benchmark: str) -> str:
  """A benchmark's split of the embedded world; '' for other benchmarks."""
  return _WORLD.get(benchmark, '')


def folder_name(stage: str, benchmark: str) -> str:
  """'eval' or 'report'; 'eval_mmsearch' for other than the test questions."""
  if benchmark == TEST:
    return stage
  return f'{stage}_{re.sub(r"[^A-Za-z0-9_.-]+", "_", benchmark)}'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Named:
  """A policy's name, taken apart.

  Attributes:
    paradigm: One of PARADIGMS.
    model: One of those above.
  """

  paradigm: str
  model: str

  @property
  def stage(self) -> str | None:
    """The stage that trains it; None if none does."""
    if self.model in (BASE, REMOTE, EXPERT, SCRIPT):
      return None
    return self.model.removesuffix(BEST)

  @property
  def params(self) -> str:
    """The folder of the stage that holds what it has trained."""
    return 'best' if self.model.endswith(BEST) else 'params'

  @property
  def max_turns(self) -> int:
    """Messages that the paradigm allows, forced ones included; 0: no limit."""
    return {DIRECT: 1, FULL_SEARCH: 3}.get(self.paradigm, 0)

  @property
  def gazes(self) -> bool:
    """Whether Selective Gaze is part of how it works."""
    if self.paradigm == GOG:
      return True
    return self.paradigm != NO_GAZE and self.model != SFT_NO_GAZE

  def offered(self, tools: Iterable[str]) -> tuple[str, ...]:
    """Which of the tools the paradigm uses, called by the policy or for it."""
    # What was trained keeps the tools that it was told of.
    told = self.paradigm if self.stage is None else GOG
    if told == DIRECT:
      return ()
    if told == FULL_SEARCH or self.paradigm == MMSEARCH_R1:
      return tuple(t for t in tools if t in ('text_search', 'image_search'))
    return tuple(t for t in tools if t != 'gaze' or self.gazes)


def spelled_out(name: str) -> str:
  """PARADIGM@MODEL for a policy's name; neither part is checked."""
  return name if '@' in name else _ALIASES.get(name, f'{GOG}@{name}')


def trained(arms: Iterable[str]) -> tuple[str, ...]:
  """The models that the stages of a run train."""
  arms = tuple(arms)
  return (*TRAINED, *arms, *(one + BEST for one in (RL, *arms)))


def parse(name: str, arms: Iterable[str] = ()) -> Named:
  """Reads a policy's name, PARADIGM@MODEL or a short one.

  Raises:
    UserError: There is no such policy (names the nearest), or the model cannot
      play the paradigm.
  """
  models = (BASE, *trained(arms), REMOTE, EXPERT, SCRIPT)
  paradigm, _, model = spelled_out(name).partition('@')
  if paradigm not in PARADIGMS or model not in models:
    known = short = list(dict.fromkeys((*models, *_ALIASES)))
    if '@' in name:
      known = [f'{one}@{other}' for one in PARADIGMS for other in models]
    raise UserError(
        f'there is no policy {name!r}; the nearest is {nearest(name, known)!r} '
        f'(PARADIGM@MODEL, with {", ".join(PARADIGMS)} and '
        f'{", ".join(models)}; or {", ".join(short)})'
    )
  if model == EXPERT and paradigm not in (GOG, NO_GAZE):
    raise UserError(
        f'policy {name!r}: the expert plays {GOG} and {NO_GAZE} alone; choose '
        f'{GOG}@{EXPERT} or another model'
    )
  return Named(paradigm=paradigm, model=model)
