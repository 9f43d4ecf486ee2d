"""Streams: ours are made and kept in form, mpcium's are made in its nodes' form or left as they are."""

from __future__ import annotations

from typing import Any

import pytest

from initiator.bus import forms, streams
from initiator.bus.jetstream import JetStream
from initiator.config.schema import Settings
from initiator.core import subjects
from initiator.core.model import Operation
from initiator.errors import Code, HaltError


def settings(**sections: Any) -> Settings:
    return Settings.model_validate({"clients": {"alice": {}}} | sections)


async def config_of(js: JetStream, name: str) -> dict[str, Any]:
    found = await streams.info(js, name)
    assert found is not None
    config: dict[str, Any] = found["config"]
    return config


async def test_missing_streams_are_made_in_form_and_made_once(js: JetStream) -> None:
    for _ in range(2):
        await streams.ensure_own(js, settings())
        for form in forms.own_forms(settings()):
            assert streams.differences(form, await config_of(js, form["name"])) == []


async def test_changed_settings_are_brought_in(js: JetStream) -> None:
    await streams.ensure_own(js, settings())
    changed = settings(
        mpcium={"sign": {"in_flight": 7}},
    )
    await streams.ensure_own(js, changed)
    assert (await config_of(js, subjects.SLOTS_STREAMS[Operation.SIGN]))["max_msgs"] == 7


async def test_a_stream_of_ours_that_cannot_be_changed_in_place_halts(js: JetStream) -> None:
    await js.api(
        f"STREAM.CREATE.{subjects.EVENTS_STREAM}",
        {"name": subjects.EVENTS_STREAM, "subjects": ["initiator.event.>"], "storage": "memory", "retention": "limits"},
    )
    with pytest.raises(HaltError) as error:
        await streams.ensure_own(js, settings())
    assert (error.value.code, error.value.field) == (Code.STREAM_FORM, "streams")
    assert "storage: expected 'file', got 'memory'" in error.value.reason


async def test_the_record_can_be_neither_purged_nor_deleted_from(js: JetStream) -> None:
    await streams.ensure_own(js, settings())
    await js.publish("initiator.event.alice.sign.tx.accepted", b"x")
    for name, body in (("STREAM.PURGE", {}), ("STREAM.MSG.DELETE", {"seq": 1})):
        with pytest.raises(HaltError):
            await js.api(f"{name}.{subjects.EVENTS_STREAM}", body)


# --- mpcium's


@pytest.mark.parametrize("routing", ["scoped", "unscoped"])
async def test_missing_streams_of_the_nodes_are_made_as_their_go_nodes_make_them(js: JetStream, routing: str) -> None:
    await streams.ensure_nodes(js, routing)
    await streams.ensure_nodes(js, routing)
    results = await config_of(js, "mpc")
    tail = ">" if routing == "scoped" else "*"
    assert results["subjects"] == [f"mpc.mpc_{kind}_result.{tail}" for kind in ("keygen", "signing", "reshare")]
    assert (results["retention"], results["max_bytes"], results["discard"]) == ("workqueue", 100_000_000, "old")
    requests = await config_of(js, "mpc-signing")
    assert requests["description"] == "Stream for mpc-signing"
    assert (requests["max_age"], requests["duplicate_window"]) == (7 * 86_400 * 10**9, 120 * 10**9)


@pytest.mark.parametrize(("present", "configured"), [("scoped", "unscoped"), ("unscoped", "scoped")])
async def test_the_other_routing_is_a_mismatch_and_changes_nothing(
    js: JetStream, present: str, configured: str
) -> None:
    await streams.ensure_nodes(js, present)
    before = await config_of(js, "mpc")
    with pytest.raises(HaltError) as error:
        await streams.ensure_nodes(js, configured)
    assert (error.value.code, error.value.field) == (Code.ROUTING_MISMATCH, "mpcium.routing")
    assert await config_of(js, "mpc") == before


FOREIGN: list[tuple[str, dict[str, Any], str]] = [
    ("mpc", {"retention": "interest"}, "retention: expected 'workqueue', got 'interest'"),
    ("mpc", {"subjects": ["mpc.mpc_keygen_result.>"]}, "subjects: expected"),
    ("mpc-keygen", {"discard": "new"}, "discard: expected 'old', got 'new'"),
    ("mpc-signing", {"storage": "memory"}, "storage: expected 'file', got 'memory'"),
]


@pytest.mark.parametrize(("name", "change", "told"), FOREIGN)
async def test_a_foreign_form_is_told_and_left_alone(
    js: JetStream, name: str, change: dict[str, Any], told: str
) -> None:
    form = next(form for form in forms.node_forms("scoped") if form["name"] == name)
    await js.api(f"STREAM.CREATE.{name}", form | change)
    before = await config_of(js, name)
    with pytest.raises(HaltError) as error:
        await streams.ensure_nodes(js, "scoped")
    assert (error.value.code, error.value.field) == (Code.STREAM_FORM, name)
    assert told in error.value.reason
    assert await config_of(js, name) == before


async def test_sizes_of_older_nodes_are_no_reason_to_stop(js: JetStream) -> None:
    form = forms.node_results_form("scoped") | {"max_bytes": 10_485_760}
    await js.api("STREAM.CREATE.mpc", form)
    await streams.ensure_nodes(js, "scoped")
    assert (await config_of(js, "mpc"))["max_bytes"] == 10_485_760
