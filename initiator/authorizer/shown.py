"""What a person is shown before it signs: all that there is, in words; text of others draws nothing on a terminal."""

from __future__ import annotations

import hashlib
import textwrap
from collections.abc import Iterator
from datetime import UTC, datetime

from initiator.authorizer.desk import Case
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
