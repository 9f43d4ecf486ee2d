"""What a simulated cluster can be told; defaults are mpcium's own numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from ssl import SSLContext
from typing import Literal

Algorithm = Literal["p256", "ed25519"]
Routing = Literal["scoped", "unscoped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """mpcium's waits, in seconds; a demonstration shortens `forward_wait_s` so that a refusal shows soon.

    Attributes:
        forward_wait_s: how long a consumer waits for the nodes' reply before it naks. A sign request that no node
            can verify is answered `MAX_DELIVERY_ATTEMPTS` after four of these.
        progress_s: how often it extends the ack deadline meanwhile.
        session_timeout_s: how long a signing session blocks its repetition.
        session_sweep_s: how often stale sessions are forgotten.
    """

    forward_wait_s: float = 45.0
    progress_s: float = 0.5
    session_timeout_s: float = 1800.0
    session_sweep_s: float = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorizerKey:
    """An authorizer's public key as the nodes' config holds it: hex."""

    public_key: str
    algorithm: Algorithm


@dataclass(frozen=True, slots=True, kw_only=True)
class NodesConfig:
    """One cluster.

    Attributes:
        pubkey: `event_initiator_pubkey`: hex (0x allowed) or base64 of the SPKI DER for p256, hex of the raw 32 bytes
            for ed25519.
        routing: `scoped` (after v0.3.5: results go to the ClientID that asked) or `unscoped` (v0.3.5).
        chain_code: 64 hex digits, the same for all nodes.
        threshold: `mpc_threshold`; signing needs one node more.
        authorizers: `authorization.authorizer_public_keys` by id; empty turns authorization off.
        required_authorizers: the ids that must have signed.
        delay_s: how long an answer takes, as an MPC protocol run would.
        not_ready_for_s: how long after the start requests are answered with "not ready".
        store: a JSON file that keeps the wallets over a restart; None keeps them in memory.
    """

    servers: tuple[str, ...] = ("nats://127.0.0.1:4222",)
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: SSLContext | None = field(default=None, repr=False)
    pubkey: str
    algorithm: Algorithm = "p256"
    nodes: int = 3
    routing: Routing = "scoped"
    chain_code: str = "00" * 32
    threshold: int = 1
    authorizers: Mapping[str, AuthorizerKey] = field(default_factory=dict)
    required_authorizers: tuple[str, ...] = ()
    delay_s: float = 0.0
    not_ready_for_s: float = 0.0
    store: Path | None = None
    max_concurrent_keygen: int = 2
    max_concurrent_signing: int = 20
    timing: Timing = field(default_factory=Timing)

    def __post_init__(self) -> None:
        if not 1 <= self.threshold < self.nodes:
            raise ValueError(f"threshold: expected 1 to {self.nodes - 1}, got {self.threshold}")
        if len(bytes.fromhex(self.chain_code)) != 32:
            raise ValueError("chain_code: expected 64 hex digits")

    @property
    def node_ids(self) -> tuple[str, ...]:
        """The ids that a reshare's `node_ids` may name."""
        return tuple(f"node{number}" for number in range(self.nodes))
