"""`initiator verify`: exit 0 for a signed event, 1 for one that is not, 2 where there is no answer, and never a key."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from initiator.cli.verify import MAX_EVENT_BYTES, verify
from initiator.core import message
from initiator.core.message import AuthorizerSignature
from initiator.core.model import KeygenRequest, KeyType, Request, ReshareRequest, SignRequest
from initiator.core.signer import Algorithm, PublicKey
from initiator.core.spki import fingerprint, p256_public_key

P256, ED25519, OTHER = (
    ec.generate_private_key(ec.SECP256R1()),
    Ed25519PrivateKey.generate(),
    Ed25519PrivateKey.generate(),
)
KEYS: dict[Algorithm, PublicKey] = {
    "p256": p256_public_key(P256.public_key()),
    "ed25519": PublicKey(algorithm="ed25519", encoded=ED25519.public_key().public_bytes_raw()),
}
KEY = KEYS["p256"]
OTHER_HEX = OTHER.public_key().public_bytes_raw().hex()
SIGN_WITH: dict[Algorithm, Callable[[bytes], bytes]] = {
    "p256": lambda data: P256.sign(data, ec.ECDSA(hashes.SHA256())),
    "ed25519": ED25519.sign,
}
REQUESTS: dict[str, Request] = {
    "keygen": KeygenRequest(wallet_id="w1"),
    "sign": SignRequest(key_type=KeyType.ED25519, wallet_id="w1", network_internal_code="n", tx_id="t1", tx=b"hello"),
    "reshare": ReshareRequest(
        session_id="s1", node_ids=("n0", "n1"), new_threshold=1, key_type=KeyType.ED25519, wallet_id="w1"
    ),
}


def event(operation: str, algorithm: Algorithm = "p256", authorizer: str | None = None) -> bytes:
    request = REQUESTS[operation]
    signature = SIGN_WITH[algorithm](message.signed_bytes(request))
    by = OTHER.sign(message.authorizer_bytes(request, signature))
    names = [] if authorizer is None else [AuthorizerSignature(authorizer_id=authorizer, signature=by)]
    return message.event_bytes(request, signature, names)


def ask(data: bytes, *options: str, op: str = "sign", key: str = KEY.hex, file: str = "-") -> Result:
    return CliRunner().invoke(verify, ["--pubkey", key, "--op", op, *options, file], input=data)


# --- 0: valid


@pytest.mark.parametrize("operation", REQUESTS)
@pytest.mark.parametrize("algorithm", ["p256", "ed25519"])
def test_a_signed_event_on_standard_input_is_valid(operation: str, algorithm: Algorithm) -> None:
    key = KEYS[algorithm]
    found = ask(event(operation, algorithm), "--algorithm", algorithm, op=operation, key=key.hex)
    id_ = {"keygen": "w1", "sign": "t1", "reshare": "s1"}[operation]
    assert (found.exit_code, found.stderr) == (0, "")
    assert found.stdout == f"valid ('{id_}'): signed by the initiator\nkey: {fingerprint(key)}\n"


def test_a_signed_event_in_a_file_is_valid(tmp_path: Path) -> None:
    path = tmp_path / "event.json"
    path.write_bytes(event("sign"))
    assert ask(b"", file=str(path)).exit_code == 0


@pytest.mark.parametrize("spelling", [f"0x{KEY.hex}", KEY.hex.upper(), base64.b64encode(KEY.encoded).decode()],
                         ids=["0x", "upper case", "base64"])  # fmt: skip
def test_the_key_may_be_spelled_as_in_mpciums_config(spelling: str) -> None:
    assert ask(event("sign"), key=spelling).exit_code == 0


def test_authorizers_are_checked_where_their_keys_are_given() -> None:
    data = event("sign", authorizer="alice")
    assert "authorized by alice" in ask(data, "--authorizer", f"alice=ed25519:{OTHER_HEX}").stdout
    assert "authorizers were not checked" in ask(data).stdout


# --- 1: invalid


def test_an_event_that_was_tampered_with_is_invalid() -> None:
    found = ask(event("sign").replace(b'"w1"', b'"w2"'))
    assert (found.exit_code, found.stderr) == (1, "")
    assert found.stdout.startswith("invalid ('t1'): signature: does not verify under this key\n")


def test_an_event_under_another_key_is_invalid_and_the_key_that_was_used_is_shown() -> None:
    other = p256_public_key(ec.generate_private_key(ec.SECP256R1()).public_key())
    found = ask(event("sign"), key=other.hex)
    assert found.exit_code == 1
    assert found.stdout.endswith(f"key: {fingerprint(other)}\n")


def test_an_event_that_its_authorizer_did_not_sign_is_invalid() -> None:
    found = ask(event("sign"), "--authorizer", f"alice=ed25519:{OTHER_HEX}")
    assert (found.exit_code, found.stdout.splitlines()[0]) == (
        1,
        "invalid ('t1'): authorizer_signatures: missing alice",
    )


def test_an_id_cannot_draw_on_the_terminal() -> None:
    data = json.dumps({"wallet_id": "\x1b[2J\nvalid", "signature": ""}).encode()
    found = ask(data, op="keygen")
    assert found.exit_code == 1
    assert found.stdout.splitlines()[0] == "invalid ('\\x1b[2J\\nvalid'): signature: missing"


# --- 2: no answer

SIGN_EVENT = event("sign")
UNREADABLE: dict[str, tuple[bytes, str, str]] = {
    "nothing": (b"", "sign", "unusable: payload: not application/json: expecting value at character 0"),
    "cut": (SIGN_EVENT[:40], "sign", "unusable: payload: not application/json: "),
    "a key twice": (
        SIGN_EVENT[:-1] + b',"tx_id":"t2"}',
        "sign",
        "unusable: payload: the key 'tx_id' stands there twice",
    ),
    "another operation": (SIGN_EVENT, "keygen", "unusable: key_type: not a field of a keygen event"),
    "binary": (bytes(range(256)), "sign", "unusable: payload: not application/json: text that is not UTF-8"),
    "at the limit of size": (b" " * MAX_EVENT_BYTES, "sign", "unusable: payload: not application/json: "),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_bytes_that_are_no_such_event_get_no_answer(name: str) -> None:
    data, op, said = UNREADABLE[name]
    found = ask(data, op=op)
    assert found.exit_code == 2
    assert found.stdout.startswith(said)
    assert found.stdout.endswith(f"\nkey: {fingerprint(KEY)}\n")


PEM = P256.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
PRIVATE = "a private key: it belongs in no setting; if it was real, replace it"
FIELD = "PUBLIC_KEY_INVALID: event_initiator_pubkey: "
P256_WANTED = "expected P-256 SubjectPublicKeyInfo (91 bytes), got "
BAD_KEYS: dict[str, tuple[str, str]] = {
    "nothing": ("", FIELD + "expected hex or base64, got nothing"),
    "neither hex nor base64": ("zz", FIELD + "expected hex or base64, got 2 characters of neither"),
    "PEM": (PEM, FIELD + f"expected hex or base64, got PEM ({PRIVATE})"),
    "a private key": (
        P256.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()).hex(), FIELD + P256_WANTED + PRIVATE),
    "an Ed25519 key": (KEYS["ed25519"].hex, FIELD + P256_WANTED + "32 bytes (an Ed25519 public key? a private key?)"),
    "cut": (KEY.hex[:-2], FIELD + P256_WANTED + "one of 90 bytes"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_KEYS)
def test_an_unusable_key_gets_no_answer_but_a_hint(name: str) -> None:
    key, said = BAD_KEYS[name]
    found = ask(SIGN_EVENT, key=key)
    assert (found.exit_code, found.stdout) == (2, "")
    assert f"Error: {said}\nhint: mpcium takes SubjectPublicKeyInfo DER" in found.stderr
    assert len(key) < 10 or key not in found.stderr


BAD_OPTIONS: dict[str, tuple[list[str], str]] = {
    "no operation": (["--op", "signing"], "'signing' is not one of 'keygen', 'sign', 'reshare'"),
    "no algorithm": (["--algorithm", "rsa"], "'rsa' is not one of 'p256', 'ed25519'"),
    "an authorizer without a key": (["--authorizer", "alice"], "expected ID=p256:HEX or ID=ed25519:HEX"),
    "an authorizer without a name": (["--authorizer", "=p256:00"], "expected ID=p256:HEX or ID=ed25519:HEX"),
    "an authorizer's algorithm": (["--authorizer", "alice=rsa:00"], "expected ID=p256:HEX or ID=ed25519:HEX"),
    "an authorizer's key": (["--authorizer", "alice=ed25519:00"],
                            "PUBLIC_KEY_INVALID: authorizers.alice: expected an Ed25519 public key (32 bytes), got"),
    "an authorizer twice": (["--authorizer", f"alice=ed25519:{OTHER_HEX}", "--authorizer", f"alice=p256:{KEY.hex}"],
                            "expected each ID once (upper and lower case are one)"),
    "an authorizer in two cases": (
        ["--authorizer", f"alice=ed25519:{OTHER_HEX}", "--authorizer", f"ALICE=ed25519:{OTHER_HEX}"],
        "expected each ID once (upper and lower case are one)"),
    "an unknown option": (["--force"], "No such option"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_OPTIONS)
def test_an_unusable_option_gets_no_answer(name: str) -> None:
    options, said = BAD_OPTIONS[name]
    found = ask(SIGN_EVENT, *options)
    assert (found.exit_code, found.stdout) == (2, "")
    assert said in " ".join(found.stderr.split())


def test_a_file_that_is_missing_or_a_folder_gets_no_answer(tmp_path: Path) -> None:
    for path, said in [(tmp_path / "none", "No such file or directory"), (tmp_path, "Is a directory")]:
        found = ask(b"", file=str(path))
        assert (found.exit_code, found.stdout) == (2, "")
        assert said in " ".join(found.stderr.split())


def test_more_than_a_message_can_hold_is_not_read_to_its_end() -> None:
    found = ask(b" " * (MAX_EVENT_BYTES + 1))
    assert (found.exit_code, found.stdout) == (2, "")
    assert "expected an event of at most 1048576 bytes, got more" in found.stderr


@pytest.mark.parametrize("missing", ["--pubkey", "--op", "FILE"])
def test_nothing_is_assumed(missing: str) -> None:
    given = {"--pubkey": ["--pubkey", KEY.hex], "--op": ["--op", "sign"], "FILE": ["-"]}
    arguments = [word for name, words in given.items() if name != missing for word in words]
    found = CliRunner().invoke(verify, arguments, input=SIGN_EVENT)
    assert found.exit_code == 2
    assert f"Missing {'argument' if missing == 'FILE' else 'option'} '{missing}'" in found.stderr


# --- for machines


def test_the_verdict_is_one_json_object_where_asked_for() -> None:
    found = ask(event("sign", authorizer="alice"), "--json", "--authorizer", f"alice=ed25519:{OTHER_HEX}")
    assert found.exit_code == 0
    assert found.stdout.count("\n") == 1
    assert json.loads(found.stdout) == {
        "valid": True,
        "readable": True,
        "reason": "signed by the initiator, authorized by alice",
        "key_fingerprint": fingerprint(KEY),
        "field": None,
        "operation_id": "t1",
        "authorizers": ["alice"],
    }


@pytest.mark.parametrize(
    ("data", "readable", "exit_code"),
    [(SIGN_EVENT.replace(b'"w1"', b'"w2"'), True, 1), (SIGN_EVENT[:40], False, 2)],
    ids=["invalid", "cut"],
)
def test_exit_codes_are_the_same_with_json(data: bytes, readable: bool, exit_code: int) -> None:
    found = ask(data, "--json")
    assert found.exit_code == exit_code
    verdict = json.loads(found.stdout)
    assert (verdict["valid"], verdict["readable"]) == (False, readable)


def test_the_command_works_from_the_shell_with_a_pipe() -> None:
    command = [sys.executable, "-m", "initiator", "verify", "--pubkey", KEY.hex, "--op", "sign", "-"]
    done = subprocess.run(command, input=SIGN_EVENT, capture_output=True, check=False, timeout=30)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"valid ('t1'): signed by the initiator\n")
