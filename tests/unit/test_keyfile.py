"""Local key files: every form that mpcium writes, and a word for each that it does not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from pydantic import SecretStr

from initiator import keyfile
from initiator.config.signers import LocalKeySettings
from initiator.core.signature import Verifier
from initiator.errors import Code, HaltError

P256 = ec.generate_private_key(ec.SECP256R1())
ED25519 = ed25519.Ed25519PrivateKey.generate()
PLAIN = NoEncryption()
LOCKED = BestAvailableEncryption(b"open sesame")


def ec_bytes(
    encoding: Encoding, form: PrivateFormat, lock: KeySerializationEncryption = PLAIN,
    key: ec.EllipticCurvePrivateKey = P256,
) -> bytes:  # fmt: skip
    return key.private_bytes(encoding, form, lock)


SEC1, PKCS8 = PrivateFormat.TraditionalOpenSSL, PrivateFormat.PKCS8
SEED = ED25519.private_bytes(Encoding.Raw, PrivateFormat.Raw, PLAIN)


def write(folder: Path, content: bytes, mode: int = 0o600) -> Path:
    path = folder / "event_initiator.key"
    path.touch(mode=mode)
    path.write_bytes(content)
    path.chmod(mode)
    return path


def load(path: Path, passphrase: str | None = None) -> keyfile.LocalSigner:
    secret = SecretStr(passphrase) if passphrase else None
    return keyfile.load_local_signer(LocalKeySettings(path=str(path), passphrase=secret))


P256_FORMS = [
    ("hex of SEC1, as mpcium writes it", ec_bytes(Encoding.DER, SEC1).hex().encode()),
    ("hex with a newline", ec_bytes(Encoding.DER, SEC1).hex().encode() + b"\n"),
    ("hex with 0x", b"0x" + ec_bytes(Encoding.DER, SEC1).hex().encode()),
    ("hex of PKCS#8", ec_bytes(Encoding.DER, PKCS8).hex().encode()),
    ("SEC1 DER", ec_bytes(Encoding.DER, SEC1)),
    ("PKCS#8 DER", ec_bytes(Encoding.DER, PKCS8)),
    ("SEC1 PEM", ec_bytes(Encoding.PEM, SEC1)),
    ("PKCS#8 PEM", ec_bytes(Encoding.PEM, PKCS8)),
]
ED25519_FORMS = [
    ("hex of the seed, as mpcium writes it", SEED.hex().encode()),
    ("PKCS#8 PEM", ED25519.private_bytes(Encoding.PEM, PKCS8, PLAIN)),
    ("hex of PKCS#8", ED25519.private_bytes(Encoding.DER, PKCS8, PLAIN).hex().encode()),
]
FORMS = [(name, content, P256) for name, content in P256_FORMS] + [(n, c, ED25519) for n, c in ED25519_FORMS]


@pytest.mark.parametrize(("content", "key"), [row[1:] for row in FORMS], ids=[row[0] for row in FORMS])
async def test_every_form_gives_its_key_and_signs(tmp_path: Path, content: bytes, key: keyfile.PrivateKey) -> None:
    signer = load(write(tmp_path, content))
    assert signer.public_key == keyfile.public_key_of(key)
    signed = await signer.sign(b"m" * 5000)
    assert Verifier(signer.public_key).verify(b"m" * 5000, signed.signature)
    assert signed.key_id == "event_initiator.key"


@pytest.mark.parametrize("form", [SEC1, PKCS8])
def test_a_locked_pem_opens_with_its_passphrase_alone(tmp_path: Path, form: PrivateFormat) -> None:
    path = write(tmp_path, ec_bytes(Encoding.PEM, form, LOCKED))
    assert load(path, "open sesame").public_key == keyfile.public_key_of(P256)
    for passphrase in (None, "wrong"):
        with pytest.raises(HaltError, match="passphrase"):
            load(path, passphrase)


def test_an_age_file_opens_with_its_passphrase_alone(tmp_path: Path) -> None:
    age = pytest.importorskip("pyrage", reason="the extra `age` is not installed")
    hexed = ec_bytes(Encoding.DER, SEC1).hex().encode()
    path = write(tmp_path, age.passphrase.encrypt(hexed, "open sesame"))
    assert load(path, "open sesame").public_key == keyfile.public_key_of(P256)
    for passphrase, told in ((None, "a passphrase is needed"), ("wrong", "a wrong passphrase, or a damaged file")):
        with pytest.raises(HaltError, match=told):
            load(path, passphrase)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(HaltError, match="damaged"):
        load(path, "open sesame")


OTHER = "expected hex of an Ed25519 seed or of SEC1 or PKCS#8 DER, raw DER, or PEM"
BAD: list[tuple[str, bytes, str]] = [
    ("empty", b"", "expected 1 to 16384 bytes"),
    ("huge", b"a" * 20_000, "expected 1 to 16384 bytes"),
    ("text", b"correct horse battery staple", OTHER),
    ("odd hex", b"abc", OTHER),
    ("hex of 31 bytes", b"aa" * 31, OTHER),
    ("hex of 64 bytes (Go's form, with the public key)", b"aa" * 64, OTHER),
    ("cut DER", ec_bytes(Encoding.DER, SEC1)[:-5], OTHER),
    ("DER with a passphrase", ec_bytes(Encoding.DER, PKCS8, LOCKED), OTHER),
    ("P-384", ec_bytes(Encoding.PEM, SEC1, PLAIN, ec.generate_private_key(ec.SECP384R1())),
     "expected P-256, got a key on secp384r1"),
    ("secp256k1", ec_bytes(Encoding.DER, SEC1, PLAIN, ec.generate_private_key(ec.SECP256K1())),
     "expected P-256, got a key on secp256k1"),
    ("RSA", rsa.generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PKCS8, PLAIN),
     "expected a P-256 or Ed25519 key, got RSAPrivateKey"),
    ("a public key", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "expected PEM of a private key"),
    ("PEM of rubbish", b"-----BEGIN PRIVATE KEY-----\n%%%\n-----END PRIVATE KEY-----\n", "expected PEM of a private"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "told"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_what_is_no_key_is_refused_by_its_form_and_never_shown(tmp_path: Path, content: bytes, told: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(HaltError) as error:
        load(path)
    assert (error.value.code, error.value.field) == (Code.KEY_FILE_INVALID, str(path))
    assert told in error.value.reason
    if len(content) > 20:
        assert content[:20].decode("latin-1") not in str(error.value)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = write(tmp_path, SEED.hex().encode(), mode)
    with pytest.raises(HaltError) as error:
        load(path)
    assert error.value.reason == "readable by others than its owner"
    assert error.value.hint == f"chmod 600 {path}"


def test_a_file_that_is_not_there_or_is_none_is_refused(tmp_path: Path) -> None:
    for path, told in ((tmp_path / "absent", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(HaltError) as error:
            load(path)
        assert error.value.code is Code.KEY_FILE_INVALID
        assert told in error.value.reason
    with pytest.raises(HaltError) as error:
        keyfile.load_local_signer(LocalKeySettings())
    assert (error.value.code, error.value.field) == (Code.CONFIG_INVALID, "signer.local.path")


@pytest.mark.parametrize("algorithm", ["p256", "ed25519"])
def test_a_generated_key_is_read_back_as_the_same(tmp_path: Path, algorithm: str) -> None:
    content, public_key = keyfile.generate("p256" if algorithm == "p256" else "ed25519")
    assert load(write(tmp_path, content.encode())).public_key == public_key
    assert public_key.algorithm == algorithm


def test_a_signer_shows_nothing_of_its_key(tmp_path: Path) -> None:
    shown = repr(load(write(tmp_path, SEED.hex().encode())))
    assert SEED.hex() not in shown
    assert shown == "LocalSigner(ed25519, 'event_initiator.key')"
    assert os.path.basename(tmp_path) not in shown
