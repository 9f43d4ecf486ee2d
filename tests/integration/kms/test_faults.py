"""Every way in which KMS can fail or lie: the code, what it costs, what health says, and that it comes back."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from initiator.core.spki import p256_public_key
from initiator.errors import Code, HaltError, InitiatorError, RetryError
from initiator.kms import KmsSigner
from tests.contract.test_signer import kms_settings
from tests.support.kms_stub import Body, Change, Error, Fault, Key, KmsStub, Reset, Slow, kms_stub

QUICK = {"connect_timeout_s": 0.5, "read_timeout_s": 0.3, "retry_base_s": 0.01, "retry_max_s": 0.02}


@pytest.fixture
def stub() -> Iterator[KmsStub]:
    with kms_stub() as running:
        yield running


@pytest.fixture
def key(stub: KmsStub) -> Key:
    return stub.add()


@pytest.fixture
async def signer(stub: KmsStub, key: Key) -> AsyncIterator[KmsSigner]:
    connected = await KmsSigner.connect(kms_settings(stub.url, key.arn, **QUICK))
    stub.calls.clear()
    try:
        yield connected
    finally:
        await connected.close()


def in_s(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


# --- what passes by itself: retried until the deadline

PASSING: list[tuple[Fault, Code]] = [
    (Error("KMSInternalException", 500), Code.KMS_UNAVAILABLE),
    (Error("KeyUnavailableException", 500), Code.KMS_UNAVAILABLE),
    (Error("DependencyTimeoutException", 503), Code.KMS_UNAVAILABLE),
    (Error("InternalFailure", 500), Code.KMS_UNAVAILABLE),
    (Error("SomethingNew", 500), Code.KMS_UNAVAILABLE),
    (Error("ThrottlingException", 400), Code.KMS_THROTTLED),
    (Reset(), Code.KMS_UNAVAILABLE),
    (Slow(0.6), Code.KMS_UNAVAILABLE),
    (Body(b"{}"), Code.KMS_PROTOCOL),
    (Body(b""), Code.KMS_PROTOCOL),
    (Body(b'{"Signature":', cut=False), Code.KMS_PROTOCOL),
    (Body(b'{"KeyId":"k"', cut=True), Code.KMS_PROTOCOL),
    (Body(b'{"KeyId":"k","Signature":5}'), Code.KMS_PROTOCOL),
    (Body(b'{"KeyId":"k","Signature":"%%%"}'), Code.KMS_PROTOCOL),
    (Body(b'{"Signature":""}'), Code.KMS_PROTOCOL),
    (Change({"Signature": None}), Code.KMS_PROTOCOL),
]


@pytest.mark.parametrize(("fault", "code"), PASSING, ids=[str(fault)[:50] for fault, _ in PASSING])
async def test_a_passing_fault_is_asked_again_and_told_where_it_stays(
    signer: KmsSigner, stub: KmsStub, fault: Fault, code: Code
) -> None:
    stub.script.extend([fault, fault])
    assert (await signer.sign(b"m", deadline=in_s(10))).signature
    assert len(stub.calls) == 3
    assert signer.health().ok
    stub.script.append(fault)
    with pytest.raises(RetryError) as error:
        await signer.sign(b"m")
    assert error.value.code is code
    assert (signer.health().ok, signer.health().code) == (False, code)
    await signer.sign(b"m")
    assert signer.health().ok


async def test_a_fault_that_stays_ends_at_the_deadline(signer: KmsSigner, stub: KmsStub) -> None:
    stub.script.extend([Error("KMSInternalException", 500)] * 1000)
    started = in_s(0)
    with pytest.raises(RetryError):
        await signer.sign(b"m", deadline=in_s(0.4))
    assert in_s(0) - started < 3.0
    assert len(stub.calls) > 3


# --- what a person must mend: told at once, never retried

LASTING: list[tuple[Fault, Code, str]] = [
    (Error("NotFoundException"), Code.KMS_KEY_UNUSABLE, "no such key"),
    (Error("DisabledException"), Code.KMS_KEY_UNUSABLE, "disabled"),
    (Error("KMSInvalidStateException"), Code.KMS_KEY_UNUSABLE, "pending deletion"),
    (Error("InvalidKeyUsageException"), Code.KMS_KEY_UNUSABLE, "usage"),
    (Error("InvalidGrantTokenException"), Code.KMS_KEY_UNUSABLE, "grant token"),
    (Error("ValidationException"), Code.KMS_KEY_UNUSABLE, "refused the parameters"),
    (Error("DryRunOperationException"), Code.KMS_KEY_UNUSABLE, "dry run"),
    (Error("SomethingNew"), Code.KMS_KEY_UNUSABLE, "SomethingNew"),
    (Error("AccessDeniedException"), Code.KMS_ACCESS_DENIED, "kms:Sign"),
    (Change({"SigningAlgorithm": "ECDSA_SHA_384"}), Code.KMS_PROTOCOL, "expected ECDSA_SHA_256"),
    (Change({"KeyId": "arn:aws:kms:eu-central-1:111122223333:key/other"}), Code.KEY_MISMATCH, "another key"),
    (Change({"KeyId": None}), Code.KEY_MISMATCH, "another key"),
    (Change({"Signature": base64.b64encode(b"x" * 70).decode()}), Code.SIGNATURE_INVALID, "does not verify"),
]


@pytest.mark.parametrize(("fault", "code", "told"), LASTING, ids=[str(fault)[:50] for fault, _, _ in LASTING])
async def test_a_lasting_fault_is_told_at_once(
    signer: KmsSigner, stub: KmsStub, fault: Fault, code: Code, told: str
) -> None:
    stub.script.append(fault)
    with pytest.raises(InitiatorError) as error:
        await signer.sign(b"m")
    assert error.value.code is code
    assert told in error.value.reason + (error.value.hint or "")
    assert len(stub.calls) == 1
    assert (signer.health().ok, signer.health().code) == (False, code)
    await signer.sign(b"m")
    assert signer.health().ok


async def test_a_signature_by_another_key_never_leaves(signer: KmsSigner, stub: KmsStub) -> None:
    """A proxy, a wrong endpoint, a re-pointed alias: it looks right, and verifies under another key alone."""
    other = stub.add()
    lie = stub.answer(
        "Sign", {"KeyId": other.arn, "Message": "bQ==", "MessageType": "RAW", "SigningAlgorithm": "ECDSA_SHA_256"}
    )
    assert isinstance(lie, dict)
    stub.script.append(Change({"Signature": lie["Signature"]}))
    with pytest.raises(HaltError) as error:
        await signer.sign(b"m", deadline=in_s(5))
    assert error.value.code is Code.SIGNATURE_INVALID


async def test_what_is_sent_keeps_kms_limits(signer: KmsSigner, stub: KmsStub) -> None:
    """No emulator refuses a RAW message over 4,096 bytes, so here is one that does."""
    for size, kind in ((4096, "RAW"), (4097, "DIGEST"), (50_000, "DIGEST")):
        await signer.sign(b"m" * size)
        operation, asked = stub.calls[-1]
        assert (operation, asked["MessageType"]) == ("Sign", kind)


async def test_one_deadline_bounds_one_request_and_not_the_next(signer: KmsSigner, stub: KmsStub) -> None:
    stub.script.extend([Slow(0.6), None])
    late = asyncio.create_task(signer.sign(b"first", deadline=in_s(0.1)))
    await asyncio.sleep(0.05)
    assert (await signer.sign(b"second")).signature
    with pytest.raises(RetryError):
        await late


# --- the start

BAD_KEYS: list[tuple[dict[str, Any], dict[str, Any], Code, str]] = [
    ({"spec": "ECC_NIST_P384"}, {}, Code.KEY_UNSUITABLE, "KeySpec: expected ECC_NIST_P256, got ECC_NIST_P384"),
    ({"spec": "RSA_2048"}, {}, Code.KEY_UNSUITABLE, "KeySpec: expected ECC_NIST_P256, got RSA_2048"),
    ({"usage": "KEY_AGREEMENT"}, {}, Code.KEY_UNSUITABLE, "KeyUsage: expected SIGN_VERIFY, got KEY_AGREEMENT"),
    ({}, {"SigningAlgorithms": ["ECDSA_SHA_512"]}, Code.KEY_UNSUITABLE, "SigningAlgorithms: expected ECDSA_SHA_256"),
    ({"private": ec.generate_private_key(ec.SECP256K1())}, {}, Code.PUBLIC_KEY_INVALID, "secp256k1"),
    ({"private": ec.generate_private_key(ec.SECP384R1())}, {}, Code.PUBLIC_KEY_INVALID, "secp384r1"),
    ({}, {"PublicKey": base64.b64encode(b"x" * 91).decode()}, Code.PUBLIC_KEY_INVALID, "91 bytes"),
    ({}, {"PublicKey": None}, Code.KMS_PROTOCOL, "without a public key"),
    ({}, {"KeyId": None}, Code.KMS_PROTOCOL, "without a public key"),
    ({"state": "Disabled"}, {}, Code.KMS_KEY_UNUSABLE, "disabled"),
]


@pytest.mark.parametrize(("fields", "change", "code", "told"), BAD_KEYS)
async def test_an_unsuitable_key_stops_the_start(
    stub: KmsStub, fields: dict[str, Any], change: dict[str, Any], code: Code, told: str
) -> None:
    key = stub.add(**fields)
    stub.script.append(Change(change))
    with pytest.raises(InitiatorError) as error:
        await KmsSigner.connect(kms_settings(stub.url, key.arn, **QUICK))
    assert error.value.code is code
    assert told in error.value.reason


UNKNOWN_PROFILE = {"access_key_id": None, "secret_access_key": None, "profile": "nobody"}


@pytest.mark.parametrize(
    ("changes", "code", "field"),
    [
        ({"key_id": None}, Code.CONFIG_INVALID, "signer.kms.key_id"),
        ({"key_id": "nobody"}, Code.KMS_KEY_UNUSABLE, "signer.kms.key_id"),
        ({"endpoint_url": "nonsense"}, Code.CONFIG_INVALID, "signer.kms.endpoint_url"),
        ({"endpoint_url": "http://127.0.0.1:1"}, Code.KMS_UNAVAILABLE, None),
        ({"profile": "nobody"}, Code.CONFIG_INVALID, "signer.kms.profile"),
        (
            {"access_key_id": None, "secret_access_key": None, "profile": "nobody"},
            Code.CONFIG_INVALID,
            "signer.kms.profile",
        ),
    ],
)
async def test_a_wrong_setting_is_told_by_its_name(
    stub: KmsStub, key: Key, changes: dict[str, Any], code: Code, field: str | None
) -> None:
    with pytest.raises(InitiatorError) as error:
        await KmsSigner.connect(kms_settings(stub.url, key.arn, **(QUICK | changes)))
    assert (error.value.code, error.value.field) == (code, field)


async def test_an_alias_that_is_moved_moves_nothing(stub: KmsStub, key: Key, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls name the key that the alias meant at the start, and somebody is told that the next start will differ."""
    told: list[str] = []
    moved = asyncio.Event()

    class Log:
        def error(self, event: str, **fields: Any) -> None:
            told.append(event)
            moved.set()

    monkeypatch.setattr("initiator.kms.signer.log", Log())
    monkeypatch.setattr("initiator.kms.signer.ALIAS_CHECK_S", 0.05)
    stub.aliases["alias/initiator"] = key
    signer = await KmsSigner.connect(kms_settings(stub.url, "alias/initiator", **QUICK))
    try:
        stub.aliases["alias/initiator"] = stub.add()
        assert (await signer.sign(b"m")).key_id == key.arn
        async with asyncio.timeout(5):
            await moved.wait()
        await asyncio.sleep(0.2)
        assert told == ["signer.key_id_moved"]
        assert signer.public_key == p256_public_key(key.private.public_key())
    finally:
        await signer.close()
