"""When what this daemon logs in with ends: client certificates and JWTs, as the files say now.

Read again now and then, as whoever renews them writes the files anew. KMS's credentials say it themselves.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

from cryptography import x509

from initiator.config.schema import NatsSettings, Settings
from initiator.log import get_logger
from initiator.metrics import Metrics
from initiator.natsconfig.token import body_of

log = get_logger()
LOOK_S = 60.0
_JWT = re.compile(r"-+BEGIN NATS USER JWT-+\s+(\S+)\s+-+END")


def certificate_ends(pem: bytes) -> float:
    """Unix seconds: when the first certificate of a file ends. Raises ValueError."""
    return x509.load_pem_x509_certificate(pem).not_valid_after_utc.timestamp()


def login_ends(creds: str) -> float | None:
    """Unix seconds: when a .creds file's user ends; None: never. Raises ValueError."""
    found = _JWT.search(creds)
    ends = body_of(found[1] if found else "").get("exp")
    return float(ends) if isinstance(ends, int) and ends > 0 else None


class Expiry:
    """Tells the metrics of every file of the configured logins that has an end."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        nodes = settings.mpcium.nats
        self._logins = {"nats": settings.nats} | ({"nodes": nodes} if nodes else {})
        self._metrics = metrics

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.to_thread(self.look)
            await asyncio.sleep(LOOK_S)

    def look(self) -> None:
        """Read all files once; one that cannot be read now keeps its number."""
        for name, login in self._logins.items():
            for kind, path in _files(login):
                try:
                    content = Path(path).read_bytes()
                    ends = certificate_ends(content) if kind == "certificate" else login_ends(content.decode())
                except (OSError, ValueError, OverflowError, RecursionError) as error:
                    log.debug("expiry.unreadable", login=name, kind=kind, error_type=type(error).__name__)
                    continue
                if ends is not None:
                    self._metrics.credentials_expiry.labels(f"{name} {kind}").set(ends)


def _files(login: NatsSettings) -> Iterator[tuple[str, str]]:
    if login.tls and login.tls.cert_file:
        yield "certificate", login.tls.cert_file
    if login.creds_file:
        yield "jwt", login.creds_file
