"""When certificates and JWTs end, read from the files of the configured logins."""

from __future__ import annotations

import datetime
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from initiator.config.schema import Settings
from initiator.expiry import Expiry, certificate_ends, login_ends
from initiator.metrics import Metrics
from initiator.natsconfig import nkey
from initiator.natsconfig.nkey import Pair
from initiator.natsconfig.token import mint

NOW = int(time.time())


def certificate(ends: int) -> bytes:
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    moment = datetime.datetime.fromtimestamp(ends, datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(moment - datetime.timedelta(days=1))
        .not_valid_after(moment)
        .sign(key, hashes.SHA256())
    )
    return built.public_bytes(serialization.Encoding.PEM)


def creds(expires: int | None) -> str:
    account, user = (Pair(nkey.make(kind), kind) for kind in (nkey.ACCOUNT, nkey.USER))
    token = mint(account, user.public, "initiator", {}, NOW, expires)
    return f"-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n(the seed is not looked at)\n"


def told(metrics: Metrics, credential: str) -> float | None:
    labels = {"credential": credential}
    return metrics.registry.get_sample_value("initiator_credentials_expiry_timestamp_seconds", labels)


def test_the_files_of_both_logins_are_told_and_told_anew_when_they_are_renewed(tmp_path: Path) -> None:
    certificate_file, creds_file = tmp_path / "client.pem", tmp_path / "nodes.creds"
    certificate_file.write_bytes(certificate(NOW + 100))
    creds_file.write_text(creds(NOW + 200))
    login = {"tls": {"cert_file": str(certificate_file), "key_file": "unread"}}
    settings = Settings.model_validate({"nats": login, "mpcium": {"nats": {"creds_file": str(creds_file)}}})
    metrics = Metrics()
    expiry = Expiry(settings, metrics)
    expiry.look()
    assert (told(metrics, "nats certificate"), told(metrics, "nodes jwt")) == (NOW + 100, NOW + 200)
    certificate_file.write_bytes(certificate(NOW + 300))
    creds_file.write_text("half written")
    expiry.look()
    assert (told(metrics, "nats certificate"), told(metrics, "nodes jwt")) == (NOW + 300, NOW + 200)
    assert told(metrics, "nats jwt") is None


def test_what_has_no_end_tells_none() -> None:
    assert login_ends(creds(None)) is None


@pytest.mark.parametrize("text", ["", "-----BEGIN NATS USER JWT-----\na.b\n------END", "half written"])
def test_what_is_no_login_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no JWT"):
        login_ends(text)


def test_what_is_no_certificate_is_refused() -> None:
    with pytest.raises(ValueError, match="PEM"):
        certificate_ends(b"rubbish")
