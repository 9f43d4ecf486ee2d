"""The signer by itself, without an event loop."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key

from initiator.core.spki import p256_public_key
from initiator.errors import Code, HaltError, RetryError
from initiator.signer import KmsSigner
from tests.support.kms_stub import REGION, Error, Key, KmsStub, kms_stub

STATIC: dict[str, Any] = {"access_key_id": "test", "secret_access_key": "test"}


@pytest.fixture
def stub() -> Iterator[KmsStub]:
    with kms_stub() as running:
        yield running


@pytest.fixture
def key(stub: KmsStub) -> Key:
    return stub.add()


def test_a_public_key_and_signatures_for_many_threads(stub: KmsStub, key: Key) -> None:
    with KmsSigner(key.arn, region=REGION, endpoint_url=stub.url, **STATIC) as signer:
        public = load_der_public_key(signer.public_key_der)
        assert isinstance(public, ec.EllipticCurvePublicKey)
        assert (signer.public_key, signer.algorithm) == (signer.public_key_der.hex(), "p256")
        assert signer.fingerprint.startswith("SHA256:")
        messages = [b"%d" % number for number in range(50)]
        with ThreadPoolExecutor(8) as threads:
            for message, signature in zip(messages, threads.map(signer.sign, messages), strict=True):
                public.verify(signature, message, ec.ECDSA(hashes.SHA256()))
    with pytest.raises(RuntimeError, match="closed"):
        signer.sign(b"m")
    signer.close()


def test_it_holds_the_key_against_a_pin(stub: KmsStub, key: Key) -> None:
    other = p256_public_key(ec.generate_private_key(ec.SECP256R1()).public_key())
    with pytest.raises(HaltError) as error:
        KmsSigner(key.arn, region=REGION, endpoint_url=stub.url, pin=other.hex, **STATIC)
    assert error.value.code is Code.KEY_MISMATCH


def test_it_tries_again_until_its_timeout(stub: KmsStub, key: Key) -> None:
    with KmsSigner(key.arn, region=REGION, endpoint_url=stub.url, timeout_s=5.0, **STATIC) as signer:
        stub.script.extend([Error("ThrottlingException")] * 2)
        assert signer.sign(b"m")
        stub.script.extend([Error("ThrottlingException")] * 200)
        with pytest.raises(RetryError) as error:
            signer.sign(b"m", timeout_s=0.5)
        assert error.value.code is Code.KMS_THROTTLED


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"endpoint": "x"}, "endpoint"),
        ({"threads": 0}, "threads"),
        ({"access_key_id": "only"}, "come together"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], says: str) -> None:
    with pytest.raises(HaltError) as error:
        KmsSigner("alias/x", region=REGION, **options)
    assert error.value.code is Code.CONFIG_INVALID
    assert says in error.value.reason
