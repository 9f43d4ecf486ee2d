"""The identity of a request: what makes two requests the same operation.

Two requests with equal digests are one operation: the second joins the first. Two with different digests and one id
conflict. So the digest must cover whatever changes what the nodes do, and nothing else.
"""

from __future__ import annotations

import hashlib

from initiator.core import codec
from initiator.core.message import signed_bytes
from initiator.core.model import ContentType, Operation, Request, SignRequest
from initiator.errors import Code, RejectError

_DOMAIN = b"initiator-request-v1"  # a change of the form below needs a new one: digests live on in the record

ID_FIELD = {Operation.KEYGEN: "wallet_id", Operation.SIGN: "tx_id", Operation.RESHARE: "session_id"}


def conflict(operation: Operation) -> RejectError:
    """The refusal of a second payload under one id; whose the first one is stays untold."""
    return RejectError(Code.CONFLICT, f"this {operation} id is taken by a different request", field=ID_FIELD[operation])


def named(operation: Operation, encoding: ContentType, data: bytes) -> str | None:
    """The id that a payload names, whatever else is wrong with it: a stranger's text, not checked; None: none."""
    try:
        name = codec.decode(encoding, data).get(ID_FIELD[operation])
    except RejectError:
        return None
    return name if isinstance(name, str) and name else None


def request_digest(client: str, request: Request) -> str:
    """SHA-256 (hex) over client, operation and every mpcium field, derivation path included.

    Injective: parts are length-prefixed, and mpcium's signed bytes hold every field but the path, each in its place.
    An absent, null or empty path is the same one (the nodes derive only where it has a level); encoding, expiry and
    labels do not count.

    Raises:
        ValueError: text with a lone surrogate.
    """
    # path swap: mpcium's own signature does not cover the path, so our identity must
    path = request.derivation_path if isinstance(request, SignRequest) else None
    parts = (
        _DOMAIN,
        client.encode(),
        request.operation.value.encode(),
        signed_bytes(request),
        f"{','.join(map(str, path))};".encode() if path else b"",
    )
    return hashlib.sha256(b"".join(len(part).to_bytes(8, "big") + part for part in parts)).hexdigest()
