"""mpcium's error codes: guessed from the text of an error, ids included, in this order.

Source: mpcium's pkg/event/types.go. The guessing is what clients meet, wrong guesses too: the duplicate of a wallet
`output-1` reads as a storage problem, because of its "put".
"""

from __future__ import annotations

_GUESSES: tuple[tuple[tuple[str, ...], str], ...] = (
    (("missing required authorizer signature",), "ERROR_MISSING_AUTHORIZER_SIGNATURE"),
    (("authorizer", "verification failed"), "ERROR_INVALID_AUTHORIZER_SIGNATURE"),
    (("validation",), "ERROR_MSG_VALIDATION"),
    (("timeout", "timed out"), "ERROR_NETWORK_TIMEOUT"),
    (("connect",), "ERROR_NETWORK_CONNECTION"),
    (("send",), "ERROR_PEER_UNAVAILABLE"),
    (("not enough", "insufficient"), "ERROR_INSUFFICIENT_PARTICIPANTS"),
    (("incompatible",), "ERROR_INCOMPATIBLE_PEER_IDS"),
    (("not found", "no such key"), "ERROR_KEY_NOT_FOUND"),
    (("exists",), "ERROR_KEY_ALREADY_EXISTS"),
    (("marshal",), "ERROR_MARSHAL_FAILURE"),
    (("storage", "kvstore"), "ERROR_STORAGE_READ"),
    (("save", "put"), "ERROR_STORAGE_WRITE"),
    (("session",), "ERROR_SESSION_CREATION"),
    (("verify", "verification"), "ERROR_MESSAGE_VERIFICATION"),
    (("deliver",), "ERROR_MESSAGE_DELIVERY"),
    (("context", "cancelled"), "ERROR_CONTEXT_CANCELLED"),
    (("invalid signature from initiator",), "ERROR_INVALID_INITIATOR_SIGNATURE"),
    (("duplicate",), "ERROR_SESSION_DUPLICATE"),
)
UNKNOWN = "ERROR_UNKNOWN"
CLUSTER_NOT_READY = "ERROR_CLUSTER_NOT_READY"
NOT_MAJORITY = "ERROR_NOT_MAJORITY"
UNMARSHAL_FAILURE = "ERROR_UNMARSHAL_FAILURE"
MAX_DELIVERY_ATTEMPTS = "ERROR_MAX_DELIVERY_ATTEMPTS"


def guess(error: str) -> str:
    """The code that a node gives to an error with this text."""
    text = error.lower()
    for patterns, code in _GUESSES:
        if any(pattern in text for pattern in patterns):
            return code
    return UNKNOWN
