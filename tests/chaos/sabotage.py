"""`python -m tests.chaos.sabotage KIND …`: the daemon, with one of its guarantees taken out, for tests of the judge."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from initiator import record
from initiator.cli import main
from initiator.core import signature
from initiator.core.wallet import Status, Verification
from initiator.flow import verification, worker
from initiator.flow.held import Held


def ack_early() -> None:
    """Acks a request before anything is recorded of it."""
    work = worker.Worker._work

    async def acked_first(self: worker.Worker, held: Held) -> None:
        await self._held._send(held, b"+ACK")
        await work(self, held)

    worker.Worker._work = acked_first  # type: ignore[method-assign]


def skip_claim() -> None:
    """Writes events whatever the record says: no compare-and-set, for claims and for moves."""
    record.guard = lambda *_: {}  # type: ignore[attr-defined]


def skip_verification() -> None:
    """Publishes whatever KMS signed, and believes whatever the nodes say."""
    signature.Verifier.verify = lambda *_: True  # type: ignore[method-assign]

    async def believe(*_: Any) -> Verification:
        return Verification(Status.VERIFIED, "")

    verification.ResultVerifier.verify = believe  # type: ignore[method-assign, assignment]


KINDS: dict[str, Callable[[], None]] = {one.__name__: one for one in (ack_early, skip_claim, skip_verification)}

if __name__ == "__main__":
    KINDS[sys.argv.pop(1)]()
    main()
