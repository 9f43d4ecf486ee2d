"""A tx_id: one form for a cluster, and never two signings that the nodes would take for one.

The nodes keep a signing's session under `<wallet_id>-<tx_id>`, a keygen's under `<wallet_id>-keygen`.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable
from typing import cast, get_args

import pytest

from initiator.core import validate
from initiator.core.model import ContentType, Operation
from initiator.core.validate import Rules, TxIdForm
from initiator.errors import Code, RejectError

UUID = "0c0e5a3e-0c5d-4a3f-9d0a-7f0e5b1c2d3e"


def rules_of(form: TxIdForm) -> Rules:
    return Rules(max_tx_bytes=100, tx_id_form=form, max_expiry_s=86_400.0, max_labels=3)


def refusal_of(wallet_id: str, tx_id: str, form: TxIdForm) -> str | None:
    """Why this tx_id is refused, None where the pair passes."""
    fields = {"key_type": "ed25519", "wallet_id": wallet_id, "network_internal_code": "n", "tx_id": tx_id, "tx": b"x"}
    try:
        validate.parse_request(Operation.SIGN, fields, ContentType.MSGPACK, rules_of(form), 0.0)
    except RejectError as error:
        return error.reason if (error.code, error.field) == (Code.INVALID_FIELD, "tx_id") else str(error)
    return None


@pytest.mark.parametrize(
    ("form", "tx_id", "reason"),
    [
        ("uuid", UUID, None),
        ("uuid", "tx1", "expected a UUID (mpcium.tx_id_form: uuid)"),
        ("uuid", UUID.replace("-", ""), "expected a UUID (mpcium.tx_id_form: uuid)"),
        ("uuid", "{" + UUID + "}", "expected 1 to 64 of A-Z a-z 0-9 _ -, got the character '{'"),
        ("uuid", UUID[:-1] + "g", "expected a UUID (mpcium.tx_id_form: uuid)"),
        ("no_hyphen", "tx1", None),
        ("no_hyphen", "7f0e5b1c2d3e", None),
        ("no_hyphen", UUID, "expected no hyphen (mpcium.tx_id_form: no_hyphen)"),
        ("no_hyphen", "-", "expected no hyphen (mpcium.tx_id_form: no_hyphen)"),
    ],
)
def test_a_cluster_may_want_one_form_of_tx_id(form: TxIdForm, tx_id: str, reason: str | None) -> None:
    assert refusal_of("w1", tx_id, form) == reason


def test_an_unknown_form_checks_nothing_and_so_is_refused() -> None:
    with pytest.raises(ValueError, match="tx_id_form: expected one of uuid_or_no_hyphen, uuid, no_hyphen"):
        rules_of(cast(TxIdForm, "any"))


# every id of up to three of these characters, and UUIDs that share a tail: small enough to try all pairs
SHORT = ["".join(characters) for length in (1, 2, 3) for characters in itertools.product("a-0", repeat=length)]
TAIL = "000000000000"
HEADS = [f"{head}0000000-0000-0000-0000" for head in "0a"]
WALLETS = [*SHORT, *(f"{short}-{head}" for short in SHORT for head in HEADS)]
TX_IDS = [*SHORT, TAIL, "keygen", *(f"{head}-{TAIL}" for head in HEADS)]
PAIRS = list(itertools.product(WALLETS, TX_IDS))


def collisions(pairs: Iterable[tuple[str, str]]) -> int:
    """How many of them share a session key, with each other or with the keygen of a wallet."""
    keys = Counter("-".join(pair) for pair in pairs)
    return sum(count - 1 for count in keys.values()) + sum(keys[f"{wallet}-keygen"] for wallet in WALLETS)


@pytest.mark.parametrize("form", get_args(TxIdForm))
def test_no_two_signings_share_a_session_key_on_the_nodes(form: TxIdForm) -> None:
    passed = [pair for pair in PAIRS if refusal_of(*pair, form) is None]
    assert len(passed) > 100
    assert collisions(passed) == 0


def test_without_the_rules_many_would() -> None:
    assert collisions(PAIRS) > 300
    assert collisions([("a", f"{HEADS[0]}-{TAIL}"), (f"a-{HEADS[0]}", TAIL)]) == 1
    assert collisions([("a", "keygen")]) == 1
