"""The same promises of every signer: a local key, moto, LocalStack, and KMS as AWS documents it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import SecretStr

from initiator import keyfile
from initiator.config.signers import KmsSettings
from initiator.core.signature import Verifier
from initiator.core.signer import Signer
from initiator.core.spki import P256_BYTES, P256_PREFIX, p256_public_key
from initiator.dev import localstack, servers
from initiator.errors import Code, HaltError
from initiator.kms import KmsSigner
from tests.support.kms_stub import REGION, kms_stub

pytestmark = pytest.mark.asyncio(loop_scope="module")
Connect = Callable[..., "contextlib.AbstractAsyncContextManager[Signer]"]


def kms_settings(url: str, key: str, **changes: object) -> KmsSettings:
    fields: dict[str, object] = {
        "region": REGION, "key_id": key, "endpoint_url": url, "threads": 4,
        "access_key_id": SecretStr("test"), "secret_access_key": SecretStr("test"),
    }  # fmt: skip
    return KmsSettings.model_validate(fields | changes)


@contextlib.asynccontextmanager
async def endpoint(kind: str, folder: Path) -> AsyncIterator[tuple[str, str]]:
    """The URL and a key of one KMS."""
    if kind == "stub":
        with kms_stub() as stub:
            yield stub.url, stub.add().arn
        return
    start = servers.moto_server if kind == "moto" else localstack.localstack
    async with start(folder) as url:
        yield url, await asyncio.to_thread(servers.create_kms_key, url, REGION)


@pytest_asyncio.fixture(
    loop_scope="module",
    scope="module",
    params=["local", "stub", "moto", pytest.param("localstack", marks=pytest.mark.slow)],
)
async def connect(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Connect]:
    """Makes signers of one kind, all with one key."""
    if request.param == "local":
        key = ec.generate_private_key(ec.SECP256R1())

        @contextlib.asynccontextmanager
        async def local(**_: object) -> AsyncIterator[Signer]:
            yield keyfile.LocalSigner(key, "test")

        yield local
        return
    async with endpoint(request.param, tmp_path_factory.mktemp("kms")) as (url, key_id):

        @contextlib.asynccontextmanager
        async def kms(**changes: object) -> AsyncIterator[Signer]:
            signer = await KmsSigner.connect(kms_settings(url, key_id, **changes))
            try:
                yield signer
            finally:
                await signer.close()

        yield kms


async def test_the_public_key_is_in_the_exact_form_that_the_nodes_take(connect: Connect) -> None:
    async with connect() as signer:
        key = signer.public_key
    assert key.algorithm == "p256"
    assert len(key.encoded) == P256_BYTES
    assert key.encoded.startswith(P256_PREFIX)


@pytest.mark.parametrize("size", [1, 32, 4095, 4096])
async def test_a_short_message_is_signed_and_verifies(connect: Connect, size: int) -> None:
    async with connect() as signer:
        signed = await signer.sign(b"m" * size)
        assert Verifier(signer.public_key).verify(b"m" * size, signed.signature)
        assert signed.key_id


@pytest.mark.parametrize(("size", "always_digest"), [(4097, False), (60_000, False), (10, True)])
async def test_a_long_message_is_signed_as_its_digest(
    connect: Connect, size: int, always_digest: bool, request: pytest.FixtureRequest
) -> None:
    async with connect(always_digest=always_digest) as signer:
        if "moto" in request.node.name:
            # moto hashes a digest again: the signature is over something else, and our own check notices
            with pytest.raises(HaltError) as error:
                await signer.sign(b"m" * size)
            assert error.value.code is Code.SIGNATURE_INVALID
            assert signer.health().code is Code.SIGNATURE_INVALID
            return
        signed = await signer.sign(b"m" * size)
        assert Verifier(signer.public_key).verify(b"m" * size, signed.signature)


async def test_many_at_once_all_get_their_own_signature(connect: Connect) -> None:
    async with connect() as signer:
        messages = [f"message {number}".encode() for number in range(24)]
        signatures = await asyncio.gather(*(signer.sign(message) for message in messages))
        verifier = Verifier(signer.public_key)
        assert all(verifier.verify(m, s.signature) for m, s in zip(messages, signatures, strict=True))
        assert signer.health().ok


async def test_another_pin_stops_the_start_with_both_fingerprints(tmp_path: Path) -> None:
    other = p256_public_key(ec.generate_private_key(ec.SECP256R1()).public_key())
    async with endpoint("moto", tmp_path) as (url, key_id):
        with pytest.raises(HaltError) as error:
            await KmsSigner.connect(kms_settings(url, key_id), pin=other)
    assert (error.value.code, error.value.field) == (Code.KEY_MISMATCH, "mpcium.event_initiator_pubkey")
    assert error.value.reason.count("SHA256:") == 2
