"""What a client signs: every part counts, no two requests share it, and only its own keys do."""

from __future__ import annotations

import base64
import dataclasses
from typing import Any

import nkeys
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import given
from hypothesis import strategies as st

from initiator.core import requester
from initiator.core.model import KeygenRequest, KeyType, Request, ReshareRequest, SignRequest
from initiator.core.requester import RequesterSignature, canonical_bytes
from initiator.core.signer import PublicKey
from initiator.core.spki import p256_public_key
from initiator.errors import Code, HaltError, RejectError

SIGN = SignRequest(
    key_type=KeyType.ED25519, wallet_id="w1", network_internal_code="sol", tx_id="t1", tx=b"\x01\x02",
    derivation_path=(44, 501), expires_at=1_790_000_000.5, labels={"b": "2", "a": "1"},
)  # fmt: skip
KEYGEN = KeygenRequest(wallet_id="w1")
RESHARE = ReshareRequest(
    session_id="s1", node_ids=("n0", "n1"), new_threshold=1, key_type=KeyType.SECP256K1, wallet_id="w1"
)
EDWARDS = ed25519.Ed25519PrivateKey.generate()
P256 = ec.generate_private_key(ec.SECP256R1())


EDWARDS_KEY = PublicKey(algorithm="ed25519", encoded=EDWARDS.public_key().public_bytes_raw())
P256_KEY = p256_public_key(P256.public_key())


def signed_by_edwards(request: Request, client: str = "alice", reopens: str | None = None) -> bytes:
    return EDWARDS.sign(canonical_bytes("initiator", client, request, reopens))


def signed_by_p256(request: Request) -> bytes:
    return P256.sign(canonical_bytes("initiator", "alice", request), ec.ECDSA(hashes.SHA256()))


def verify(signature: bytes, request: Request, audience: str = "initiator", client: str = "alice", **more: Any) -> None:
    requester.verify(EDWARDS_KEY, signature, canonical_bytes(audience, client, request, **more))


def header() -> str:
    return requester.format_header(RequesterSignature(requester.key_text(EDWARDS_KEY), signed_by_edwards(SIGN)))


def test_the_form_byte_for_byte() -> None:
    assert canonical_bytes("initiator", "alice", SIGN) == (
        b"32:initiator-requester-signature-v1,9:initiator,5:alice,4:sign,7:ed25519,2:w1,3:sol,2:t1,2:\x01\x02,6:44/501,"
        b"24:2026-09-21T14:13:20.500Z,16:1:a,1:1,1:b,1:2,,0:,"
    )
    assert canonical_bytes("eu", "bob", KEYGEN) == (
        b"32:initiator-requester-signature-v1,2:eu,3:bob,6:keygen,2:w1,0:,0:,0:,"
    )
    assert canonical_bytes("eu", "bob", RESHARE) == (
        b"32:initiator-requester-signature-v1,2:eu,3:bob,7:reshare,2:s1,10:2:n0,2:n1,,1:1,9:secp256k1,2:w1,0:,0:,0:,"
    )


@pytest.mark.parametrize(
    "change",
    [
        {"wallet_id": "w2"}, {"tx_id": "t2"}, {"tx": b"\x01\x03"}, {"key_type": KeyType.SECP256K1},
        {"network_internal_code": "eth"}, {"derivation_path": (44, 502)}, {"derivation_path": None},
        {"expires_at": 1_790_000_001.0}, {"expires_at": None}, {"labels": {}}, {"labels": {"a": "1", "b": "3"}},
    ],
)  # fmt: skip
def test_nothing_of_a_request_can_be_changed(change: dict[str, Any]) -> None:
    signed = signed_by_edwards(SIGN)
    verify(signed, SIGN)
    with pytest.raises(RejectError) as caught:
        verify(signed, dataclasses.replace(SIGN, **change))
    assert (caught.value.code, caught.value.field) == (Code.REQUESTER_SIGNATURE_INVALID, "Initiator-Signature")


@pytest.mark.parametrize("change", [{"node_ids": ("n0", "n2")}, {"new_threshold": 2}, {"session_id": "s2"}])
def test_nothing_of_a_reshare_can_be_changed(change: dict[str, Any]) -> None:
    signed = signed_by_edwards(RESHARE)
    with pytest.raises(RejectError):
        verify(signed, dataclasses.replace(RESHARE, **change))


def test_it_is_for_one_client_and_one_cluster() -> None:
    signed = signed_by_edwards(SIGN)
    for audience, client in (("initiator", "bob"), ("other", "alice")):
        with pytest.raises(RejectError, match="does not verify over this request"):
            verify(signed, SIGN, audience, client)


def test_what_it_goes_on_after_is_covered() -> None:
    """Replay: who has seen a request that failed must not be able to have it opened again."""
    with pytest.raises(RejectError):
        verify(signed_by_edwards(SIGN), SIGN, reopens="0123456789abcdef")
    verify(signed_by_edwards(SIGN, reopens="0123456789abcdef"), SIGN, reopens="0123456789abcdef")


def test_both_kinds_of_keys_sign() -> None:
    for key, signature in ((EDWARDS_KEY, signed_by_edwards(SIGN)), (P256_KEY, signed_by_p256(SIGN))):
        signed = RequesterSignature(requester.key_text(key), signature)
        assert requester.parse_header(requester.format_header(signed)) == signed
        assert requester.check_known(signed, [EDWARDS_KEY, P256_KEY], "alice") == key
        requester.verify(key, signature, canonical_bytes("initiator", "alice", SIGN))


def test_a_key_that_comes_along_proves_nothing() -> None:
    signed = requester.parse_header(header())
    with pytest.raises(RejectError, match="none of the 1 that the policy knows of alice"):
        requester.check_known(signed, [P256_KEY], "alice")
    with pytest.raises(RejectError, match="none of the 0"):
        requester.check_known(signed, [], "alice")


@pytest.mark.parametrize(
    "odd",
    [
        "", "x", "x y", "{key}", "{key} ", "{key} !!", "{key}  {sig}", " {key} {sig}", "{key} {sig}=",
        "{key} {sig} {sig}", "{key}\t{sig}", "{lower} {sig}", "{key} {long}",
    ],
)  # fmt: skip
def test_a_header_has_one_form(odd: str) -> None:
    key, signature = header().split(" ")
    value = odd.format(key=key, sig=signature, lower=key.lower(), long=base64.b64encode(bytes(129)).decode())
    with pytest.raises(RejectError) as caught:
        requester.check_known(requester.parse_header(value), [EDWARDS_KEY], "alice")
    assert caught.value.code is Code.REQUESTER_SIGNATURE_INVALID
    assert signature not in caught.value.reason


def test_a_p256_header_has_one_form() -> None:
    """The same key in hex is not the one that the policy knows: one text for one signature."""
    signed = RequesterSignature(P256_KEY.hex, signed_by_p256(SIGN))
    with pytest.raises(RejectError):
        requester.check_known(signed, [P256_KEY], "alice")


def test_nkeys_are_those_of_nats() -> None:
    seed = nkeys.encode_seed(EDWARDS.private_bytes_raw(), nkeys.PREFIX_BYTE_USER)
    user = nkeys.from_seed(seed)
    assert requester.key_text(EDWARDS_KEY) == user.public_key.decode()
    assert user.sign(canonical_bytes("initiator", "alice", SIGN)) == signed_by_edwards(SIGN)


@pytest.mark.parametrize("position", [1, 20, 55])
def test_a_mistyped_nkey_is_found(position: int) -> None:
    text = requester.key_text(EDWARDS_KEY)
    typo = "A" if text[position] != "A" else "B"
    with pytest.raises(HaltError, match="mistyped"):
        requester.parse_key(text[:position] + typo + text[position + 1 :])


def texts() -> st.SearchStrategy[str]:
    return st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


def requests() -> st.SearchStrategy[Request]:
    common: dict[str, Any] = {
        "wallet_id": texts(),
        "expires_at": st.none() | st.integers(0, 4_000_000_000).map(float),
        "labels": st.dictionaries(texts(), texts(), max_size=2),
    }
    key_type, levels = st.sampled_from(KeyType), st.lists(st.integers(0, 9), min_size=1, max_size=3)
    sign = st.builds(
        SignRequest, key_type=key_type, network_internal_code=texts(), tx_id=texts(), tx=st.binary(max_size=8),
        derivation_path=st.none() | levels.map(tuple), **common,
    )  # fmt: skip
    reshare = st.builds(
        ReshareRequest, session_id=texts(), node_ids=st.lists(texts(), max_size=3).map(tuple),
        new_threshold=st.integers(1, 9), key_type=key_type, **common,
    )  # fmt: skip
    return st.one_of(st.builds(KeygenRequest, **common), sign, reshare)


@given(requests(), requests(), texts(), texts())
def test_no_two_requests_share_their_bytes(one: Request, other: Request, client: str, another: str) -> None:
    if (one, client) != (other, another):
        assert canonical_bytes("a", client, one) != canonical_bytes("a", another, other)
    assert canonical_bytes("a", client, one) == canonical_bytes("a", client, dataclasses.replace(one))
