"""Whose signature is verified: of a wallet on record, of one made before, of one that nobody has told us of."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.support.harness import Bench, bench, daemon, settings_for, sign_request

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    folder: Path = tmp_path_factory.mktemp("wallets")
    async with bench(folder) as ready:
        known = folder / "wallets.jsonl"
        known.write_text(json.dumps(ready.keygen_success("before")) + "\n")
        async with daemon(settings_for(ready.url, mpcium={"wallets_file": str(known)})):
            yield ready


async def signed(server: Bench, wallet: str, vouched_by: str) -> dict[str, Any]:
    """How a sign request for a wallet ends if the signature is another wallet's."""
    request = sign_request(wallet)
    await server.submit("sign", request)
    await server.until("sign", request["tx_id"], "published")
    body = server.sign_success(request | {"wallet_id": vouched_by}) | {"wallet_id": wallet}
    await server.answer("sign", request["tx_id"], body)
    return await server.until("sign", request["tx_id"])


async def test_a_wallet_that_was_made_before_is_known_by_its_file(server: Bench) -> None:
    assert (await signed(server, "before", "before"))["verification"] == "verified"


async def test_a_signature_of_another_wallet_is_not_that_of_one_made_before(server: Bench) -> None:
    server.keygen_success("other")
    final = await signed(server, "before", "other")
    assert (final["state"], final["code"]) == ("failed", "RESULT_INVALID")


async def test_a_wallet_that_nobody_has_told_us_of_is_marked(server: Bench) -> None:
    server.keygen_success("stranger")
    final = await signed(server, "stranger", "stranger")
    assert (final["state"], final["verification"]) == ("completed", "unverified")


async def test_a_keygen_that_is_forged_takes_no_wallet_from_its_file(server: Bench) -> None:
    await server.submit("keygen", {"wallet_id": "before"})
    await server.until("keygen", "before", "published")
    forged = server.keygen_success("forger") | {"wallet_id": "before"}
    await server.answer("keygen", "before", forged)
    assert (await server.until("keygen", "before", "failed"))["code"] == "RESULT_INVALID"
    assert (await signed(server, "before", "before"))["verification"] == "verified"
    assert (await signed(server, "before", "forger"))["state"] == "failed"
