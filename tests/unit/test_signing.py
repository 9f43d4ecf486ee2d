"""A client's key from a file or behind a callback."""

from __future__ import annotations

import time
from pathlib import Path

import nkeys
import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from initiator.cli.key import key as key_command
from initiator.client import RejectedError, RequestSigner
from initiator.client.signing import new_seed
from initiator.core import requester
from initiator.core.model import KeygenRequest
from initiator.core.spki import p256_public_key
from initiator.errors import Code

REQUEST = KeygenRequest(wallet_id="w1")
P256 = ec.generate_private_key(ec.SECP256R1())
PUBLIC = requester.key_text(p256_public_key(P256.public_key()))


def file_of(folder: Path, content: str | bytes, mode: int = 0o600) -> Path:
    path = folder / "key"
    path.touch(mode=0o600)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(mode)
    return path


def pem(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey, secret: bytes = b"") -> bytes:
    encryption = BestAvailableEncryption(secret) if secret else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


async def holds(signer: RequestSigner, audience: str = "initiator") -> None:
    header = await signer.header("alice", REQUEST)
    signed = requester.parse_header(header[requester.HEADER])
    assert signed.key == signer.public_key
    covered = requester.canonical_bytes(audience, "alice", REQUEST)
    requester.verify(requester.parse_key(signed.key), signed.signature, covered)


async def test_an_nkey_seed(tmp_path: Path) -> None:
    seed = nkeys.encode_seed(ed25519.Ed25519PrivateKey.generate().private_bytes_raw(), nkeys.PREFIX_BYTE_USER)
    signer = RequestSigner.from_file(file_of(tmp_path, seed + b"\n"))
    assert signer.public_key == nkeys.from_seed(seed).public_key.decode()
    await holds(signer)


async def test_pem_of_both_kinds(tmp_path: Path) -> None:
    for key in (P256, ed25519.Ed25519PrivateKey.generate()):
        await holds(RequestSigner.from_file(file_of(tmp_path, pem(key)), audience="eu"), "eu")


async def test_a_credentials_file_of_nats_holds_a_seed_too(tmp_path: Path) -> None:
    seed = new_seed()
    text = f"-- a comment --\n{seed}\n------\n"
    await holds(RequestSigner.from_file(file_of(tmp_path, text)))


def test_a_new_seed_is_natss(tmp_path: Path) -> None:
    path = tmp_path / "new"
    done = CliRunner().invoke(key_command, ["requester", str(path)])
    assert done.exit_code == 0
    assert path.stat().st_mode & 0o777 == 0o600
    assert done.stdout.strip() == nkeys.from_seed(path.read_bytes().strip()).public_key.decode()
    again = CliRunner().invoke(key_command, ["requester", str(path)])
    assert again.exit_code == 1
    assert "keys are never overwritten" in again.stderr


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "expected one NKey seed"),
        ("nonsense", "expected one NKey seed"),
        ("SUAAAA", "expected one NKey seed"),
        ("{account}", "expected one NKey seed"),
        ("{seed}\n{seed}", "expected one NKey seed"),
        ("{typo}", "expected one NKey seed"),
        ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----", "without a passphrase"),
        ("{encrypted}", "without a passphrase"),
        ("{rsa}", "of another kind"),
        ("{p384}", "of another kind"),
    ],
)
def test_what_is_no_key(tmp_path: Path, content: str, reason: str) -> None:
    seed = new_seed()
    account = nkeys.encode_seed(bytes(range(32)), nkeys.PREFIX_BYTE_ACCOUNT).decode()
    text = content.format(
        seed=seed, account=account, typo=seed[:-1] + ("A" if seed[-1] != "A" else "B"),
        encrypted=pem(P256, b"secret").decode(), rsa=pem(rsa.generate_private_key(65537, 2048)).decode(),
        p384=pem(ec.generate_private_key(ec.SECP384R1())).decode(),
    )  # fmt: skip
    with pytest.raises(RejectedError, match=reason) as caught:
        RequestSigner.from_file(file_of(tmp_path, text))
    assert (caught.value.code, caught.value.field) == (Code.KEY_FILE_INVALID, "signing_key")
    assert seed not in str(caught.value)


def test_a_seed_is_mistyped_in_its_last_character_too(tmp_path: Path) -> None:
    """Two bits of it mean nothing."""
    seed = new_seed()
    for other in set("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") - {seed[-1]}:
        with pytest.raises(RejectedError, match="expected one NKey seed"):
            RequestSigner.from_file(file_of(tmp_path, seed[:-1] + other))
    RequestSigner.from_file(file_of(tmp_path, seed))


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RejectedError, match="others cannot read, got mode 644"):
        RequestSigner.from_file(file_of(tmp_path, new_seed(), 0o644))
    RequestSigner.from_file(file_of(tmp_path, new_seed(), 0o640))


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(RejectedError, match="No such file"):
        RequestSigner.from_file(tmp_path / "none")


async def test_a_callback_in_a_thread_or_a_coroutine() -> None:
    def blocking(message: bytes) -> bytes:
        time.sleep(0.01)
        return P256.sign(message, ec.ECDSA(hashes.SHA256()))

    async def waiting(message: bytes) -> bytes:
        return blocking(message)

    await holds(RequestSigner(PUBLIC, blocking))
    await holds(RequestSigner(PUBLIC, waiting))
    await holds(RequestSigner(PUBLIC, lambda message: waiting(message)))


async def test_a_callback_that_signs_with_another_key_sends_nothing() -> None:
    other = ec.generate_private_key(ec.SECP256R1())
    signer = RequestSigner(PUBLIC, lambda message: other.sign(message, ec.ECDSA(hashes.SHA256())))
    with pytest.raises(RejectedError, match="does not verify under"):
        await signer.header("alice", REQUEST)


async def test_a_callback_that_returns_something_else() -> None:
    with pytest.raises(RejectedError, match="expected bytes from the callback, got str"):
        await RequestSigner(PUBLIC, lambda _message: "x").header("alice", REQUEST)  # type: ignore[arg-type, return-value]


def test_a_public_key_that_is_none() -> None:
    with pytest.raises(RejectedError) as caught:
        RequestSigner("nonsense", lambda message: message)
    assert caught.value.field == "public_key"


def test_what_is_printed_is_the_public_key(tmp_path: Path) -> None:
    path = file_of(tmp_path, new_seed())
    signer = RequestSigner.from_file(path)
    assert repr(signer) == f"RequestSigner({signer.public_key})"
    assert path.read_text() not in repr(vars(signer))
