"""What a request is by the widest bounds that any configuration may have had."""

from __future__ import annotations

import msgpack
import pytest

from initiator.config.schema import Settings
from initiator.core.model import ContentType, Operation
from initiator.flow.clients import Clients
from initiator.flow.intake import Intake

SETTINGS = Settings.model_validate({"clients": {"alice": {}}})
SIGN = {"key_type": "ed25519", "wallet_id": "w", "network_internal_code": "n", "tx": b"\x01" * 32}


async def nobody(_wallet_id: str) -> None:
    """No wallet is known."""


@pytest.mark.parametrize("tx_id", ["0123456789ab", "0c0e5a3e-0c5d-4a3f-9d0a-7f0e5b1c2d3e", "tx1"])
def test_a_tx_id_of_any_form_is_read_again(tx_id: str) -> None:
    data = msgpack.packb(SIGN | {"tx_id": tx_id})
    found = Intake(SETTINGS, Clients(SETTINGS.clients), nobody).reread(Operation.SIGN, ContentType.MSGPACK, data)
    assert found is not None
    assert found.operation_id == tx_id


def test_what_is_no_request_by_any_is_none() -> None:
    intake = Intake(SETTINGS, Clients(SETTINGS.clients), nobody)
    assert intake.reread(Operation.SIGN, ContentType.MSGPACK, b"rubbish") is None
