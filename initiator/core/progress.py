"""How far an exporter of the audit log has come, as it says so to the daemons."""

from __future__ import annotations

import json


def encode(sequence: int) -> bytes:
    return json.dumps({"sequence": sequence}).encode()


def decode(data: bytes) -> int:
    """The last sequence of the record that is in the log; 0 where it is nothing that an exporter says."""
    try:
        sequence = json.loads(data)["sequence"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return 0
    return sequence if type(sequence) is int and sequence > 0 else 0
