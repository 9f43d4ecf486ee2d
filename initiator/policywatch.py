"""The policy file while the daemon runs: read again when it changes, or at SIGHUP, and put in force all at once.

Invariants:
- a file that is wrong changes nothing: the policy before it stays in force, and health, log and a metric say so;
- a file that is being written is not taken for a policy: what is new must look the same twice, unless a person says so
  by SIGHUP.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Callable
from pathlib import Path

from initiator.config.policyfile import load_policy
from initiator.core.policy.rules import Policy
from initiator.errors import Code, HaltError, InitiatorError
from initiator.health import Health
from initiator.log import get_logger
from initiator.metrics import Metrics

log = get_logger()
PART = "policy"


class PolicyWatch:
    """Watches one file.

    Args:
        policy: what is in force.
        told: set when somebody wants it read now.
        apply: puts another policy in force.
    """

    def __init__(
        self,
        *,
        path: str,
        every_s: float,
        policy: Policy,
        told: asyncio.Event,
        apply: Callable[[Policy], None],
        health: Health,
        metrics: Metrics,
    ) -> None:
        self._path = path
        self._every_s = every_s
        self._policy = policy
        self._told = told
        self._apply = apply
        self._health = health
        self._metrics = metrics
        self._seen = ""  # what the file looked like
        self._refused = ""  # what of it was refused
        self._say_in_force()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._every_s):
                    await self._told.wait()
            at_once = self._told.is_set()
            self._told.clear()
            try:
                await self._look(at_once=at_once)
            except InitiatorError as error:
                self._refuse(error)
            except Exception as error:  # unforeseen; the next change is read all the same
                self._refuse(HaltError(Code.POLICY_INVALID, f"it cannot be read: {type(error).__name__}"))

    async def _look(self, *, at_once: bool) -> None:
        content = await asyncio.to_thread(_digest, self._path)
        before, self._seen = self._seen, content
        if not at_once and (content != before or content == self._refused):
            return  # being written, or refused before and still the same
        if content[:16] == self._policy.version:
            self._settle()
            return
        self._refused = content  # until it has passed
        policy = await asyncio.to_thread(load_policy, self._path)
        if policy.version != content[:16]:
            return  # it has changed in between: the next look sees it
        old, self._policy = self._policy, policy
        self._apply(policy)
        self._metrics.policy_reloads.labels("applied").inc()
        log.info("policy.reloaded", version=policy.version, before=old.version, rules=len(policy.rules))
        self._metrics.policy_info.remove(old.version)
        self._settle()

    def _settle(self) -> None:
        self._refused = ""
        self._say_in_force()

    def _say_in_force(self) -> None:
        self._health.set(PART, True)
        self._metrics.policy_info.labels(self._policy.version).set(1)

    def _refuse(self, error: InitiatorError) -> None:
        note = f"{error.reason}: version {self._policy.version} stays in force"
        self._health.set(PART, True, note=note)
        self._metrics.policy_reloads.labels("refused").inc()
        log.error("policy.reload_refused", code=error.code.value, reason=error.reason, hint=error.hint,
                  version=self._policy.version)  # fmt: skip


def _digest(path: str) -> str:
    """What the file holds, as one text; of one that cannot be read, why."""
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        return f"!{error.strerror}"
