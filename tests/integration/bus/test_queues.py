"""Queues: one for each client, kept in form, opened, closed and made anew without losing or confusing a request."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import pytest

from initiator.bus import queues, streams
from initiator.bus.errors import StreamFullError, unknown_outcome
from initiator.bus.jetstream import JetStream
from initiator.config.schema import Settings
from initiator.core import subjects
from initiator.errors import Code, RejectError, RetryError

ALICE, BOB = subjects.requests_stream("alice"), subjects.requests_stream("bob")
BOTH: dict[str, Any] = {"alice": {}, "bob": {}}
MEBIBYTE = 1_048_576


def settings(clients: dict[str, Any], **sections: Any) -> Settings:
    return Settings.model_validate({"clients": clients} | sections)


async def config_of(js: JetStream, name: str) -> dict[str, Any]:
    found = await streams.info(js, name)
    assert found is not None
    config: dict[str, Any] = found["config"]
    return config


async def ensure(js: JetStream, chosen: Settings) -> None:
    await streams.ensure_own(js, chosen)
    assert await queues.ensure(js, chosen) == {}


async def test_missing_queues_are_made_in_form_and_made_once(js: JetStream) -> None:
    chosen = settings({"alice": {}, "bob": {"operations": ["sign"]}})
    for _ in range(2):
        await ensure(js, chosen)
        for client in ("alice", "bob"):
            form = queues.form(chosen, client)
            assert streams.differences(form, await config_of(js, form["name"])) == []
    assert await queues.clients(js) == {"alice", "bob"}
    assert (await config_of(js, ALICE))["subjects"] == [
        f"initiator.request.alice.{op}" for op in ("keygen", "reshare", "sign")
    ]
    assert (await config_of(js, BOB))["subjects"] == ["initiator.request.bob.sign"]
    assert (await js.publish("initiator.request.alice.sign", b"first")).sequence == 1


async def test_changed_settings_are_brought_in(js: JetStream) -> None:
    await ensure(js, settings(BOTH))
    bounds = {"max_request_bytes": 2048, "max_queued_per_client": 5, "max_queued_bytes_per_client": 2 * MEBIBYTE}
    await ensure(js, settings({"alice": {}, "bob": {"operations": ["sign"]}}, streams=bounds))
    bob = await config_of(js, BOB)
    assert bob["subjects"] == ["initiator.request.bob.sign"]
    assert (bob["max_msg_size"], bob["max_msgs_per_subject"], bob["max_bytes"]) == (2048, 5, 2 * MEBIBYTE)


async def test_a_client_can_fill_its_own_queue_and_no_other(js: JetStream) -> None:
    await ensure(js, settings(BOTH, streams={"max_queued_bytes_per_client": MEBIBYTE}))
    most = MEBIBYTE // 60_200
    for _ in range(most):
        await js.publish("initiator.request.alice.sign", bytes(60_000))
    for operation in ("sign", "keygen"):
        with pytest.raises(StreamFullError):
            await js.publish(f"initiator.request.alice.{operation}", bytes(60_000))
    for _ in range(most):
        await js.publish("initiator.request.bob.sign", bytes(60_000))


async def test_the_doors_refuse_the_stranger_the_large_and_the_full(js: JetStream) -> None:
    bounds = {"max_request_bytes": 1024, "max_queued_per_client": 2}
    await ensure(js, settings({"alice": {}}, streams=bounds))
    for _ in range(2):
        await js.publish("initiator.request.alice.sign", b"x")
    with pytest.raises(StreamFullError):
        await js.publish("initiator.request.alice.sign", b"x")
    await js.publish("initiator.request.alice.keygen", b"x")
    with pytest.raises(RejectError) as too_large:
        await js.publish("initiator.request.alice.keygen", b"x" * 1100)
    assert too_large.value.code == "TOO_LARGE"
    with pytest.raises(RetryError) as stranger:
        await js.publish("initiator.request.mallory.sign", b"x")
    assert stranger.value.maybe_done


async def test_one_clients_message_id_swallows_nobody_elses_request(js: JetStream) -> None:
    await ensure(js, settings(BOTH))
    first = await js.publish("initiator.request.alice.sign", b"a", {"Nats-Msg-Id": "1"})
    second = await js.publish("initiator.request.bob.sign", b"b", {"Nats-Msg-Id": "1"})
    assert (first.duplicate, second.duplicate) == (False, False)


async def test_a_client_that_left_keeps_its_subject_while_requests_wait(js: JetStream) -> None:
    await ensure(js, settings(BOTH))
    await js.publish("initiator.request.bob.sign", b"waiting")
    await ensure(js, settings({"alice": {}}))
    assert (await config_of(js, BOB))["subjects"] == ["initiator.request.bob.sign"]
    await js.purge(BOB, "initiator.request.bob.sign")
    await ensure(js, settings({"alice": {}}))
    closed = await config_of(js, BOB)
    assert closed["subjects"] == ["initiator.closed.bob"]
    assert closed["max_bytes"] < MEBIBYTE  # it reserves next to nothing any more
    assert await queues.taken_subjects(js, "bob") == []


async def test_a_client_that_comes_back_goes_on_with_its_queue(js: JetStream) -> None:
    await ensure(js, settings(BOTH))
    await js.publish("initiator.request.bob.sign", b"one")
    await js.purge(BOB, "initiator.request.bob.sign")
    await ensure(js, settings({"alice": {}}))
    await ensure(js, settings(BOTH))
    assert (await js.publish("initiator.request.bob.sign", b"two")).sequence == 2


async def test_a_request_that_comes_while_its_client_leaves_is_not_forgotten(
    js: JetStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ensure(js, settings(BOTH))
    api = js.api

    async def late(name: str, body: Any = None, timeout_s: float | None = None) -> dict[str, Any]:
        if name == f"STREAM.UPDATE.{BOB}" and not came:
            came.append(await js.publish("initiator.request.bob.sign", b"late"))
        return await api(name, body, timeout_s)

    came: list[Any] = []
    monkeypatch.setattr(js, "api", late)
    await queues.ensure(js, settings({"alice": {}}))
    assert came
    kept = await config_of(js, BOB)
    assert kept["subjects"] == ["initiator.request.bob.sign"]
    assert kept["max_bytes"] > MEBIBYTE


async def test_what_a_crash_left_under_a_subject_that_is_gone_is_found(
    js: JetStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ensure(js, settings(BOTH))
    api = js.api

    async def crash(name: str, body: Any = None, timeout_s: float | None = None) -> dict[str, Any]:
        if name == f"STREAM.UPDATE.{BOB}":
            await js.publish("initiator.request.bob.sign", b"late")
            await api(name, body, timeout_s)
            raise unknown_outcome("no answer in time")
        return await api(name, body, timeout_s)

    monkeypatch.setattr(js, "api", crash)
    failed = await queues.ensure(js, settings({"alice": {}}))
    assert {client: error.code for client, error in failed.items()} == {"bob": Code.BUS_UNAVAILABLE}
    monkeypatch.undo()
    assert (await config_of(js, BOB))["subjects"] == ["initiator.closed.bob"]
    await ensure(js, settings({"alice": {}}))
    assert (await config_of(js, BOB))["subjects"] == ["initiator.request.bob.sign"]


async def test_a_queue_that_is_made_anew_never_gives_out_a_sequence_twice(js: JetStream) -> None:
    await ensure(js, settings(BOTH))
    for number in range(3):
        await js.publish("initiator.request.bob.sign", b"%d" % number)
    await js.publish("initiator.reject.bob.sign.1.rejected", b"the first one was refused")
    await js.api(f"STREAM.DELETE.{BOB}")
    before = time.time_ns() // 1000
    await ensure(js, settings(BOTH))
    sequence = (await js.publish("initiator.request.bob.sign", b"anew")).sequence
    assert before <= sequence <= time.time_ns() // 1000
    assert sequence < 2**53  # exact in every client's JSON
    await ensure(js, settings(BOTH))
    assert (await js.publish("initiator.request.bob.sign", b"anew")).sequence == sequence + 1


async def test_replicas_that_make_the_same_queue_at_once_agree(js: JetStream) -> None:
    await streams.ensure_own(js, settings({}))
    await js.publish("initiator.reject.bob.sign.1.rejected", b"a record that is not empty")
    await asyncio.gather(*(queues.ensure(js, settings(BOTH)) for _ in range(5)))
    first = (await js.publish("initiator.request.bob.sign", b"x")).sequence
    assert (await js.publish("initiator.request.bob.sign", b"x")).sequence == first + 1


async def test_the_one_queue_of_earlier_versions_is_named(js: JetStream) -> None:
    await streams.ensure_own(js, settings({}))
    old = {"name": "INITIATOR_REQUESTS", "subjects": ["initiator.request.alice.sign"], "retention": "workqueue"}
    await js.api("STREAM.CREATE.INITIATOR_REQUESTS", old)
    failed = await queues.ensure(js, settings(BOTH))
    assert list(failed) == ["alice"]
    assert "overlap" in failed["alice"].reason
    assert "INITIATOR_REQUESTS, the one queue" in (failed["alice"].hint or "")
    await js.publish("initiator.request.bob.sign", b"of no concern to bob")


async def test_a_queue_that_cannot_be_changed_in_place_is_told(js: JetStream) -> None:
    await streams.ensure_own(js, settings({}))
    await js.api(
        f"STREAM.CREATE.{BOB}", {"name": BOB, "subjects": ["initiator.request.bob.sign"], "retention": "limits"}
    )
    failed = await queues.ensure(js, settings(BOTH))
    assert failed["bob"].code == "STREAM_FORM"
    assert "retention" in failed["bob"].reason
    await js.publish("initiator.request.alice.sign", b"of no concern to alice")


async def test_a_smaller_bound_drops_nothing(js: JetStream) -> None:
    await ensure(js, settings(BOTH, streams={"max_queued_per_client": 10}))
    for number in range(5):
        await js.publish("initiator.request.bob.sign", b"%d" % number)
    smaller = settings(BOTH, streams={"max_queued_per_client": 2})
    await ensure(js, smaller)
    assert await queues.waiting(js, "bob") == {"initiator.request.bob.sign": 5}
    assert (await config_of(js, BOB))["max_msgs_per_subject"] == 10
    assert (await config_of(js, BOB))["subjects"] == (queues.form(smaller, "bob"))["subjects"]
    assert (await config_of(js, ALICE))["max_msgs_per_subject"] == 2  # it was empty
    await js.publish("initiator.request.alice.sign", b"its door is open again")
    for sequence in range(1, 4):
        await js.api(f"STREAM.MSG.DELETE.{BOB}", {"seq": sequence})
    await ensure(js, smaller)  # what is left fits
    assert (await config_of(js, BOB))["max_msgs_per_subject"] == 2
    assert await queues.waiting(js, "bob") == {"initiator.request.bob.sign": 2}


async def test_what_arrives_while_a_bound_is_lowered_is_not_dropped(
    js: JetStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ensure(js, settings(BOTH, streams={"max_queued_per_client": 10}))
    api = js.api
    sent = []

    async def busy(name: str, body: Any = None, timeout_s: float | None = None) -> dict[str, Any]:
        if name == f"STREAM.UPDATE.{BOB}":
            with contextlib.suppress(RetryError):
                sent.extend([await js.publish("initiator.request.bob.sign", b"x") for _ in range(3)])
        return await api(name, body, timeout_s)

    monkeypatch.setattr(js, "api", busy)
    await queues.ensure(js, settings(BOTH, streams={"max_queued_per_client": 2}))
    monkeypatch.undo()
    assert sum((await queues.waiting(js, "bob")).values()) == len(sent) >= 3


async def test_who_leaves_makes_room_for_who_comes(js: JetStream) -> None:
    await ensure(js, settings(BOTH))
    made: list[str] = []
    api = js.api

    async def watch(name: str, body: Any = None, timeout_s: float | None = None) -> dict[str, Any]:
        if name.startswith(("STREAM.CREATE", "STREAM.UPDATE")):
            made.append(name)
        return await api(name, body, timeout_s)

    js.api = watch  # type: ignore[method-assign]
    await queues.ensure(js, settings({"aaron": {}, "alice": {}}))
    js.api = api  # type: ignore[method-assign]
    assert made == [f"STREAM.UPDATE.{BOB}", "STREAM.CREATE.INITIATOR_REQUESTS_aaron"]


async def test_a_stream_of_somebody_elses_by_a_queues_name_is_left_alone(js: JetStream) -> None:
    name = subjects.requests_stream("backup")
    await js.api(f"STREAM.CREATE.{name}", {"name": name, "subjects": ["shop.orders.>"], "retention": "workqueue"})
    await js.publish("shop.orders.1", b"an order")
    await ensure(js, settings(BOTH))
    assert (await config_of(js, name))["subjects"] == ["shop.orders.>"]
    failed = await queues.ensure(js, settings(BOTH | {"backup": {}}))
    assert failed["backup"].code == "STREAM_FORM"
    assert await queues.waiting(js, "backup") == {"shop.orders.1": 1}
