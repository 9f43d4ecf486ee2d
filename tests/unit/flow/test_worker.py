"""How the worker ends its tasks."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from initiator.flow import worker


async def test_a_task_that_loses_its_cancellation_is_cancelled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "CANCEL_AGAIN_S", 0.05)
    lost = 0

    async def lose_two() -> None:
        nonlocal lost
        while lost < 2:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                lost += 1
        await asyncio.sleep(60)

    async def ends_at_once() -> None:
        await asyncio.sleep(60)

    async def has_failed() -> None:
        raise ValueError("nobody foresaw it")

    tasks = [asyncio.create_task(one()) for one in (lose_two, ends_at_once, has_failed)]
    await asyncio.sleep(0.01)
    async with asyncio.timeout(2):
        await worker._end(tasks)
    assert (lost, [task.done() for task in tasks]) == (2, [True, True, True])
    with contextlib.suppress(ValueError):
        await tasks[2]
