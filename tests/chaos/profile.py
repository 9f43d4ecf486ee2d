"""The numbers of a run: caps, timeouts and load, printed before it begins."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

CLIENTS = ("alice", "bob", "carol")
QUEUES = tuple(f"INITIATOR_REQUESTS_{client}" for client in CLIENTS)
SETTLE_S = 60.0
"""After the last fault everything has this long to come to its end; what has not is stuck."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What is asked of the system.

    Attributes:
        rate: requests a second over all clients, repetitions included.
        wallets: made before the first fault; what signatures are asked for.
    """

    duration_s: float
    seed: int
    replicas: int = 2
    nats: int = 1
    rate: float = 20.0
    wallets: int = 6
    node_delay_s: float = 0.02
    expiry_s: float = 60.0
    result_timeout_s: float = 15.0

    @property
    def settings(self) -> dict[str, Any]:
        """The daemon's settings that depart from their defaults; shortened, so that a fault's end can be seen."""
        lane = {"result_timeout_s": self.result_timeout_s, "default_expiry_s": self.expiry_s}
        return {
            "worker": {"ack_wait_s": 5.0, "heartbeat_s": 1.5, "drain_timeout_s": 4.0},
            "mpcium": {
                "keygen": {"in_flight": 10, **lane},
                "sign": {"in_flight": 40, **lane},
                "reshare": {"in_flight": 1, **lane},
            },
            "kms": {"max_signs_per_s": 100, "burst_signs": 10, "limit_over": "all"},
            "streams": {"replicas": 3 if self.nats == 3 else 1},
        }

    def shown(self) -> dict[str, Any]:
        return asdict(self) | {"settle_s": SETTLE_S, "settings": self.settings}
