"""The settings, their defaults, units and bounds. Every key here stands in `config.example.yaml`.

Durations end in `_s` (seconds), sizes in `_bytes`. Secrets are only ever paths to files or come from the
environment.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, model_validator

from initiator.config.section import Seconds, Section, Token
from initiator.config.signers import SignerSettings
from initiator.core.model import Operation


class TlsSettings(Section):
    ca_file: str | None = Field(
        None, description="CA bundle (PEM) that signs the server's certificate; default: system CAs"
    )
    cert_file: str | None = Field(None, description="client certificate (PEM) for mutual TLS")
    key_file: str | None = Field(None, description="client key (PEM) for mutual TLS")
    hostname: str | None = Field(
        None, description="name expected in the server's certificate; default: the host connected to"
    )

    @model_validator(mode="after")
    def _pair(self) -> Self:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file come together")
        return self


class NatsSettings(Section):
    """One NATS login. The daemon has one in its own account and may have a second in the nodes' account."""

    servers: tuple[str, ...] = Field(("nats://127.0.0.1:4222",), min_length=1, strict=False, description="server URLs")
    user: str | None = Field(None, description="user name")
    password: SecretStr | None = Field(None, description="password; from the environment or password_file only")
    password_file: str | None = Field(None, description="file that holds the password")
    token: SecretStr | None = Field(None, description="auth token; from the environment or token_file only")
    token_file: str | None = Field(None, description="file that holds an auth token")
    creds_file: str | None = Field(None, description="JWT credentials file (.creds)")
    nkey_seed_file: str | None = Field(None, description="NKey seed file")
    tls: TlsSettings | None = Field(None, description="TLS; default: only if the URL says tls://")
    connect_timeout_s: Seconds = Field(2.0, description="one connection attempt")
    ping_interval_s: Seconds = Field(5.0, le=10, description="how soon a dead connection is noticed (twice this)")
    request_timeout_s: Seconds = Field(
        3.0, description="wait for a JetStream answer before its outcome counts as unknown"
    )
    jetstream_domain: str | None = Field(None, description="JetStream domain, if the server has one")


class Lane(Section):
    """One operation at the nodes; the defaults are sign's."""

    in_flight: int = Field(10, ge=0, le=100_000, description="cap at the nodes over all replicas; 0: no cap")
    result_timeout_s: Seconds = Field(240.0, description="wait for the nodes' result after publishing")
    default_expiry_s: Seconds = Field(900.0, description="deadline of a request that names none")


class KeygenLane(Lane):
    in_flight: int = Field(2, ge=0, le=100_000, description="cap at the nodes over all replicas; 0: no cap")
    result_timeout_s: Seconds = Field(120.0, description="wait for the nodes' result after publishing")


class ReshareLane(Lane):
    in_flight: int = Field(1, ge=0, le=100_000, description="cap at the nodes over all replicas; 0: no cap")
    result_timeout_s: Seconds = Field(600.0, description="wait for the nodes' result after publishing")
    default_expiry_s: Seconds = Field(1800.0, description="deadline of a request that names none")


class MpciumSettings(Section):
    nats: NatsSettings | None = Field(None, description="login to the nodes' account; default: the one of `nats`")
    routing: Literal["scoped", "unscoped"] = Field(
        "scoped", description="results by ClientID (mpcium after v0.3.5), or unscoped (v0.3.5)"
    )
    client_id: Token = Field("initiator", description="our ClientID on the nodes' side; one per daemon deployment")
    event_initiator_pubkey: str | None = Field(
        None, description="the pin: the nodes' event_initiator_pubkey, hex or base64; required in production"
    )
    chain_code: str | None = Field(
        None,
        pattern=r"^[0-9a-fA-F]{64}$",
        description="the cluster's chain_code (64 hex digits): verifies results under derivation paths",
    )
    wallets_file: str | None = Field(
        None, description="keygen results of wallets made before, one JSON object a line: verifies their signatures"
    )
    tx_id_form: Literal["uuid_or_no_hyphen", "uuid", "no_hyphen"] = Field(
        "uuid_or_no_hyphen", description="form of tx_ids, so that the nodes' session keys stay unique"
    )
    keygen: KeygenLane = Field(default_factory=KeygenLane)
    sign: Lane = Field(default_factory=Lane)
    reshare: ReshareLane = Field(default_factory=ReshareLane)

    @property
    def scoped_client_id(self) -> str | None:
        """The ClientID that the nodes' results carry; None where they are unscoped."""
        return self.client_id if self.routing == "scoped" else None

    def lane(self, operation: Operation) -> Lane:
        lane: Lane = getattr(self, operation.value)
        return lane


class ClientSettings(Section):
    weight: int = Field(1, ge=1, le=1000, description="share of turns in a lane")
    operations: tuple[Annotated[Operation, Field(strict=False)], ...] = Field(
        tuple(Operation), strict=False, description="what this client may ask for"
    )


class PolicySettings(Section):
    file: str | None = Field(
        None, description="rules and limits of what clients may ask for; default: whatever clients.*.operations grant"
    )
    watch_s: Seconds = Field(2.0, description="how often the file is looked at for changes")
    audience: str = Field(
        "initiator",
        min_length=1,
        max_length=128,
        description="name of these daemons in what clients sign; one per cluster",
    )


class FreezeSettings(Section):
    held: Literal["wait", "refuse"] = Field(
        "wait", description="what becomes of requests while they are frozen or the stop line is reached"
    )


class StreamSettings(Section):
    replicas: Literal[1, 3, 5] = Field(1, description="copies of our streams; 3 in production")
    max_request_bytes: int = Field(
        65_536,
        ge=1024,
        le=1_048_576,
        description="largest request with its headers; larger ones are refused at the door",
    )
    max_queued_per_client: int = Field(
        100_000, ge=1, description="unfinished requests of one client and operation; more are refused at the door"
    )
    max_queued_bytes_per_client: int = Field(
        67_108_864, ge=1_048_576, description="bytes of one client's unfinished requests; more are refused at the door"
    )
    max_events_bytes: int = Field(-1, ge=-1, description="size of the record; -1: as large as the server allows")
    claim_high_water: float = Field(
        0.9, gt=0, le=1, description="above this part of max_events_bytes no new id is claimed: requests wait"
    )
    max_dead_bytes: int = Field(
        1_073_741_824, ge=1_048_576, description="size of the dead letters; the oldest go first"
    )
    dead_max_age_s: Seconds = Field(2_592_000.0, description="age of the dead letters")
    intermediate_max_age_s: Seconds = Field(
        7_776_000.0, description="age of events that are not final (refusals go with the finals, where those go)"
    )
    final_max_age_s: float | None = Field(
        None,
        ge=1,
        le=315_360_000,
        description="age of final events but wallets' keys; null: never. If set, requests must carry expires_at",
    )


class LimitSettings(Section):
    max_tx_bytes: int = Field(
        32_768, ge=32, le=262_144, description="largest tx to sign (ed25519; secp256k1 takes a 32-byte hash)"
    )
    max_expiry_s: Seconds = Field(86_400.0, description="latest expires_at, from now")
    clock_skew_s: float = Field(2.0, ge=0, le=60, description="margin for clocks of replicas and servers that differ")
    max_labels: int = Field(16, ge=0, le=64, description="labels on one request")


class WorkerSettings(Section):
    max_held: int = Field(2000, ge=1, le=100_000, description="unfinished requests held by this replica")
    prefetch_per_client: int = Field(
        16, ge=1, le=1000, description="requests of one client and operation that wait here for their turn"
    )
    lookahead: int = Field(
        16, ge=1, le=10_000, description="requests per lane that may be prepared while the lane is full"
    )
    max_ack_pending: int = Field(
        1000, ge=1, le=100_000, description="unacknowledged requests of one client and operation over all replicas"
    )
    ack_wait_s: Seconds = Field(30.0, description="after this without a heartbeat another replica takes over")
    heartbeat_s: Seconds = Field(10.0, description="heartbeat of held requests; at most a third of ack_wait_s")
    drain_timeout_s: Seconds = Field(25.0, description="time to finish after SIGTERM")

    @model_validator(mode="after")
    def _heartbeat(self) -> Self:
        if self.heartbeat_s * 3 > self.ack_wait_s:
            raise ValueError("heartbeat_s must be at most a third of ack_wait_s")
        return self


class QuerySettings(Section):
    concurrency: int = Field(64, ge=1, le=10_000, description="queries answered at once by this replica")
    per_client_per_s: float = Field(500.0, ge=1, le=100_000, description="answers of a replica to one client a second")
    page_size: int = Field(100, ge=1, le=1000, description="most events in one answer")


class HttpSettings(Section):
    enabled: bool = Field(True, description="health and metrics over HTTP")
    host: str = Field("127.0.0.1", description="address to listen on; 0.0.0.0 in a container")
    port: int = Field(8080, ge=0, le=65_535, description="port; 0: any free one, printed at the start")


class LogSettings(Section):
    level: Literal["debug", "info", "warning", "error"] = Field("info", description="least severity that is written")
    format: Literal["auto", "json", "console"] = Field(
        "auto", description="auto: console on a terminal, JSON otherwise"
    )
    fields: Literal["plain", "ecs"] = Field("plain", description="names in JSON: our own, or Elastic Common Schema's")
    max_per_s: int = Field(
        0, ge=0, description="most lines of one event a second; the next one says how many were dropped; 0: all"
    )


class AuditSettings(Section):
    exporter: Token | None = Field(
        None, description="name of the audit log's exporter: it says how far it has come, and the daemons look at that"
    )
    max_lag_s: Seconds = Field(
        604_800.0, description="no new id is claimed while an event has waited longer for it: none expires unexported"
    )


class ProcessSettings(Section):
    core_dumps: bool = Field(
        False, description="allow core dumps, debuggers and other processes of this user to read our memory"
    )


class Settings(Section):
    """Everything the daemon can be told."""

    environment: Literal["development", "production"] = Field(
        "development", description="production refuses what only suits development"
    )
    nats: NatsSettings = Field(default_factory=NatsSettings)
    signer: SignerSettings = Field(default_factory=SignerSettings)
    mpcium: MpciumSettings = Field(default_factory=MpciumSettings)
    clients: dict[Token, ClientSettings] = Field(
        default_factory=dict, description="who may ask, by name; the name is a token of their subjects"
    )
    policy: PolicySettings = Field(default_factory=PolicySettings)
    streams: StreamSettings = Field(default_factory=StreamSettings)
    audit: AuditSettings = Field(default_factory=AuditSettings)
    limits: LimitSettings = Field(default_factory=LimitSettings)
    worker: WorkerSettings = Field(default_factory=WorkerSettings)
    query: QuerySettings = Field(default_factory=QuerySettings)
    freeze: FreezeSettings = Field(default_factory=FreezeSettings)
    http: HttpSettings = Field(default_factory=HttpSettings)
    log: LogSettings = Field(default_factory=LogSettings)
    process: ProcessSettings = Field(default_factory=ProcessSettings)

    @model_validator(mode="after")
    def _memory(self) -> Self:
        final_s, limits = self.streams.final_max_age_s, self.limits
        longest_s = max(limits.max_expiry_s, *(self.mpcium.lane(operation).default_expiry_s for operation in Operation))
        if self.streams.intermediate_max_age_s <= longest_s + limits.clock_skew_s:
            raise ValueError(
                "streams.intermediate_max_age_s: expected more than limits.max_expiry_s, default_expiry_s of every "
                "lane and limits.clock_skew_s: the record must not forget an operation before its deadline"
            )
        if self.audit.exporter and self.audit.max_lag_s >= self.streams.intermediate_max_age_s:
            raise ValueError(
                "audit.max_lag_s: expected less than streams.intermediate_max_age_s: events must not expire unexported"
            )
        if final_s is None:
            return self
        if final_s <= limits.max_expiry_s + limits.clock_skew_s:
            raise ValueError(
                "streams.final_max_age_s: expected more than limits.max_expiry_s and limits.clock_skew_s together: "
                "a request must expire before the final event that its replay is held against"
            )
        if final_s < self.streams.intermediate_max_age_s:
            raise ValueError("streams.final_max_age_s: expected at least streams.intermediate_max_age_s")
        return self

    @model_validator(mode="after")
    def _production(self) -> Self:
        if self.environment != "production":
            return self
        kms = self.signer.kms
        if kms.has_static_credentials and not kms.allow_static_credentials_in_production:
            raise ValueError(
                "static credentials in production need signer.kms.allow_static_credentials_in_production: true"
            )
        if self.signer.type == "local" and not self.signer.allow_local_in_production:
            raise ValueError("signer.type: a local key in production needs signer.allow_local_in_production: true")
        if not self.mpcium.event_initiator_pubkey:
            raise ValueError("mpcium.event_initiator_pubkey: production needs the pin, the key that the nodes trust")
        return self
