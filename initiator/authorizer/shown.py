"""What a person is shown before it signs: all that there is, in words; text of others draws nothing on a terminal."""

from __future__ import annotations

import hashlib
import textwrap
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from initiator.authorizer.desk import Case
from initiator.core import events
from initiator.core.model import KeygenRequest, ReshareRequest, SignRequest
from initiator.core.text import plain

WIDTH = 72


def lines(case: Case, now: float) -> Iterator[str]:
    """One operation, line by line."""
    asking = case.asking
    yield f"{asking.operation} {asking.operation_id}"
    signed = f"its own signature verifies ({case.signed_by})"
    word = signed if case.signed_by else "without a signature that you can verify"
    yield f"  asked by     {plain(asking.client)}, {word}"
    yield from _what(case)
    for key, value in sorted(case.request.labels.items()):
        yield f"  label        {plain(key)}: {plain(value)}"
    yield f"  digest       {case.digest}"
    left = asking.expires_at - now
    yield f"  deadline     {datetime.fromtimestamp(asking.expires_at, UTC):%Y-%m-%d %H:%M:%SZ}, {left:.0f} s from now"
    rule, version = (plain(asking.policy.get(name, "?")) for name in ("rule", "version"))
    yield f"  permitted    by rule {rule} of the daemon's policy {version}"
    others = [plain(name) for name in asking.missing if name != asking.authorizer_id]
    yield f"  also missing {', '.join(others) or 'nobody: yours is the last signature'}"


def _what(case: Case) -> Iterator[str]:
    request = case.request
    yield f"  wallet       {request.wallet_id}"
    match request:
        case KeygenRequest():
            yield "  makes        a new wallet"
        case SignRequest():
            yield f"  key          {request.key_type}, network {plain(request.network_internal_code) or '(none)'}"
            path = "/".join(map(str, request.derivation_path)) if request.derivation_path else "(the wallet's own key)"
            yield f"  path         {path}: no signature covers it, not yours either"
            yield f"  signs        {len(request.tx)} bytes, SHA-256 {hashlib.sha256(request.tx).hexdigest()}"
            for part in textwrap.wrap(request.tx.hex(), WIDTH):
                yield f"               {part}"
        case ReshareRequest():
            yield f"  key          {request.key_type}"
            yield f"  moves it to  {', '.join(request.node_ids)}, threshold {request.new_threshold}"


def described(case: Case) -> dict[str, Any]:
    """The same as one JSON object, bytes in hex."""
    asking, request = case.asking, case.request
    body: dict[str, Any] = {
        "op": asking.operation.value,
        "id": asking.operation_id,
        "client": asking.client,
        "signed_by": case.signed_by,
        "wallet_id": request.wallet_id,
        "labels": dict(request.labels),
        "digest": case.digest,
        "expires_at": events.format_time(asking.expires_at),
        "policy": dict(asking.policy),
        "missing": list(asking.missing),
    }
    match request:
        case SignRequest():
            body |= {
                "key_type": request.key_type.value,
                "network_internal_code": request.network_internal_code,
                "derivation_path": list(request.derivation_path or ()),
                "tx": request.tx.hex(),
                "tx_sha256": hashlib.sha256(request.tx).hexdigest(),
            }
        case ReshareRequest():
            body |= {
                "key_type": request.key_type.value,
                "node_ids": list(request.node_ids),
                "new_threshold": request.new_threshold,
            }
        case KeygenRequest():
            pass
    return body
