"""A certificate authority of this deployment alone, the server's certificate, and one for each user.

A client's certificate says its user's name as `CN`, and that it is a client's: a stolen one serves as no server.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_EARLIER = datetime.timedelta(minutes=5)  # clocks differ
_CA_DAYS = 3650


def make_key() -> bytes:
    """A new P-256 key as PEM."""
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )  # fmt: skip


def authority(key_pem: bytes, now: datetime.datetime) -> bytes:
    """The certificate of an authority that signs nothing but these certificates."""
    key = _load(key_pem)
    name = _name("initiator NATS CA")
    usage = x509.KeyUsage(
        digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    made = (
        _builder(name, name, key, now, _CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(Encoding.PEM)


def for_server(
    ca_pem: bytes, ca_key: bytes, key_pem: bytes, hosts: Sequence[str], now: datetime.datetime, days: int
) -> bytes:
    """A server's certificate for these host names and addresses."""
    names = x509.SubjectAlternativeName([_host(host) for host in hosts])
    return _leaf(ca_pem, ca_key, key_pem, "nats-server", [ExtendedKeyUsageOID.SERVER_AUTH], now, days, names)


def is_for(pem: bytes, hosts: Sequence[str]) -> bool:
    """Whether a server's certificate has these names, and no other.

    Raises:
        ValueError: it is no certificate of a server.
    """
    try:
        names = x509.load_pem_x509_certificate(pem).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        raise ValueError("no names") from None
    return set(names.value) == {_host(host) for host in hosts}


def for_user(ca_pem: bytes, ca_key: bytes, key_pem: bytes, user: str, now: datetime.datetime, days: int) -> bytes:
    """A client's certificate: nats-server's `verify_and_map` takes its subject for the user's name."""
    return _leaf(ca_pem, ca_key, key_pem, user, [ExtendedKeyUsageOID.CLIENT_AUTH], now, days, None)


def subject(user: str) -> str:
    """A user's name as the server's configuration has it."""
    return f"CN={user}"


def _leaf(
    ca_pem: bytes, ca_key: bytes, key_pem: bytes, name: str, purposes: Sequence[x509.ObjectIdentifier],
    now: datetime.datetime, days: int, names: x509.SubjectAlternativeName | None,
) -> bytes:  # fmt: skip
    key, signer, issuer = _load(key_pem), _load(ca_key), x509.load_pem_x509_certificate(ca_pem)
    builder = (
        _builder(_name(name), issuer.subject, key, now, days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage(list(purposes)), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if names is not None:
        builder = builder.add_extension(names, critical=False)
    return builder.sign(signer, hashes.SHA256()).public_bytes(Encoding.PEM)


def _builder(
    name: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime.datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _load(pem: bytes) -> ec.EllipticCurvePrivateKey:
    key = load_pem_private_key(pem, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError("expected a P-256 key")
    return key
