"""How far an exporter of the audit log has come, as it says so to the daemons."""

from __future__ import annotations

import json

_LAST = 2**63 - 1
"""No stream comes near it, and none can be asked for what comes much later."""


def encode(sequence: int) -> bytes:
    return json.dumps({"sequence": sequence}).encode()


def decode(data: bytes) -> int:
    """The last sequence of the record that is in the log; 0 where it is nothing that an exporter says."""
    try:
        sequence = json.loads(data)["sequence"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return 0
    return sequence if type(sequence) is int and 0 < sequence <= _LAST else 0
