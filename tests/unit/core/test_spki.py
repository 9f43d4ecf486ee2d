"""Public keys: the one form that the nodes take passes; anything near it is named, and never shown."""

from __future__ import annotations

import base64
import contextlib
import hashlib
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa, x25519
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_public_key,
)
from hypothesis import given
from hypothesis import strategies as st

from initiator.core import spki
from initiator.core.curves import ED25519_P, add_ed25519, decode_ed25519, encode_ed25519
from initiator.core.signer import Algorithm, PublicKey
from initiator.errors import Code, HaltError

P256 = ec.generate_private_key(ec.SECP256R1())
ED25519 = Ed25519PrivateKey.generate()
DER = P256.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
RAW = ED25519.public_key().public_bytes_raw()
POINT = DER[-64:]  # X‖Y
ENCODED: dict[Algorithm, bytes] = {"p256": DER, "ed25519": RAW}

WANTED_P256 = "expected P-256 SubjectPublicKeyInfo (91 bytes), got "
WANTED_ED25519 = "expected an Ed25519 public key (32 bytes), got "
PRIVATE = "a private key: it belongs in no setting; if it was real, replace it"


def refusal(text: str, algorithm: Algorithm) -> str:
    with pytest.raises(HaltError) as caught:
        spki.parse_public_key(text, algorithm)
    error = caught.value
    assert (error.code, error.field) == (Code.PUBLIC_KEY_INVALID, "event_initiator_pubkey")
    assert error.hint
    assert error.hint.startswith("mpcium takes ")
    return error.reason


# --- the form that passes

SPELLINGS: dict[str, Callable[[bytes], str]] = {
    "hex": bytes.hex,
    "upper-case hex": lambda key: key.hex().upper(),
    "hex with 0x": lambda key: f"0x{key.hex()}",
    "base64": lambda key: base64.b64encode(key).decode(),
    "with white space around": lambda key: f" \t{key.hex()}\r\n",
}


@pytest.mark.parametrize("algorithm", ["p256", "ed25519"])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_key_is_read_in_every_spelling_that_mpcium_takes(algorithm: Algorithm, spelling: str) -> None:
    encoded = ENCODED[algorithm]
    key = spki.parse_public_key(SPELLINGS[spelling](encoded), algorithm)
    assert key == PublicKey(algorithm=algorithm, encoded=encoded)
    assert key.hex == encoded.hex()


def test_p256_is_the_default() -> None:
    assert spki.parse_public_key(DER.hex()).algorithm == "p256"


def test_a_loaded_key_has_the_same_numbers() -> None:
    assert spki.p256_from_spki(DER).public_numbers() == P256.public_key().public_numbers()
    assert spki.ed25519_from_raw(RAW).public_bytes_raw() == RAW
    assert spki.p256_public_key(P256.public_key()) == PublicKey(algorithm="p256", encoded=DER)


@given(st.binary(min_size=32, max_size=32))
def test_every_ed25519_key_that_openssl_makes_passes(seed: bytes) -> None:
    raw = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    assert spki.ed25519_from_raw(raw).public_bytes_raw() == raw


# --- bad keys


def der(tag: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    size = len(body)
    length = bytes([size]) if size < 128 else bytes([0x81, size]) if size < 256 else b"\x82" + size.to_bytes(2, "big")
    return bytes([tag]) + length + body


def der_integer(value: int) -> bytes:
    return der(2, value.to_bytes(value.bit_length() // 8 + 1, "big"))


EC_KEY = bytes.fromhex("06072a8648ce3d0201")
NAMED = EC_KEY + bytes.fromhex("06082a8648ce3d030107")


def spki_of(point: bytes, algorithm: bytes = NAMED) -> bytes:
    return der(0x30, der(0x30, algorithm), der(3, b"\x00", point))


def explicit_p256() -> bytes:
    """P-256 again, its parameters spelled out (SEC 1, C.2): whoever can choose them can choose the base point."""
    p = 2**256 - 2**224 + 2**192 + 2**96 - 1
    n = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    b = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
    base = ec.derive_private_key(1, ec.SECP256R1()).public_key()
    curve = der(0x30, der(4, (p - 3).to_bytes(32, "big")), der(4, b.to_bytes(32, "big")))
    field = der(0x30, bytes.fromhex("06072a8648ce3d0101"), der_integer(p))
    generator = der(4, base.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint))
    return EC_KEY + der(0x30, der_integer(1), field, curve, generator, der_integer(n), der_integer(1))


def public_der(
    key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey | x25519.X25519PublicKey | ed448.Ed448PublicKey,
) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def private_der(
    key: ec.EllipticCurvePrivateKey | Ed25519PrivateKey, form: PrivateFormat, password: bytes = b""
) -> bytes:
    return key.private_bytes(Encoding.DER, form, BestAvailableEncryption(password) if password else NoEncryption())


def certificate() -> bytes:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    start, end = datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)
    builder = x509.CertificateBuilder(name, name, P256.public_key(), 1, start, end)
    return builder.sign(P256, hashes.SHA256()).public_bytes(Encoding.DER)


COMPRESSED = P256.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
HYBRID = bytes([6 + (POINT[-1] & 1)]) + POINT
ED_SPKI = ED25519.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
OFF_CURVE = DER[:-1] + bytes([DER[-1] ^ 1])
PKCS8, SEC1 = PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL

BAD_P256: dict[str, tuple[bytes, str]] = {
    "compressed": (spki_of(COMPRESSED), "P-256 SubjectPublicKeyInfo with a compressed point (59 bytes)"),
    "hybrid": (spki_of(HYBRID), "a P-256 key in another encoding (91 bytes)"),
    "explicit parameters": (spki_of(b"\x04" + POINT, explicit_p256()), "a P-256 key in another encoding (311 bytes)"),
    "raw point": (b"\x04" + POINT, "a raw point (65 bytes, uncompressed)"),
    "raw point without its form": (POINT, "a raw point (64 bytes, without its form)"),
    "raw compressed point": (COMPRESSED, "a raw point (33 bytes, compressed)"),
    "point at infinity": (spki_of(b"\x00"), "27 bytes of something else"),
    "a trailing byte": (DER + b"\x00", "one of 92 bytes"),
    "two keys": (DER + DER, "one of 182 bytes"),
    "cut short": (DER[:-1], "one of 90 bytes"),
    "nothing but the prefix": (DER[:27], "one of 27 bytes"),
    "P-384": (public_der(ec.generate_private_key(ec.SECP384R1()).public_key()),
              "a public key on secp384r1 (120 bytes)"),
    "P-521": (public_der(ec.generate_private_key(ec.SECP521R1()).public_key()),
              "a public key on secp521r1 (158 bytes)"),
    "secp256k1": (public_der(ec.generate_private_key(ec.SECP256K1()).public_key()),
                  "a public key on secp256k1 (88 bytes)"),
    "RSA": (public_der(rsa.generate_private_key(65537, 1024).public_key()),  # noqa: S505 - small is fast, form is all
            "a public key of type RSA (162 bytes)"),
    "Ed25519 as SPKI": (ED_SPKI, "a public key of type Ed25519 (44 bytes)"),
    "X25519": (public_der(x25519.X25519PrivateKey.generate().public_key()), "a public key of type X25519 (44 bytes)"),
    "Ed448": (public_der(ed448.Ed448PrivateKey.generate().public_key()), "a public key of type Ed448 (69 bytes)"),
    "Ed25519": (RAW, "32 bytes (an Ed25519 public key? a private key?)"),
    "a private number": (P256.private_numbers().private_value.to_bytes(32, "big"),
                         "32 bytes (an Ed25519 public key? a private key?)"),
    "private key, SEC 1": (private_der(P256, SEC1), PRIVATE),
    "private key, PKCS #8": (private_der(P256, PKCS8), PRIVATE),
    "private key, encrypted": (private_der(P256, PKCS8, b"password"), PRIVATE),
    "private Ed25519 key": (private_der(ED25519, PKCS8), PRIVATE),
    "Go's private Ed25519 key": (ED25519.private_bytes_raw() + RAW, PRIVATE),
    "PEM in base64": (P256.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
                      "PEM (public key) in base64 or hex"),
    "private PEM in base64": (P256.private_bytes(Encoding.PEM, PKCS8, NoEncryption()),
                              f"PEM ({PRIVATE}) in base64 or hex"),
    "certificate": (certificate(), "an X.509 certificate"),
    "hex of hex": (DER.hex().encode(), "182 bytes of something else"),
    "zeros": (bytes(91), "91 bytes of something else"),
    "a few bytes": (b"abc", "3 bytes of something else"),
}  # fmt: skip


@pytest.mark.parametrize("spelling", ["hex", "base64"])
@pytest.mark.parametrize("name", BAD_P256)
def test_what_is_no_p256_key_of_that_form_is_named(name: str, spelling: str) -> None:
    encoded, what = BAD_P256[name]
    assert refusal(SPELLINGS[spelling](encoded), "p256") == WANTED_P256 + what


@pytest.mark.parametrize(
    "encoded",
    [OFF_CURVE, DER[:27] + bytes(64), DER[:27] + b"\xff" * 64, DER[:59] + POINT[:32]],
    ids=["y changed", "zeros", "not reduced", "x twice"],
)
def test_a_point_off_the_curve_is_refused(encoded: bytes) -> None:
    assert refusal(encoded.hex(), "p256") == "expected a point of P-256, got one that is not on the curve"


def test_the_library_alone_would_take_what_is_refused() -> None:
    """If it ever stops, these rows prove nothing any more."""
    for name in ("compressed", "hybrid", "explicit parameters", "P-384", "secp256k1", "RSA"):
        load_der_public_key(BAD_P256[name][0])


SMALL_ORDER = "expected an Ed25519 public key, got 32 bytes that are not in the prime-order subgroup of Ed25519"
NOT_CANONICAL = "expected an Ed25519 public key, got 32 bytes that are not a canonical encoding of an Ed25519 point"
NO_POINT = "expected an Ed25519 public key, got 32 bytes that are not a point of Ed25519"


def little(value: int) -> bytes:
    return value.to_bytes(32, "little")


ORDER_8 = bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05")


BAD_ED25519: dict[str, tuple[bytes, str]] = {
    "the identity": (little(1), SMALL_ORDER),
    "order two": (little(ED25519_P - 1), SMALL_ORDER),
    "order four": (bytes(32), SMALL_ORDER),
    "order four, other sign": (little(1 << 255), SMALL_ORDER),
    "order eight": (ORDER_8, SMALL_ORDER),
    "a key with a small part": (encode_ed25519(add_ed25519(decode_ed25519(RAW), decode_ed25519(ORDER_8))), SMALL_ORDER),
    "identity, not reduced": (little(ED25519_P + 1), NOT_CANONICAL),
    "zero, not reduced": (little(ED25519_P), NOT_CANONICAL),
    "all ones": (b"\xff" * 32, NOT_CANONICAL),
    "identity with a sign": (little(1 | 1 << 255), NOT_CANONICAL),
    "beside the curve": (little(2), NO_POINT),
    "a byte too many": (b"\x00" + RAW, WANTED_ED25519 + "33 bytes of something else"),
    "cut short": (RAW[:-1], WANTED_ED25519 + "31 bytes of something else"),
    "as SPKI": (ED_SPKI, WANTED_ED25519 + "a public key of type Ed25519 (44 bytes)"),
    "P-256": (DER, WANTED_ED25519 + "a P-256 public key (91 bytes)"),
    "a raw point of P-256": (COMPRESSED, WANTED_ED25519 + "a raw point (33 bytes, compressed)"),
    "private key, PKCS #8": (private_der(ED25519, PKCS8), WANTED_ED25519 + PRIVATE),
    "Go's private key": (ED25519.private_bytes_raw() + RAW, WANTED_ED25519 + PRIVATE),
}


@pytest.mark.parametrize("name", BAD_ED25519)
def test_what_is_no_ed25519_key_is_named(name: str) -> None:
    encoded, reason = BAD_ED25519[name]
    assert refusal(encoded.hex(), "ed25519") == reason


# --- bad text

NEITHER = "expected hex or base64, got {} characters of neither"


BAD_TEXT: dict[str, tuple[str, str]] = {
    "nothing": ("", "expected hex or base64, got nothing"),
    "white space": (" \n", "expected hex or base64, got nothing"),
    "0x alone": ("0x", NEITHER.format(2)),
    "half a byte": ("0x0", NEITHER.format(3)),
    "a digit short": (DER.hex()[:-1], NEITHER.format(181)),
    "with colons": (DER.hex(":"), NEITHER.format(272)),
    "with a space": (f"{DER.hex()[:20]} {DER.hex()[20:]}", NEITHER.format(183)),
    "in quotes": (f'"{DER.hex()}"', NEITHER.format(184)),
    "0X": (f"0X{DER.hex()}!", NEITHER.format(185)),
    "base64 without padding": (base64.b64encode(DER).decode().rstrip("="), NEITHER.format(122)),
    "base64 for URLs": (base64.urlsafe_b64encode(b"\xfb" * 91).decode(), NEITHER.format(124)),
    "for ssh": ("ssh-ed25519 AAAAC3Nz", NEITHER.format(20)),
    "not ASCII": ("é" * 64, NEITHER.format(64)),
    "digits of another script": ("٣٠" * 91, NEITHER.format(182)),
    "lone surrogate": ("\ud800", NEITHER.format(1)),
}


@pytest.mark.parametrize("algorithm", ["p256", "ed25519"])
@pytest.mark.parametrize("name", BAD_TEXT)
def test_text_that_is_neither_hex_nor_base64_is_refused(name: str, algorithm: Algorithm) -> None:
    text, reason = BAD_TEXT[name]
    assert refusal(text, algorithm) == reason


PEMS: dict[str, tuple[bytes, str]] = {
    "public key": (P256.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), "public key"),
    "PKCS #8": (P256.private_bytes(Encoding.PEM, PKCS8, NoEncryption()), PRIVATE),
    "SEC 1": (P256.private_bytes(Encoding.PEM, SEC1, NoEncryption()), PRIVATE),
    "encrypted": (P256.private_bytes(Encoding.PEM, PKCS8, BestAvailableEncryption(b"password")), PRIVATE),
    "OpenSSH": (ED25519.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()), PRIVATE),
}


@pytest.mark.parametrize("algorithm", ["p256", "ed25519"])
@pytest.mark.parametrize("name", PEMS)
def test_pem_is_refused_by_its_label(name: str, algorithm: Algorithm) -> None:
    pem, what = PEMS[name]
    assert refusal(pem.decode(), algorithm) == f"expected hex or base64, got PEM ({what})"


# --- whatever comes


@given(
    st.binary(max_size=120)
    | st.builds(lambda at, byte: DER[:at] + byte + DER[at + 1 :], st.integers(0, 90), st.binary(max_size=2))
)
def test_no_bytes_bring_any_other_error_and_none_are_read_as_another_key(data: bytes) -> None:
    for algorithm in ("p256", "ed25519"):
        with contextlib.suppress(HaltError):
            assert spki.parse_public_key(data.hex(), algorithm).encoded == data


@pytest.mark.parametrize("name", [name for name in BAD_P256 if "rivate" in name])
def test_a_refusal_never_shows_what_was_pasted(name: str) -> None:
    encoded = BAD_P256[name][0]
    with pytest.raises(HaltError) as caught:
        spki.parse_public_key(encoded.hex())
    said = f"{caught.value}{caught.value.reason}{caught.value.hint}"
    assert all(encoded[at : at + 4].hex() not in said for at in range(0, len(encoded) - 4))


# --- fingerprints and the pin


@pytest.mark.parametrize("algorithm", ["p256", "ed25519"])
def test_a_fingerprint_is_that_of_the_encoded_key_as_ssh_writes_it(algorithm: Algorithm) -> None:
    key = PublicKey(algorithm=algorithm, encoded=ENCODED[algorithm])
    shown = spki.fingerprint(key)
    assert shown.startswith("SHA256:")
    assert "=" not in shown
    assert base64.b64decode(shown.removeprefix("SHA256:") + "=") == hashlib.sha256(ENCODED[algorithm]).digest()


def test_the_pinned_key_passes_and_any_other_is_named_with_what_to_do() -> None:
    pin = PublicKey(algorithm="p256", encoded=DER)
    other = spki.p256_public_key(ec.generate_private_key(ec.SECP256R1()).public_key())
    spki.check_pin(pin, pin)
    spki.check_pin(other, None)
    with pytest.raises(HaltError) as caught:
        spki.check_pin(other, pin)
    error = caught.value
    assert (error.code, error.field) == (Code.KEY_MISMATCH, "mpcium.event_initiator_pubkey")
    assert error.reason == f"the signer holds {spki.fingerprint(other)}, but the pin is {spki.fingerprint(pin)}"
    assert error.hint
    assert "restart the nodes" in error.hint


def test_a_key_of_another_algorithm_is_not_the_pinned_one() -> None:
    with pytest.raises(HaltError) as caught:
        spki.check_pin(PublicKey(algorithm="ed25519", encoded=RAW), PublicKey(algorithm="p256", encoded=RAW))
    assert caught.value.code is Code.KEY_MISMATCH


def test_a_loaded_key_on_another_curve_is_not_made_ours() -> None:
    with pytest.raises(HaltError) as caught:
        spki.p256_public_key(ec.generate_private_key(ec.SECP384R1()).public_key())
    assert (caught.value.code, caught.value.reason) == (
        Code.PUBLIC_KEY_INVALID,
        WANTED_P256 + "a public key on secp384r1 (120 bytes)",
    )
