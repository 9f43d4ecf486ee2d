"""Results as mpcium writes them: fields, subjects and deduplication ids, scoped or as v0.3.5 has them.

Source: mpcium's pkg/event, pkg/eventconsumer and v0.3.5's of the same.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from initiator.dev.nodes.config import Routing

Body: TypeAlias = dict[str, Any]
Headers: TypeAlias = dict[str, str]

_KEYGEN: Body = {
    "wallet_id": "",
    "ecdsa_pub_key": None,
    "eddsa_pub_key": None,
    "result_type": "error",
    "error_reason": "",
    "error_code": "",
}
_SIGN: Body = {
    "result_type": "error",
    "error_code": "",
    "error_reason": "",
    "is_timeout": False,
    "network_internal_code": "",
    "wallet_id": "",
    "tx_id": "",
    "r": None,
    "s": None,
    "signature_recovery": None,
    "signature": None,
}
_RESHARE: Body = {
    "wallet_id": "",
    "new_threshold": 0,
    "key_type": "",
    "pub_key": None,
    "result_type": "error",
    "error_reason": "",
    "error_code": "",
}
_EMPTY = {"keygen": _KEYGEN, "sign": _SIGN, "reshare": _RESHARE}
_PREFIX = {
    "keygen": "mpc.mpc_keygen_result",
    "sign": "mpc.mpc_signing_result",
    "reshare": "mpc.mpc_reshare_result",
}


def body(operation: str, **fields: Any) -> Body:
    """All fields of a result in Go's order; an error until `result_type` says otherwise."""
    return _EMPTY[operation] | fields


def client_of(headers: Headers, routing: Routing) -> str:
    """The ClientID that scopes a result; v0.3.5 knows none."""
    return headers.get("ClientID", "") if routing == "scoped" else ""


def subject(operation: str, client: str, operation_id: str) -> str:
    """Where a result goes: sign results all share one token."""
    tail = "complete" if operation == "sign" else operation_id
    return ".".join(part for part in (_PREFIX[operation], client, tail) if part)


def message_id(operation: str, client: str, operation_id: str, session: str) -> str:
    """The deduplication id: of all results with the same one within two minutes, the first is kept."""
    unique = f"{operation_id}:{session}" if session else operation_id
    return f"{_PREFIX[operation]}.{client + ':' if client else ''}{unique}"
