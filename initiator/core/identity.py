"""The identity of a request: what makes two requests the same operation."""

from __future__ import annotations

import hashlib

from initiator.core.message import signed_bytes
from initiator.core.model import Request, SignRequest


def request_digest(client: str, request: Request) -> str:
    """SHA-256 (hex) over client, operation and every mpcium field, derivation path included.

    Injective: the parts are length-prefixed, and mpcium's signed bytes hold every other field exactly once. Absent
    and null paths are one, encoding, expiry and labels do not count.
    """
    path = getattr(request, "derivation_path", None) if isinstance(request, SignRequest) else None
    parts = (
        b"initiator-request-v1",
        client.encode(),
        request.operation.value.encode(),
        signed_bytes(request),
        # path swap: mpcium's own signature does not cover the path, so our identity must
        b"" if path is None else ",".join(map(str, path)).encode() + b";",
    )
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()
