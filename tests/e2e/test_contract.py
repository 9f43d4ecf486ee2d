"""The contract with clients: current, well formed, and true of real traffic."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from initiator import contract
from initiator.dev.requester import Requester, requester
from initiator.dev.stack import StackOptions, running_stack

FOLDER = Path(__file__).parents[2] / "docs" / "contract"
SCHEMAS = contract.schemas()
REGISTRY: Registry[Any] = Registry().with_resources(
    [(name, Resource.from_contents(schema)) for name, schema in SCHEMAS.items()]
)
TX = base64.b64encode(b"\x01pay").decode()
SIGN: dict[str, Any] = {
    "key_type": "ed25519", "wallet_id": "w1", "network_internal_code": "sol", "tx_id": "tx1", "tx": TX
}  # fmt: skip


def problems(name: str, instance: Any) -> list[str]:
    found = Draft202012Validator(SCHEMAS[name], registry=REGISTRY).iter_errors(instance)
    return [f"{error.json_path}: {error.message}" for error in found]


def test_what_is_checked_in_is_what_the_code_says() -> None:
    assert {path.name for path in FOLDER.glob("*.json")} == set(contract.documents())
    for name, text in contract.documents().items():
        assert (FOLDER / name).read_text() == text, f"{name}: run python -m initiator.contract docs/contract"


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_schema_is_one(name: str) -> None:
    Draft202012Validator.check_schema(SCHEMAS[name])


def references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [found for value in node.values() for found in references(value)]
    return [found for item in node for found in references(item)] if isinstance(node, list) else []


def test_whatever_the_documents_refer_to_is_there() -> None:
    document = contract.asyncapi()
    for target in references(document):
        if target.startswith("./"):
            assert target[2:] in SCHEMAS, target
        else:
            node: Any = document
            for part in target.removeprefix("#/").split("/"):
                node = node[part]
    for schema in SCHEMAS.values():
        assert set(references(schema)) <= set(SCHEMAS)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def alice() -> AsyncIterator[Requester]:
    async with (
        running_stack(StackOptions(kms="local", forward_wait_s=0.3)) as stack,
        requester(stack.nats_url, "alice", stack.password("alice")) as client,
    ):
        yield client


async def submit(alice: Requester, op: str, body: dict[str, Any], *, valid: bool = True) -> int:
    """A JSON request that is, or is not, what its schema says; returns its sequence."""
    assert (problems(f"request-{op}.json", body) == []) is valid, problems(f"request-{op}.json", body)
    answer = await alice.connection.request(
        f"initiator.request.alice.{op}", json.dumps(body).encode(), timeout=5,
        headers={"Content-Type": "application/json"},
    )  # fmt: skip
    receipt = json.loads(answer.data)
    assert problems("answer-receipt.json", receipt) == []
    return int(receipt["seq"])


async def ask(alice: Requester, kind: str, body: dict[str, Any]) -> dict[str, Any]:
    assert problems(f"query-{kind}.json", body) == []
    subject = "initiator.cancel.alice" if kind == "cancel" else f"initiator.query.alice.{kind}"
    answer: dict[str, Any] = json.loads(
        (await alice.connection.request(subject, json.dumps(body).encode(), timeout=5)).data
    )
    name = "error" if "error" in answer else kind
    assert problems(f"answer-{name}.json", answer) == []
    return answer


@pytest.mark.asyncio(loop_scope="module")
async def test_real_traffic_is_what_the_contract_says(alice: Requester) -> None:
    await submit(alice, "keygen", {"wallet_id": "w1", "labels": {"order": "7"}, "expires_at": None})
    await alice.wait_for("keygen", "w1")
    hashed = base64.b64encode(b"\x02" * 32).decode()
    await submit(alice, "sign", SIGN)
    await submit(alice, "sign", SIGN | {"key_type": "secp256k1", "tx_id": "tx2", "tx": hashed, "derivation_path": [1]})
    await submit(alice, "sign", SIGN | {"wallet_id": "nobody", "tx_id": "tx3"})
    nodes = {"node_ids": ["node0", "node1", "node2"], "new_threshold": 1}
    await submit(alice, "reshare", {"session_id": "s1", "wallet_id": "w1", "key_type": "ed25519"} | nodes)
    for op, name in (("sign", "tx1"), ("sign", "tx2"), ("sign", "tx3"), ("reshare", "s1")):
        await alice.wait_for(op, name)
    refused = await submit(alice, "sign", SIGN | {"tx_id": "a b", "more": 1}, valid=False)
    await alice.wait_for_rejection("sign", refused)

    heard = {seen.state for seen in alice.seen}
    assert heard == {"accepted", "published", "publishing", "completed", "failed", "rejected"}
    for seen in alice.seen:
        assert problems(f"event-{seen.state}.json", seen.body) == []
    await ask(alice, "status", {"op": "sign", "id": "tx1", "request_seq": refused})
    await ask(alice, "status", {"op": "sign", "request_seq": refused})
    history = await ask(alice, "history", {"op": "sign", "id": "tx1"})
    assert [event["state"] for event in history["events"]] == ["accepted", "signed", "published", "completed"]
    assert (await ask(alice, "events", {"since": "1h", "after": 2}))["events"]
    assert (await ask(alice, "cancel", {"op": "sign", "id": "tx1"}))["error"]["code"] == "TOO_LATE"


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("op", "change"),
    [
        ("sign", {"tx_id": "a b"}), ("sign", {"key_type": "rsa"}), ("sign", {"derivation_path": [2**31]}),
        ("sign", {"derivation_path": [-1]}), ("sign", {"more": 1}), ("sign", {"tx": 5}),
        ("sign", {"labels": {"": "x"}}),
        ("sign", {"wallet_id": None}), ("sign", {"labels": {"k": 5}}), ("keygen", {"wallet_id": "x" * 65}),
    ],
)  # fmt: skip
async def test_what_the_schema_refuses_the_daemon_refuses_too(
    alice: Requester, op: str, change: dict[str, Any]
) -> None:
    body = (SIGN if op == "sign" else {"wallet_id": "w1"}) | change
    sequence = await submit(alice, op, body, valid=False)
    assert (await alice.wait_for_rejection(op, sequence)).body["field"]


@pytest.mark.asyncio(loop_scope="module")
async def test_unknown_fields_of_events_are_none_of_a_clients_business(alice: Requester) -> None:
    await submit(alice, "keygen", {"wallet_id": "w2"})
    seen = await alice.wait_for("keygen", "w2")
    assert problems("event-completed.json", seen.body | {"a_newer_field": 1}) == []
