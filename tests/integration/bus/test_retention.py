"""How long the record keeps what: by default finals for ever, by configuration all but a wallet's keys for a while."""

from __future__ import annotations

import asyncio
from typing import Any

from initiator.bus import streams
from initiator.bus.jetstream import JetStream
from initiator.config.schema import Settings
from initiator.core.events import Event, State
from initiator.core.model import Operation
from initiator.record import Record, Retention
from tests.support.events import event_of


async def record(js: JetStream, **kept: Any) -> Record:
    limits = {"max_expiry_s": 0.5, "clock_skew_s": 0.0}
    lanes = {operation: {"default_expiry_s": 0.5} for operation in ("keygen", "sign", "reshare")}
    settings = Settings.model_validate({"clients": {"alice": {}}, "streams": kept, "limits": limits, "mpcium": lanes})
    await streams.ensure_own(js, settings)
    return Record(js, Retention(settings.streams.final_max_age_s, settings.streams.intermediate_max_age_s))


HISTORY = [
    event_of("forgotten", State.ACCEPTED),
    event_of("signed", State.COMPLETED),
    event_of("failed", State.FAILED),
    event_of("wallet", State.COMPLETED, operation=Operation.KEYGEN),
    event_of("nowallet", State.FAILED, operation=Operation.KEYGEN),
]


async def kept_after(seconds: float, one: Record) -> set[str]:
    await asyncio.sleep(seconds)
    return {event.operation_id for event in HISTORY if await one.last(event.operation, event.operation_id)}


async def write(one: Record, events: list[Event]) -> None:
    for event in events:
        await one.append(event, None)


async def test_by_default_final_events_outlive_the_stream_s_age(js: JetStream) -> None:
    one = await record(js, intermediate_max_age_s=1.0)
    await write(one, HISTORY)
    assert await kept_after(0, one) == {event.operation_id for event in HISTORY}
    assert await kept_after(2.5, one) == {event.operation_id for event in HISTORY if event.final}


async def test_final_events_go_when_configured_and_wallets_keys_never(js: JetStream) -> None:
    one = await record(js, intermediate_max_age_s=1.0, final_max_age_s=4.0)
    await write(one, HISTORY)
    assert await kept_after(2.5, one) == {event.operation_id for event in HISTORY if event.final}
    assert await kept_after(3.5, one) == {"wallet"}


async def test_a_record_that_forgets_later_on_keeps_what_it_was_told_to_keep_for_ever(js: JetStream) -> None:
    await write(await record(js, intermediate_max_age_s=1.0), HISTORY[1:3])
    one = await record(js, intermediate_max_age_s=1.0, final_max_age_s=1.0)
    await write(one, HISTORY[4:])
    assert await kept_after(2.5, one) == {"signed", "failed"}
