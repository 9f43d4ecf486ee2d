"""`initiator check` against the running system: each part ok, or what is wrong with it and what to do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import nats
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric import ec

from initiator.core.spki import p256_public_key
from initiator.dev import accounts
from initiator.dev.stack import Stack, StackOptions, running_stack
from tests.support import command
from tests.support.kms_pair import FIRST, SECOND, Pair
from tests.support.kms_stub import Error, kms_stub

pytestmark = pytest.mark.asyncio(loop_scope="module")
PARTS = [
    "signer",
    "nats",
    "stream INITIATOR_EVENTS",
    "stream INITIATOR_DEAD",
    "stream INITIATOR_TAKEOVERS",
    "stream INITIATOR_LIMITS",
    "stream INITIATOR_ALLOWANCES",
    "stream INITIATOR_REPLICAS",
    "stream INITIATOR_EXPORTED",
    "stream INITIATOR_SLOTS_KEYGEN",
    "stream INITIATOR_SLOTS_SIGN",
    "stream INITIATOR_SLOTS_RESHARE",
    "stream INITIATOR_REQUESTS_alice",
    "stream INITIATOR_REQUESTS_bob",
    "clients' queues",
    "orders",
    "audit exporter",
    "nats of the nodes",
    "stream mpc-keygen",
    "stream mpc-signing",
    "stream mpc",
]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def stack() -> AsyncIterator[Stack]:
    async with running_stack(StackOptions(kms="local", settings={"audit": {"exporter": "max"}})) as running:
        yield running


def check(config: Path | None, *options: str, json_too: bool = True) -> tuple[int, Any, str]:
    """Exit code, the report (parsed with --json) and stderr."""
    words = [*(["--config", str(config)] if config else []), *options, "check", *(["--json"] if json_too else [])]
    done = command.run(*words)
    return done.returncode, json.loads(done.stdout) if json_too else done.stdout, done.stderr


def failures(report: Any) -> dict[str, dict[str, Any]]:
    assert report["ok"] is False
    return {part["part"]: part for part in report["parts"] if not part["ok"]}


async def test_all_parts_of_a_running_system_are_well(stack: Stack) -> None:
    code, report, errors = check(stack.config_path)
    assert (code, report["ok"], errors) == (0, True, "")
    assert [part["part"] for part in report["parts"]] == PARTS
    details = {part["part"]: part["detail"] for part in report["parts"]}
    assert "as pinned; a test signature verifies" in details["signer"]
    assert details["stream mpc"].endswith("results are scoped")
    assert details["clients' queues"] == "of 2 clients"


async def test_it_says_how_far_the_audits_exporter_is(stack: Stack, tmp_path: Path) -> None:
    def exporter(*options: str, config: Path = stack.config_path) -> dict[str, Any]:
        (found,) = [part for part in check(config, *options)[1]["parts"] if part["part"] == "audit exporter"]
        return dict(found)

    alone = tmp_path / "alone.yaml"
    settings = json.loads(stack.config_path.read_text())
    alone.write_text(json.dumps({name: part for name, part in settings.items() if name != "audit"}))
    assert exporter(config=alone)["detail"].startswith("none configured (audit.exporter)")
    daemon = await nats.connect(stack.nats_url, user=accounts.DAEMON, password=stack.password(accounts.DAEMON))
    try:
        js = daemon.jetstream()
        stored = await js.publish("initiator.reject.alice.keygen.900001.rejected", b"{}")
        unheard = exporter()
        assert unheard["ok"] is True
        assert unheard["detail"].startswith("max: it has not said how far it is; the oldest event it lacks is ")
        behind = exporter("--set", "audit.max_lag_s=0.01")
        assert behind["ok"] is False
        assert behind["detail"].startswith("AUDIT_BEHIND max: it has not said how far it is; the oldest event it lacks")
        assert "audit export --follow" in behind["hint"]
        await js.publish("initiator.exported.max", json.dumps({"sequence": stored.seq}).encode())
        told = f"max: up to {stored.seq} of {stored.seq}; nothing waits for it"
        assert (exporter()["ok"], exporter()["detail"]) == (True, told)
    finally:
        await daemon.close()


async def test_it_says_whose_queues_stayed_behind(stack: Stack, tmp_path: Path) -> None:
    alone = tmp_path / "alone.yaml"
    alone.write_text(json.dumps(json.loads(stack.config_path.read_text()) | {"clients": {"alice": {}}}))
    _, report, _ = check(alone)
    (queues,) = [part for part in report["parts"] if part["part"] == "clients' queues"]
    assert (queues["ok"], queues["detail"]) == (True, "of 2 clients; left: bob")


async def test_a_person_reads_one_line_a_part(stack: Stack) -> None:
    code, shown, errors = check(stack.config_path, json_too=False)
    assert (code, errors) == (0, "")
    assert [line.split(":")[0] for line in shown.splitlines()] == [f"ok   {part}" for part in PARTS]


async def test_a_wrong_pin_is_told_with_both_fingerprints(stack: Stack) -> None:
    other = p256_public_key(ec.generate_private_key(ec.SECP256R1()).public_key()).hex
    code, report, _ = check(stack.config_path, "--set", f"mpcium.event_initiator_pubkey={other}")
    failed = failures(report)
    assert (code, list(failed)) == (1, ["signer"])
    assert failed["signer"]["detail"].startswith("KEY_MISMATCH mpcium.event_initiator_pubkey: the signer holds SHA256:")
    assert "restart the nodes" in failed["signer"]["hint"]


async def test_a_wrong_password_is_told_and_the_rest_still_looked_at(stack: Stack, tmp_path: Path) -> None:
    wrong = tmp_path / "password"
    wrong.write_text("wrong")
    code, report, _ = check(stack.config_path, "--set", f"nats.password_file={wrong}")
    failed = failures(report)
    assert (code, list(failed)) == (1, ["nats"])
    assert failed["nats"]["detail"].startswith("BUS_DENIED ")
    assert "login refused" in failed["nats"]["detail"]
    assert "stream mpc" in [part["part"] for part in report["parts"] if part["ok"]]


async def test_the_other_routing_is_told_with_what_to_set(stack: Stack) -> None:
    code, report, _ = check(stack.config_path, "--set", "mpcium.routing=unscoped")
    failed = failures(report)
    assert (code, list(failed)) == (1, ["stream mpc"])
    assert failed["stream mpc"]["detail"].startswith(
        "ROUTING_MISMATCH mpcium.routing: configured routing is 'unscoped'"
    )
    assert "`scoped` is for mpcium after v0.3.5" in failed["stream mpc"]["hint"]


async def test_a_stream_in_another_form_than_configured_is_told(stack: Stack) -> None:
    code, report, _ = check(stack.config_path, "--set", "mpcium.sign.in_flight=3")
    failed = failures(report)
    assert (code, list(failed)) == (1, ["stream INITIATOR_SLOTS_SIGN"])
    assert "max_msgs: expected 3, got 10" in failed["stream INITIATOR_SLOTS_SIGN"]["detail"]


async def test_a_node_stream_of_foreign_form_is_told_and_not_touched(stack: Stack) -> None:
    nodes = await nats.connect(stack.nats_url, user=accounts.NODES, password=stack.password(accounts.NODES))
    try:
        js = nodes.jetstream()
        config = (await js.stream_info("mpc-keygen")).config
        await js.update_stream(config, discard="new")
        code, report, _ = check(stack.config_path)
        failed = failures(report)
        assert (code, list(failed)) == (1, ["stream mpc-keygen"])
        assert failed["stream mpc-keygen"]["detail"] == (
            "STREAM_FORM mpc-keygen: mpc-keygen has a foreign form: discard: expected 'old', got 'new'"
        )
        assert (await js.stream_info("mpc-keygen")).config.discard == "new"
        await js.update_stream(config, discard="old", max_age=180)
        code, report, _ = check(stack.config_path)
        assert code == 0
        detail = next(part["detail"] for part in report["parts"] if part["part"] == "stream mpc-keygen")
        assert "mpcium older than v0.3.5?" in detail
        await js.update_stream(config, max_age=config.max_age)
    finally:
        await nodes.close()


async def test_nothing_there_is_told_for_each_part_and_ends_soon() -> None:
    code, report, errors = check(None, "--set", "nats.servers=[nats://127.0.0.1:1]")
    failed = failures(report)
    assert (code, list(failed), errors) == (1, ["signer", "nats", "nats of the nodes"], "")
    assert failed["signer"]["detail"].startswith("CONFIG_INVALID signer.kms.key_id: ")
    assert failed["nats"]["detail"].startswith("BUS_UNAVAILABLE nats://127.0.0.1:1: ")


async def test_each_region_of_the_key_is_tried_by_itself(tmp_path: Path) -> None:
    """What others stand in for by day is found before the night when it is needed."""
    with kms_stub(FIRST) as first, kms_stub(SECOND) as second:
        pair = Pair(first, second)
        regions = [{"region": stub.region, "endpoint_url": stub.url} for stub in (first, second)]
        credential = tmp_path / "credential"
        credential.write_text("test")
        secrets = {f"{name}_file": str(credential) for name in ("access_key_id", "secret_access_key")}
        config = tmp_path / "initiator.yaml"
        settings = {
            "nats": {"servers": ["nats://127.0.0.1:1"]},
            "signer": {"kms": {"key_id": pair.keys[0].arn, "regions": regions, **secrets}},
            "mpcium": {"event_initiator_pubkey": pair.pin.hex},
        }
        config.write_text(json.dumps(settings))
        second.standing = Error("AccessDeniedException")
        _, report, _ = await asyncio.to_thread(check, config)
        signers = {part["part"]: part for part in report["parts"] if part["part"].startswith("signer")}
        found = {name: part["ok"] for name, part in signers.items()}
        assert found == {"signer": True, f"signer in {FIRST}": True, f"signer in {SECOND}": False}
        denied = signers[f"signer in {SECOND}"]["detail"]
        assert denied.startswith("KMS_ACCESS_DENIED ")
        assert "kms:GetPublicKey" in denied
