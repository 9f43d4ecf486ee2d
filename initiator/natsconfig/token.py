"""NATS' JWTs: minted, and read again to see whether they still say what they should."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

from initiator.natsconfig.nkey import Pair

_HEADER = {"typ": "JWT", "alg": "ed25519-nkey"}
_OF_ITS_MOMENT = ("iat", "jti", "exp")


def mint(issuer: Pair, subject: str, name: str, claims: dict[str, Any], now: int, expires: int | None = None) -> str:
    """A JWT about `subject`, signed by `issuer`.

    Args:
        now, expires: seconds since 1970.
    """
    body: dict[str, Any] = {"iat": now, "iss": issuer.public, "sub": subject, "name": name, "nats": claims}
    if expires is not None:
        body["exp"] = expires
    body["jti"] = base64.b32encode(hashlib.sha256(_compact(body)).digest()).decode().rstrip("=")
    signed = f"{_part(_HEADER)}.{_part(body)}"
    return f"{signed}.{_encode(issuer.sign(signed.encode()))}"


def body_of(token: str) -> dict[str, Any]:
    """What a JWT says; its signature is not looked at: it is our own file.

    Raises:
        ValueError: no JWT.
    """
    part = token.strip().split(".")
    if len(part) != 3:
        raise ValueError("no JWT")
    body = json.loads(base64.urlsafe_b64decode(part[1] + "=" * (-len(part[1]) % 4)))
    if not isinstance(body, dict):
        raise ValueError("no JWT")  # noqa: TRY004 - what a file says
    return body


def says(token: str, issuer: Pair, subject: str, claims: dict[str, Any]) -> bool:
    """Whether a JWT says this, whenever it was made."""
    try:
        body = body_of(token)
        same = (body["iss"], body["sub"]) == (issuer.public, subject)
        return same and _lasting(body["nats"]) == _lasting(claims)
    except (ValueError, KeyError, TypeError, AttributeError):  # our own file, which somebody may have changed
        return False


def _lasting(claims: dict[str, Any]) -> Any:
    """Claims without the moments of the tokens inside them."""
    imports = [
        one | {"token": {name: value for name, value in body_of(one["token"]).items() if name not in _OF_ITS_MOMENT}}
        for one in claims.get("imports", [])
    ]
    return json.loads(json.dumps(claims | {"imports": imports}))


def _compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _part(value: Any) -> str:
    return _encode(_compact(value))


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
