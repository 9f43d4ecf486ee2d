"""The parts that serve requests, built from the settings and two open connections; what they share is made once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from initiator.allowances import Allowances
from initiator.bus import forms, queues, streams
from initiator.bus.connection import Connection, Message
from initiator.bus.errors import NotFoundError
from initiator.bus.jetstream import JetStream
from initiator.bus.nodes import NodeGateway
from initiator.config.schema import Settings
from initiator.config.wallets import load_wallets
from initiator.core import subjects
from initiator.core.model import Operation
from initiator.core.signer import PublicKey, Signer
from initiator.core.spki import fingerprint
from initiator.errors import InitiatorError, RetryError
from initiator.expiry import Expiry
from initiator.flow.answering import Answering
from initiator.flow.authorizing import Authorizing
from initiator.flow.awaiting import Awaiting
from initiator.flow.board import Board
from initiator.flow.cancelling import CancelService
from initiator.flow.census import Census
from initiator.flow.claims import Claims
from initiator.flow.clients import Clients
from initiator.flow.clock import SystemClock
from initiator.flow.gate import SigningGate
from initiator.flow.handler import Handler
from initiator.flow.held import HeldRequests
from initiator.flow.intake import Intake
from initiator.flow.journal import Journal
from initiator.flow.lane import Lane
from initiator.flow.lease import Lease
from initiator.flow.permit import CallPermit
from initiator.flow.publisher import Publisher
from initiator.flow.query import QueryService
from initiator.flow.reception import Reception
from initiator.flow.results import Results
from initiator.flow.room import Room
from initiator.flow.service import Service
from initiator.flow.sweeper import Sweeper
from initiator.flow.takeovers import Takeovers
from initiator.flow.unexported import Unexported
from initiator.flow.upkeep import Upkeep
from initiator.flow.verification import ResultVerifier, WalletBook
from initiator.flow.watchdog import Watchdog
from initiator.flow.worker import Pair, Worker
from initiator.health import Health
from initiator.log import get_logger
from initiator.metrics import Metrics
from initiator.record import Record, Retention
from initiator.slots import Slots

log = get_logger()
LOOKED_AT = 10  # queues, each time


class Assembly:
    """One daemon's parts.

    Raises:
        HaltError: the file of wallets cannot be read.

    Args:
        connection: to our own account.
        questions: to our own account, for what clients ask.
        nodes_connection: to the nodes' account; may be the same one as the first.
        lease: this replica's leave to sign.
        permit: leave for each call to the signer.
    """

    def __init__(
        self,
        settings: Settings,
        connection: Connection,
        questions: Connection,
        nodes_connection: Connection,
        health: Health,
        metrics: Metrics,
        lease: Lease,
        permit: CallPermit,
    ) -> None:
        self._settings = settings
        self._connection = connection
        self._nodes_connection = nodes_connection
        self._health = health
        self._metrics = metrics
        self._clock = SystemClock()
        self.clients = Clients.configured(settings)
        made_before = load_wallets(settings.mpcium.wallets_file)
        self._worker: Worker | None = None
        self._authorizing: Authorizing | None = None
        self._queue_failures: dict[str, InitiatorError] = {}
        self._looked_at = 0
        self._board = Board()
        self._js = JetStream(connection, settings.nats.jetstream_domain)
        nodes_settings = settings.mpcium.nats or settings.nats
        self._nodes_js = JetStream(nodes_connection, nodes_settings.jetstream_domain)
        self._gateway = NodeGateway(self._nodes_js, settings.mpcium.scoped_client_id)
        kept = settings.streams
        self._record = Record(self._js, Retention(kept.final_max_age_s, kept.intermediate_max_age_s))
        self._book = WalletBook(self._record, made_before)
        self._allowances = Allowances(self._js, self._clock.now)
        self._journal = Journal(self._record, self._clock, metrics, self._board)
        self._lease = lease
        self._gate = self._signing_gate(permit)
        query = settings.query
        self._answering = Answering(questions, query.concurrency, query.per_client_per_s, self.clients.weight_of)
        self._lanes = {operation: self._lane(operation) for operation in Operation}
        self._takeovers = Takeovers(self._js)
        self._unexported = self._exporters_lag()
        high_water = settings.streams.claim_high_water
        self._room = Room(self._js, high_water, self._unexported, health, metrics, self._clock)

    async def ensure_streams(self) -> None:
        """Our streams in their form, and the nodes' where they are missing.

        Raises:
            HaltError, RetryError: see `streams.ensure_own`, `queues.ensure` and `streams.ensure_nodes`.
        """
        await streams.ensure_own(self._js, self._settings)
        await queues.ensure(self._js, self._settings)
        await streams.ensure_nodes(self._nodes_js, self._settings.mpcium.routing)
        await self._gateway.note_streams()

    async def worker(self, signer: Signer) -> Worker:
        """The worker, with all that works for it."""
        self._worker = Worker(
            settings=self._settings,
            js=self._js,
            nodes_js=self._nodes_js,
            pairs=await self._pairs(),
            ensure_queue=self._ensure_queue,
            handler=self._handler(signer),
            held=HeldRequests(self._connection),
            results=self._results(),
            takeovers=self._takeovers,
            metrics=self._metrics,
        )
        return self._worker

    async def take_over(self, settings: Settings) -> None:
        """Put the clients of other settings in force; all else stays as it is.

        Raises:
            RetryError: NATS is away; the same call again goes on from there.
        """
        self.clients.replace(settings.clients)
        self._settings = settings
        await queues.ensure(self._js, settings)
        if self._worker is not None:
            await self._worker.serve(await self._pairs())

    async def ensure_queues(self) -> dict[str, InitiatorError]:
        """See `Upkeep`: all that are missing, and a few of the others each time, in turn."""
        present = await queues.clients(self._js)
        configured = sorted(self._settings.clients)
        self._looked_at += LOOKED_AT
        in_turn = {configured[(self._looked_at + step) % len(configured)] for step in range(LOOKED_AT) if configured}
        for client in sorted(in_turn | (self._settings.clients.keys() - present)):
            try:
                await queues.ensure_one(self._js, self._settings, client)
            except InitiatorError as error:
                self._queue_failures[client] = error
            else:
                self._queue_failures.pop(client, None)
                if client not in present:
                    log.warning("assembly.queue_made_anew", stream=subjects.requests_stream(client))
        return {name: error for name, error in self._queue_failures.items() if name in self._settings.clients}

    async def serve_forgotten(self, before: float) -> None:
        """See `Upkeep`: other replicas may know clients that we do not; only what they leave lying is ours."""
        if self._worker is None:
            return
        served = self._worker.served
        found = {
            pair
            for client in await queues.clients(self._js)
            for pair in await self._waiting_since(client, before)
            if pair not in served
        }
        if found:
            log.warning("assembly.forgotten_requests", pairs=sorted(f"{client} {op}" for client, op in found))
            await self._worker.serve({*served, *found})

    async def _waiting_since(self, client: str, before: float) -> list[Pair]:
        """Of one client's queue: whatever holds a request that was stored before a moment."""
        found = []
        with contextlib.suppress(NotFoundError, RetryError):  # one queue without a leader is no other's trouble
            for subject, oldest in (await queues.oldest(self._js, client)).items():
                if oldest.time < before:
                    found.append((subject.client, subject.operation))
        return found

    async def listen(self, public_key: PublicKey) -> None:
        """Say what this replica is, and wake who waits for what another one recorded."""

        async def on_event(message: Message) -> None:
            _, _, _client, operation, operation_id, _state = message.subject.split(".")
            self._board.poke(Operation(operation), operation_id)

        # a hint from whichever replica recorded it; those who are woken read the record
        for state in ("completed", "failed", "retrying"):
            await self._connection.subscribe(f"initiator.out.*.*.*.{state}", on_event)
        self._connection.on_return(self._board.poke_all)
        if self._authorizing is not None:
            await self._authorizing.listen()
        metadata = {
            "key_algorithm": public_key.algorithm,
            "key_fingerprint": fingerprint(public_key),
            "mpcium_client_id": self._settings.mpcium.client_id,
            "routing": self._settings.mpcium.routing,
        }
        await self._gate.listen(self._connection)  # before the service: whoever is there by its word, confirms
        service = Service(
            self._connection, self._answering, metadata, self._health, self._busy, self._clock, self._lease.replica_id
        )
        await service.start()

    async def answer(self) -> None:
        """Answer clients' questions from now on. Raises RetryError."""
        await QueryService(self._answering, self._js, self._record, self._settings, self._clock).start()
        await CancelService(self._answering, self._record, self._journal).start()

    async def close(self) -> None:
        """Leave further questions to others, and put back what is left of limits."""
        await self._answering.close()
        await self._allowances.close()

    def _busy(self) -> int:
        return self._worker.busy if self._worker else 0

    def chores(self) -> list[Callable[[], Coroutine[Any, Any, None]]]:
        """What goes on beside the requests; each runs until it is cancelled."""
        watchdog = Watchdog(self._js, self._settings, self._health, self._metrics, self._clock, self._gate.frozen)
        upkeep = Upkeep(self._js, self._nodes_js, self._gateway, self._settings, self, self._health, self._clock)
        census = Census(self._js, self._settings, self._metrics, self._clock)
        expiry = Expiry(self._settings, self._metrics)
        found = [self._room.run, watchdog.run, self._sweeper().run, upkeep.run, census.run, expiry.run]
        return [*found, self._unexported.run] if self._unexported else found

    # --- the parts

    def _exporters_lag(self) -> Unexported | None:
        audit = self._settings.audit
        if audit.exporter is None:
            return None
        return Unexported(self._js, audit.exporter, audit.max_lag_s, self._health, self._metrics, self._clock)

    async def _pairs(self) -> list[Pair]:
        """Every configured client and operation; and of those that we have served, what still waits after they left.

        Not the queues of clients that we do not know: a replica that knows newer ones must not find their requests
        refused by us. What nobody else takes is served all the same, after a while.
        """
        pairs = {(name, op) for name, client in self._settings.clients.items() for op in client.operations}
        for client, operation in (self._worker.served if self._worker else frozenset()) - pairs:
            with contextlib.suppress(NotFoundError, RetryError):
                if subjects.RequestSubject(client, operation) in await queues.taken_subjects(self._js, client):
                    pairs.add((client, operation))
        return sorted(pairs)

    async def _ensure_queue(self, client: str) -> bool:
        return await queues.ensure_one(self._js, self._settings, client)

    def _lane(self, operation: Operation) -> Lane:
        cap, lookahead = self._settings.mpcium.lane(operation).in_flight, self._settings.worker.lookahead
        admitted = min(lookahead, 2 * cap) or lookahead
        slots = Slots(self._js, operation, cap)
        return Lane(operation, slots, admitted, self.clients.weight_of, self._clock, self._metrics)

    def _publisher(self) -> Publisher:
        return Publisher(
            record=self._record,
            journal=self._journal,
            gateway=self._gateway,
            lanes=self._lanes,
            clock=self._clock,
            clock_skew_s=self._settings.limits.clock_skew_s,
        )

    def _handler(self, signer: Signer) -> Handler:
        intake = Intake(self._settings, self.clients, self._book.owner)
        reception = Reception(self._settings, intake, self._record, self._clock)
        claims = self._claims(reception)
        self._authorizing = self._new_authorizing(claims, fingerprint(signer.public_key))
        return Handler(
            settings=self._settings,
            reception=reception,
            claims=claims,
            authorizing=self._authorizing,
            record=self._record,
            journal=self._journal,
            signer=signer,
            publisher=self._publisher(),
            lanes=self._lanes,
            room=self._room,
            takeovers=self._takeovers,
            gate=self._gate,
            awaiting_result=self._awaiting(),
            clock=self._clock,
            metrics=self._metrics,
        )

    def _new_authorizing(self, claims: Claims, key_fingerprint: str) -> Authorizing:
        return Authorizing(
            connection=self._connection,
            record=self._record,
            journal=self._journal,
            claims=claims,
            gate=self._gate,
            clients=self.clients,
            nodes_stream=self._gateway.birth,
            key_fingerprint=key_fingerprint,
            clock=self._clock,
            metrics=self._metrics,
        )

    def _claims(self, reception: Reception) -> Claims:
        return Claims(
            reception=reception,
            record=self._record,
            journal=self._journal,
            allowances=self._allowances,
            room=self._room,
            gate=self._gate,
            clock=self._clock,
            clock_skew_s=self._settings.limits.clock_skew_s,
        )

    def _signing_gate(self, permit: CallPermit) -> SigningGate:
        return SigningGate(
            lease=self._lease,
            permit=permit,
            record=self._record,
            journal=self._journal,
            board=self._board,
            clock=self._clock,
            metrics=self._metrics,
            refuse=self._settings.freeze.held == "refuse",
        )

    def _awaiting(self) -> Awaiting:
        return Awaiting(
            settings=self._settings,
            record=self._record,
            journal=self._journal,
            board=self._board,
            clock=self._clock,
        )

    def _results(self) -> Results:
        chain_code = self._settings.mpcium.chain_code
        verifier = ResultVerifier(self._book, bytes.fromhex(chain_code) if chain_code else None)
        return Results(
            connection=self._nodes_connection,
            record=self._record,
            journal=self._journal,
            verifier=verifier,
            lanes=self._lanes,
            clock=self._clock,
            clock_skew_s=self._settings.limits.clock_skew_s,
            nodes_stream=self._gateway.birth,
            metrics=self._metrics,
        )

    async def _keep_durable(self, form: forms.Form, before: float) -> None:
        if await streams.keep_durable(self._nodes_js, subjects.NODE_RESULTS_STREAM, form, before):
            self._metrics.results_stranded.inc()

    def _sweeper(self) -> Sweeper:
        client_id = self._settings.mpcium.scoped_client_id
        durables = [forms.result_durable_form(operation, client_id) for operation in Operation]
        keep = [partial(self._keep_durable, form) for form in durables]
        interval_s = self._settings.worker.ack_wait_s
        patience_s = {op: self._settings.mpcium.lane(op).result_timeout_s + 2 * interval_s for op in Operation}
        return Sweeper(
            record=self._record,
            journal=self._journal,
            lanes=self._lanes,
            patience_s=patience_s,
            keep_durables=keep,
            clock=self._clock,
            interval_s=interval_s,
        )
