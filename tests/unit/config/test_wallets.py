"""The file of wallets that were made before: mpcium's own keygen results, and lines that are none."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from initiator.config.wallets import Wallets, load_wallets
from initiator.dev.nodes import results
from initiator.dev.nodes.vault import Vault
from initiator.errors import Code, HaltError


def made(wallet_id: str) -> dict[str, Any]:
    """A keygen result as the nodes publish it."""
    vault = Vault(bytes(32))
    vault.create("session", wallet_id, ("node0", "node1", "node2"), 1)
    keys = {"ecdsa": vault.public_key(wallet_id, "secp256k1"), "eddsa": vault.public_key(wallet_id, "ed25519")}
    encoded = {f"{name}_pub_key": base64.b64encode(key).decode() for name, key in keys.items()}
    return results.body("keygen", result_type="success", wallet_id=wallet_id, **encoded)


def file_of(folder: Path, *lines: dict[str, Any] | str) -> str:
    path = folder / "wallets.jsonl"
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return str(path)


def test_no_file_no_wallets() -> None:
    assert load_wallets(None) == Wallets()


def test_keygen_results_are_read_and_empty_lines_and_repetitions_are_harmless(tmp_path: Path) -> None:
    first, second = made("w1"), made("w2")
    found = load_wallets(file_of(tmp_path, first, "", second, first))
    assert list(found.keys) == ["w1", "w2"]
    assert found.owners == {}
    assert found.keys["w1"].ecdsa == base64.b64decode(first["ecdsa_pub_key"])
    assert found.keys["w2"].eddsa == base64.b64decode(second["eddsa_pub_key"])


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("no json", "line 2: "),
        ("[]", "line 2: "),
        ({"result_type": "error", "error_code": "x", "error_reason": "y"}, "line 2: result: expected the public keys"),
        ({"ecdsa_pub_key": base64.b64encode(bytes(64)).decode()}, "line 2: ecdsa_pub_key: "),
        ({"eddsa_pub_key": "AAAA"}, "line 2: eddsa_pub_key: "),
        ({"wallet_id": ""}, "line 2: wallet_id: "),
        ({"client": "a b"}, "line 2: client: expected the name of a client"),
        ({"client": 1}, "line 2: client: expected the name of a client"),
        ({"wallet_id": "w1", "client": "bob"}, "line 2: "),
    ],
)
def test_a_line_that_is_none_is_named(tmp_path: Path, line: dict[str, Any] | str, reason: str) -> None:
    bad = line if isinstance(line, str) else made("w2") | line
    with pytest.raises(HaltError) as refused:
        load_wallets(file_of(tmp_path, made("w1"), bad))
    assert (refused.value.code, refused.value.field) == (Code.CONFIG_INVALID, "mpcium.wallets_file")
    assert refused.value.reason.startswith(reason)


def test_one_wallet_with_two_keys_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HaltError, match="line 2: other keys than before for wallet w1"):
        load_wallets(file_of(tmp_path, made("w1"), made("w1")))


@pytest.mark.parametrize(("path", "reason"), [("/nowhere", "'/nowhere': No such file"), ("\0", "no path of a file")])
def test_a_missing_file_is_named(path: str, reason: str) -> None:
    with pytest.raises(HaltError, match=reason):
        load_wallets(path)


def test_a_line_may_say_whose_the_wallet_is(tmp_path: Path) -> None:
    found = load_wallets(file_of(tmp_path, made("w1") | {"client": "payments"}, made("w2")))
    assert found.owners == {"w1": "payments"}
    assert list(found.keys) == ["w1", "w2"]


def test_a_wallet_is_not_two_clients(tmp_path: Path) -> None:
    line = made("w1")
    with pytest.raises(HaltError, match="line 2: another client than before for wallet w1"):
        load_wallets(file_of(tmp_path, line | {"client": "a"}, line | {"client": "b"}))
