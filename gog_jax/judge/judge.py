"""Asks a judge what is right, once for each answer that no rule decides."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
import dataclasses
import hashlib
from typing import Any

import aiohttp
from etils import epath

from gog_jax.config.tools import JudgeConfig
from gog_jax.errors import RunStopped
from gog_jax.judge import prompt
from gog_jax.judge.prompt import Case
from gog_jax.remote import tasks
from gog_jax.remote.endpoint import Endpoint
from gog_jax.remote.endpoint import EndpointError
from gog_jax.remote.endpoint import Message
from gog_jax.remote.tally import listed
from gog_jax.rewards import answers
from gog_jax.storage import files
from gog_jax.storage.store import Store
from gog_jax.types import Example
from gog_jax.types import Trajectory
from gog_jax.types import Verdict

# Among fewer answers, one failure says nothing about the judge.
_FEW = 20
_BUSY_S = 10.0  # Long: a verdict that is not kept is paid for again.


class Judge:
  """A remote model that says whether answers are right.

  Attributes:
    version: The model, and a digest of all that its verdicts depend on.
    about: The version and what it covers, for reports.
    identity: All that decides what is right, for manifests.
    counts: Each answer counts once: under `match`, `empty` or `too_long`,
      which rules decide; `same`, if its batch holds it twice; `cached`; or
      `asked`. Of those asked, `failed` got no verdict, and `failures` says why.
      See `Endpoint` for the rest.
  """

  def __init__(self, config: JudgeConfig, workdir: epath.PathLike):
    """Opens what the config names; nothing is asked yet.

    Args:
      config: Whom to ask, and how.
      workdir: Where verdicts and spending are kept by default.

    Raises:
      UserError: The prompt, the cache, the ledger, the address or the key
        cannot be used.
    """
    self._config = config
    self._endpoint = Endpoint(config, name='judge', workdir=workdir)
    self._prompt = prompt.load(config.prompt)
    facts = {
        'model': config.model,
        'prompt_sha256': hashlib.sha256(self._prompt.encode()).hexdigest(),
        'temperature': config.temperature,
        'max_tokens': config.max_tokens,
    }
    digest = _digest([prompt.FORMAT, *facts.values()])
    self.version = f'{config.model} {digest[:16]}'
    self.about = {**facts, 'version': self.version}
    most = config.max_answer_characters
    self.identity = (
        f'{self.version}, answers of {most} characters at most, '
        f'{answers.VERSION}'
    )
    self.counts = self._endpoint.counts
    self._store = Store(
        config.cache or epath.Path(workdir) / 'verdicts.sqlite',
        field='judge.cache',
        busy_s=_BUSY_S,
    )
    self._known: dict[str, bool] = {}  # Survives a disk that fails.
    self._examples: dict[str, str] = {}  # An error for each reason.

  def probe(self) -> str:
    """See `Endpoint.probe`."""
    return self._endpoint.probe()

  def facts(self) -> dict[str, object]:
    """What it is, and what was counted since the last time."""
    return {**self.about, **self.counts.take()}

  def judged(
      self, examples: Sequence[Example], trajectories: Sequence[Trajectory]
  ) -> list[Trajectory]:
    """The trajectories, one of each example, with their verdicts.

    Those that an infra_error spoilt get none, as they do not count.

    Raises:
      Interrupted, RunStopped: As `verdicts`.
    """
    cases = [
        Case(question=e.question, answers=e.answers, answer=t.answer or '')
        for e, t in zip(examples, trajectories, strict=True)
        if t.valid
    ]
    verdicts = iter(self.verdicts(cases))
    return [
        dataclasses.replace(t, verdict=next(verdicts)) if t.valid else t
        for t in trajectories
    ]

  def verdicts(self, cases: Sequence[Case]) -> list[Verdict]:
    """A verdict on each; `right` is None where the judge failed.

    Raises:
      Interrupted: After a signal; what was judged is kept.
      RunStopped: The judge fails too often, or would cost too much.
    """
    found: dict[str, Verdict] = {}
    unknown: dict[str, Case] = {}
    keys = [_digest([self.version, dataclasses.asdict(c)]) for c in cases]
    for key, case in zip(keys, cases, strict=True):
      if rule := self._rule(case):
        self.counts.add(rule)
        found[key] = Verdict(right=rule == 'match', by=rule)
      elif key in found or key in unknown:
        self.counts.add('same')
      elif (right := self._kept(key)) is not None:
        self.counts.add('cached')
        found[key] = Verdict(right=right, by=self.version)
      else:
        unknown[key] = case
    if unknown:
      asyncio.run(self._ask_about(unknown, found))
    return [found[key] for key in keys]

  def _kept(self, key: str) -> bool | None:
    """Whether that answer is right, if it was judged before; else None."""
    if key not in self._known:
      record = self._store.get(key)
      right = record.get('right') if isinstance(record, dict) else None
      if type(right) is not bool:
        return None
      self._known[key] = right
    return self._known[key]

  def _rule(self, case: Case) -> str | None:
    """The rule that decides without a judge; None if none does."""
    if answers.match(case.answer, case.answers):
      return 'match'
    if not case.answer.strip():
      return 'empty'
    # Whoever writes down everything has not answered.
    if len(case.answer) > self._config.max_answer_characters:
      return 'too_long'
    return None

  async def _ask_about(
      self, cases: Mapping[str, Case], found: dict[str, Verdict]
  ) -> None:
    """Adds a verdict on each to `found`."""
    left = iter(cases.items())  # One for all workers.
    n_left = len(cases)

    async def work(session: aiohttp.ClientSession) -> None:
      nonlocal n_left
      for key, case in left:
        found[key] = verdict = await self._verdict(session, case)
        self.counts.add('asked')
        n_left -= 1
        if verdict.right is not None:
          self._known[key] = verdict.right
          self._store.put(key, {'right': verdict.right, 'by': self.version})
        self._check_success(n_left)

    async with self._endpoint.session() as session:
      n_workers = min(self._config.concurrency, len(cases))
      await tasks.gather(work(session) for _ in range(n_workers))

  async def _verdict(
      self, session: aiohttp.ClientSession, case: Case
  ) -> Verdict:
    """Asks until there is a verdict or no attempt is left."""
    code = ''

    def write(attempt: int) -> list[Message]:
      nonlocal code
      code = prompt.code_for(self.version, case, attempt)
      text = prompt.write(self._prompt, case, code)
      return [{'role': 'user', 'content': text}]

    try:
      right = await self._endpoint.ask(
          session, write, lambda reply: prompt.read(reply, code)
      )
      return Verdict(right=right, by=self.version)
    except (EndpointError, prompt.NoVerdict) as error:
      self.counts.add('failed')
      self.counts.add(f'failures/{error.reason}')
      self._examples[error.reason] = str(error)
      return Verdict(right=None, by=self.version, error=str(error))

  def _check_success(self, n_left: int) -> None:
    """Stops a run in which too many verdicts are missing.

    It stops as soon as the share is certain, so as not to wait out an outage.

    Args:
      n_left: How many of this batch may still succeed.

    Raises:
      RunStopped: Too many of all since the judge was made have failed.
    """
    least = self._config.min_success
    failed, asked = self.counts['failed'], self.counts['asked']
    # A hair above, for sums like 1 - 0.95.
    if failed <= (1 - least) * max(asked + n_left, _FEW) + 1e-9:
      return
    totals = self.counts.totals()
    reason = max(
        self._examples, key=lambda reason: totals[f'failures/{reason}']
    )
    raise RunStopped(
        f'the judge failed on {failed:.0f} of the {asked:.0f} answers that it '
        f'was asked about, more than --config.judge.min_success={least:g} '
        'allows: mend it and run the same command, which goes on with the '
        f'verdicts in {self._store.path}; no failure was counted as a wrong '
        f'answer. Mostly, {self._examples[reason]}'
    )


def describe(counts: Mapping[str, Any]) -> str:
  """What `counts.take` gave, in one line; empty where nothing was judged."""
  parts = listed(
      counts,
      asked='asked about',
      failed='failed',
      cached='known already',
      same='the same as another',
      match='the same as an accepted one',
      empty='empty',
      too_long='too long',
  )
  return ', '.join(parts)


def _digest(value: object) -> str:
  return hashlib.sha256(files.dumps(value).encode()).hexdigest()
