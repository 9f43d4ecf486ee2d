"""One request while a Region of KMS is down, or lies: who signed is in the record, and a lie is in nothing."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator

import msgpack
import pytest
import pytest_asyncio

from initiator.kms import KmsSigner
from tests.support.harness import Bench, daemon, settings_for
from tests.support.kms_pair import DOWN, FALSE, FIRST, SECOND, Pair
from tests.support.kms_stub import kms_stub

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture
def pair() -> Iterator[Pair]:
    with kms_stub(FIRST) as first, kms_stub(SECOND) as second:
        yield Pair(first, second)


@pytest_asyncio.fixture(loop_scope="module")
async def signer(pair: Pair) -> AsyncIterator[KmsSigner]:
    async with pair.signer() as connected:
        yield connected


async def key_on_record(server: Bench, wallet: str) -> str:
    """Which key the sealed event says has signed, and that KMS's request id is there."""
    found = await server.js.get_last_msg("INITIATOR_EVENTS", f"initiator.event.alice.keygen.{wallet}.signed.*")
    body = msgpack.unpackb(found.data or b"")
    assert body["kms_request_id"]
    return str(body["key_id"])


async def test_the_region_that_signed_is_the_one_on_record(server: Bench, pair: Pair, signer: KmsSigner) -> None:
    pair.first.standing = DOWN
    wallet = f"w{secrets.token_hex(6)}"
    async with daemon(settings_for(server.url), signer):
        await server.submit("keygen", {"wallet_id": wallet})
        await server.until("keygen", wallet, "published")
        assert await key_on_record(server, wallet) == pair.keys[1].arn
    assert server.states("keygen", wallet) == ["accepted", "published"]


async def test_a_false_signature_stops_a_request_until_a_true_one_comes(
    server: Bench, pair: Pair, signer: KmsSigner
) -> None:
    pair.first.script.extend([FALSE, FALSE])
    pair.asked()
    wallet = f"w{secrets.token_hex(6)}"
    async with daemon(settings_for(server.url), signer):
        await server.submit("keygen", {"wallet_id": wallet})
        await server.until("keygen", wallet, "published")
        assert await key_on_record(server, wallet) == pair.keys[0].arn
    assert pair.asked() == (3, 0)
