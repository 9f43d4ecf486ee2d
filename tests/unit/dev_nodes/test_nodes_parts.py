"""Small parts of the simulated nodes: whom they trust, what they remember, how they name things."""

from __future__ import annotations

import base64
import datetime
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from initiator.dev.nodes import errorcodes, results, wire
from initiator.dev.nodes.__main__ import parser, read_config
from initiator.dev.nodes.config import AuthorizerKey, NodesConfig, Timing
from initiator.dev.nodes.sessions import Sessions
from initiator.dev.nodes.trust import RefusedError, Trust
from initiator.dev.nodes.vault import KeyExistsError, Vault
from initiator.dev.nodes.wire import AuthorizerSignature, Keygen
from initiator.natsconfig import certificates

P256 = ec.derive_private_key(20_261_125, ec.SECP256R1())
SPKI = P256.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
ED25519 = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
ED25519_HEX = ED25519.public_key().public_bytes_raw().hex()


def p256_sign(data: bytes) -> bytes:
    return P256.sign(data, ec.ECDSA(hashes.SHA256()))


def keygen(signature: bytes, *authorizers: AuthorizerSignature) -> Keygen:
    return Keygen(wallet_id="w1", signature=signature, authorizer_signatures=authorizers)


def refusal(config: NodesConfig, message: Keygen) -> str:
    with pytest.raises(RefusedError) as caught:
        Trust.load(config).check(message)
    return str(caught.value)


# --- trust


@pytest.mark.parametrize("pubkey", [SPKI.hex(), "0x" + SPKI.hex(), SPKI.hex().upper(), base64.b64encode(SPKI).decode()])
def test_a_p256_key_is_taken_in_each_of_mpciums_forms(pubkey: str) -> None:
    Trust.load(NodesConfig(pubkey=pubkey)).check(keygen(p256_sign(b"w1")))


@pytest.mark.parametrize(
    ("pubkey", "algorithm"),
    [
        ("", "p256"),
        ("zz", "p256"),
        (SPKI.hex()[:-2], "p256"),
        (ED25519_HEX, "p256"),
        (SPKI.hex(), "ed25519"),
        ("0x" + ED25519_HEX, "ed25519"),
        (
            ec.derive_private_key(7, ec.SECP384R1())
            .public_key()
            .public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            .hex(),
            "p256",
        ),
    ],
)
def test_a_key_of_another_kind_stops_the_start(pubkey: str, algorithm: str) -> None:
    config = NodesConfig(pubkey=pubkey, algorithm="p256" if algorithm == "p256" else "ed25519")
    with pytest.raises(ValueError):  # noqa: PT011 - several libraries' words
        Trust.load(config)


def test_an_ed25519_initiator_is_believed_and_its_forger_named() -> None:
    config = NodesConfig(pubkey=ED25519_HEX, algorithm="ed25519")
    Trust.load(config).check(keygen(ED25519.sign(b"w1")))
    reason = refusal(config, keygen(ED25519.sign(b"w2")))
    assert reason == "invalid signature from initiator"
    assert errorcodes.guess(reason) == "ERROR_INVALID_INITIATOR_SIGNATURE"


def test_a_bad_p256_signature_yields_an_unknown_error_as_on_the_real_nodes() -> None:
    reason = refusal(NodesConfig(pubkey=SPKI.hex()), keygen(p256_sign(b"w2")))
    assert reason == "invalid signature"
    assert errorcodes.guess(reason) == "ERROR_UNKNOWN"


@pytest.mark.parametrize(("signature", "reason"), [(b"", "signature is empty"), (b"\x30\x00", "invalid signature")])
def test_a_signature_that_is_none_is_refused(signature: bytes, reason: str) -> None:
    assert refusal(NodesConfig(pubkey=SPKI.hex()), keygen(signature)) == reason


AUTHORIZED = NodesConfig(
    pubkey=SPKI.hex(),
    authorizers={"desk": AuthorizerKey(public_key=ED25519_HEX, algorithm="ed25519")},
    required_authorizers=("desk",),
)


def test_a_required_authorizer_must_have_signed_over_the_initiators_signature() -> None:
    bare = keygen(p256_sign(b"w1"))
    by_desk = AuthorizerSignature(authorizer_id="desk", signature=ED25519.sign(wire.authorizer_raw(bare)))
    Trust.load(AUTHORIZED).check(replace(bare, authorizer_signatures=(by_desk,)))
    assert refusal(AUTHORIZED, bare) == "missing required authorizer signature: desk"
    # ECDSA is randomised: the same message signed again has another signature, which desk has not seen
    again = keygen(p256_sign(b"w1"), by_desk)
    assert refusal(AUTHORIZED, again) == "authorizer desk verification failed"


def test_every_supplied_authorizer_signature_must_verify() -> None:
    bare = keygen(p256_sign(b"w1"))
    by_desk = AuthorizerSignature(authorizer_id="desk", signature=ED25519.sign(wire.authorizer_raw(bare)))
    stranger = AuthorizerSignature(authorizer_id="stranger", signature=by_desk.signature)
    reason = refusal(AUTHORIZED, replace(bare, authorizer_signatures=(by_desk, stranger)))
    assert reason == "authorizer stranger verification failed"


def test_without_authorization_supplied_signatures_are_ignored() -> None:
    rubbish = AuthorizerSignature(authorizer_id="x", signature=b"")
    Trust.load(NodesConfig(pubkey=SPKI.hex())).check(keygen(p256_sign(b"w1"), rubbish))


# --- error codes


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Key info not found", "ERROR_KEY_NOT_FOUND"),
        ("Key already exists: w1", "ERROR_KEY_ALREADY_EXISTS"),
        ("duplicate signing request detected for walletID=w1 txID=t1", "ERROR_SESSION_DUPLICATE"),
        ("duplicate signing request detected for walletID=output-1 txID=t1", "ERROR_STORAGE_WRITE"),
        ("duplicate signing request detected for walletID=timeout-1 txID=t1", "ERROR_NETWORK_TIMEOUT"),
        ("validation: session ID is empty", "ERROR_MSG_VALIDATION"),
        ("missing required authorizer signature: a", "ERROR_MISSING_AUTHORIZER_SIGNATURE"),
        ("authorizer a verification failed", "ERROR_INVALID_AUTHORIZER_SIGNATURE"),
        ("NOT ENOUGH peers", "ERROR_INSUFFICIENT_PARTICIPANTS"),
        ("hashed message is not valid", "ERROR_UNKNOWN"),
    ],
)
def test_codes_are_guessed_from_the_text_ids_included(text: str, code: str) -> None:
    assert errorcodes.guess(text) == code


# --- sessions


def test_a_signing_session_blocks_its_repetition_and_whatever_reads_the_same() -> None:
    sessions = Sessions(Timing())
    assert sessions.begin("a", "b-c")
    assert not sessions.begin("a", "b-c")
    assert not sessions.begin("a-b", "c")
    assert sessions.begin("a", "c")


def test_an_ended_session_may_begin_again() -> None:
    sessions = Sessions(Timing())
    assert sessions.begin("w1", "keygen")
    sessions.end("w1", "keygen")
    assert sessions.begin("w1", "keygen")


def test_a_stale_session_is_forgotten_when_the_node_sweeps() -> None:
    sessions = Sessions(Timing(session_timeout_s=0.0, session_sweep_s=0.0))
    assert sessions.begin("w1", "t1")
    assert sessions.begin("w1", "t1")


# --- results


@pytest.mark.parametrize(
    ("operation", "client", "expected"),
    [
        ("keygen", "desk", "mpc.mpc_keygen_result.desk.id"),
        ("keygen", "", "mpc.mpc_keygen_result.id"),
        ("sign", "desk", "mpc.mpc_signing_result.desk.complete"),
        ("sign", "", "mpc.mpc_signing_result.complete"),
        ("reshare", "desk", "mpc.mpc_reshare_result.desk.id"),
        ("reshare", "", "mpc.mpc_reshare_result.id"),
    ],
)
def test_results_go_where_mpcium_sends_them(operation: str, client: str, expected: str) -> None:
    assert results.subject(operation, client, "id") == expected


def test_deduplication_ids_hold_client_and_session_where_there_are_any() -> None:
    assert results.message_id("sign", "desk", "t1", "s1") == "mpc.mpc_signing_result.desk:t1:s1"
    assert results.message_id("keygen", "", "w1", "") == "mpc.mpc_keygen_result.w1"


def test_only_scoped_routing_knows_a_client() -> None:
    assert results.client_of({"ClientID": "desk"}, "scoped") == "desk"
    assert results.client_of({"ClientID": "desk"}, "unscoped") == ""


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        (
            "keygen",
            b'{"wallet_id":"","ecdsa_pub_key":null,"eddsa_pub_key":null,"result_type":"error","error_reason":"",'
            b'"error_code":""}',
        ),
        (
            "sign",
            b'{"result_type":"error","error_code":"","error_reason":"","is_timeout":false,"network_internal_code":"",'
            b'"wallet_id":"","tx_id":"","r":null,"s":null,"signature_recovery":null,"signature":null}',
        ),
        (
            "reshare",
            b'{"wallet_id":"","new_threshold":0,"key_type":"","pub_key":null,"result_type":"error","error_reason":"",'
            b'"error_code":""}',
        ),
    ],
)
def test_a_result_leaves_no_field_out(operation: str, expected: bytes) -> None:
    assert wire.dumps(results.body(operation).items()) == expected


# --- the vault


def test_one_run_makes_one_wallet_for_all_its_nodes_and_another_run_finds_it_taken() -> None:
    vault = Vault(bytes(32))
    vault.create("run-1", "w1", ("node0",), 1)
    made = vault.public_key("w1", "secp256k1")
    vault.create("run-1", "w1", ("node0",), 1)
    assert vault.public_key("w1", "secp256k1") == made
    with pytest.raises(KeyExistsError, match="Key already exists: w1"):
        vault.create("run-2", "w1", ("node0",), 1)


def test_a_reshare_changes_the_committee_once_and_never_the_key() -> None:
    vault = Vault(bytes(32))
    vault.create("run-1", "w1", ("node0", "node1"), 1)
    made = vault.public_key("w1", "ed25519")
    for _ in range(3):  # each node of the run
        vault.reshare("run-2", "w1", "ed25519", ("node1", "node2"), 1)
    share = vault.share("w1", "ed25519")
    assert share is not None
    assert (share.participants, share.version) == (("node1", "node2"), 2)
    assert vault.public_key("w1", "ed25519") == made


def test_wallets_survive_a_restart_where_there_is_a_store(tmp_path: Path) -> None:
    store = tmp_path / "wallets.json"
    first = Vault(bytes(32), store)
    first.create("run-1", "w1", ("node0", "node1"), 1)
    second = Vault(bytes(32), store)
    assert second.share("w1", "ed25519") == first.share("w1", "ed25519")
    assert second.public_key("w1", "secp256k1") == first.public_key("w1", "secp256k1")
    assert store.stat().st_mode & 0o077 == 0


# --- config


@pytest.mark.parametrize("threshold", [0, 3, 4])
def test_a_threshold_that_the_nodes_cannot_meet_is_refused(threshold: int) -> None:
    with pytest.raises(ValueError, match="threshold: expected 1 to 2"):
        NodesConfig(pubkey=SPKI.hex(), threshold=threshold)


@pytest.mark.parametrize("chain_code", ["", "00", "00" * 31, "zz" * 32])
def test_a_chain_code_of_another_form_is_refused(chain_code: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the words for bad hex are Python's
        NodesConfig(pubkey=SPKI.hex(), chain_code=chain_code)


def test_a_password_is_not_shown() -> None:
    assert "hunter2" not in repr(NodesConfig(pubkey=SPKI.hex(), password="hunter2"))


def test_a_cluster_is_told_how_to_log_in_over_tls(tmp_path: Path) -> None:
    now, key = datetime.datetime.now(datetime.UTC), certificates.make_key()
    files = {name: tmp_path / f"{name}.pem" for name in ("ca", "user", "key")}
    files["ca"].write_bytes(ca := certificates.authority(key, now))
    files["user"].write_bytes(certificates.for_user(ca, key, key, "nodes", now, 1))
    files["key"].write_bytes(key)
    words = ["--pubkey", SPKI.hex(), "--ca-file", str(files["ca"])]
    for more in ([], ["--cert-file", str(files["user"]), "--key-file", str(files["key"])]):
        tls = read_config(parser().parse_args([*words, *more])).tls
        assert tls is not None
        assert [one["subject"] for one in tls.get_ca_certs()] == [((("commonName", "initiator NATS CA"),),)]
    assert read_config(parser().parse_args(words[:2])).tls is None
