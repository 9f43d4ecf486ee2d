"""The parts that serve requests, built from the settings and two open connections; what they share is made once."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from initiator.bus import queues, streams
from initiator.bus.connection import Connection, Message
from initiator.bus.jetstream import JetStream
from initiator.bus.nodes import NodeGateway
from initiator.config.schema import Settings
from initiator.config.wallets import load_wallets
from initiator.core import subjects
from initiator.core.model import Operation
from initiator.core.signer import PublicKey, Signer
from initiator.core.spki import fingerprint
from initiator.flow.answering import Answering
from initiator.flow.board import Board
from initiator.flow.cancelling import CancelService
from initiator.flow.clients import Clients
from initiator.flow.clock import SystemClock
from initiator.flow.handler import Handler
from initiator.flow.held import HeldRequests
from initiator.flow.journal import Journal
from initiator.flow.lane import Lane
from initiator.flow.publisher import Publisher
from initiator.flow.query import QueryService
from initiator.flow.reception import Reception
from initiator.flow.results import Results
from initiator.flow.room import Room
from initiator.flow.service import Service
from initiator.flow.sweeper import Sweeper
from initiator.flow.takeovers import Takeovers
from initiator.flow.upkeep import Upkeep
from initiator.flow.verification import ResultVerifier, WalletBook
from initiator.flow.watchdog import Watchdog
from initiator.flow.worker import Pair, Worker
from initiator.health import Health
from initiator.metrics import Metrics
from initiator.record import Record, Retention
from initiator.slots import Slots


class Assembly:
    """One daemon's parts.

    Raises:
        HaltError: the file of wallets cannot be read.

    Args:
        connection: to our own account.
        nodes_connection: to the nodes' account; may be the same one.
    """

    def __init__(
        self, settings: Settings, connection: Connection, nodes_connection: Connection, health: Health, metrics: Metrics
    ) -> None:
        self._settings = settings
        self._connection = connection
        self._nodes_connection = nodes_connection
        self._health = health
        self._metrics = metrics
        self._clock = SystemClock()
        self._clients = Clients(settings.clients)
        self._made_before = load_wallets(settings.mpcium.wallets_file)
        self._worker: Worker | None = None
        self._board = Board()
        self._js = JetStream(connection, settings.nats.jetstream_domain)
        nodes_settings = settings.mpcium.nats or settings.nats
        self._nodes_js = JetStream(nodes_connection, nodes_settings.jetstream_domain)
        kept = settings.streams
        self._record = Record(self._js, Retention(kept.final_max_age_s, kept.intermediate_max_age_s))
        self._journal = Journal(self._record, self._clock, metrics, self._board)
        self._lanes = {operation: self._lane(operation) for operation in Operation}
        self._takeovers = Takeovers(self._js)
        self._room = Room(self._js, settings.streams.claim_high_water, health, metrics, self._clock)

    async def ensure_streams(self) -> None:
        """Our streams in their form, and the nodes' where they are missing.

        Raises:
            HaltError, RetryError: see `streams.ensure_own`, `queues.ensure` and `streams.ensure_nodes`.
        """
        await streams.ensure_own(self._js, self._settings)
        await queues.ensure(self._js, self._settings)
        await streams.ensure_nodes(self._nodes_js, self._settings.mpcium.routing)

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
            HaltError: a queue cannot be brought into its new form.
        """
        await queues.ensure(self._js, settings)
        pairs = await self._pairs()
        self._clients.replace(settings.clients)
        self._settings = settings
        if self._worker is not None:
            await self._worker.serve(pairs)

    async def listen(self, public_key: PublicKey) -> None:
        """Answer clients' questions, say what this replica is, and wake who waits for what another one recorded."""

        async def on_event(message: Message) -> None:
            _, _, _client, operation, operation_id, _state = message.subject.split(".")
            self._board.poke(Operation(operation), operation_id)

        # a hint from whichever replica recorded it; those who are woken read the record
        for state in ("completed", "failed", "retrying"):
            await self._connection.subscribe(f"initiator.out.*.*.*.{state}", on_event)
        self._connection.on_return(self._board.poke_all)
        answering = Answering(self._connection, self._settings.query.concurrency, self._clients.weight_of)
        await QueryService(answering, self._record, self._settings.query.page_size, self._clock).start()
        await CancelService(answering, self._record, self._journal).start()
        metadata = {
            "key_algorithm": public_key.algorithm,
            "key_fingerprint": fingerprint(public_key),
            "mpcium_client_id": self._settings.mpcium.client_id,
            "routing": self._settings.mpcium.routing,
        }
        await Service(self._connection, answering, metadata, self._health, self._busy, self._clock).start()

    def _busy(self) -> int:
        return self._worker.busy if self._worker else 0

    def chores(self) -> list[Callable[[], Coroutine[Any, Any, None]]]:
        """What goes on beside the requests; each runs until it is cancelled."""
        watchdog = Watchdog(self._js, self._settings, self._health, self._metrics, self._clock)
        upkeep = Upkeep(self._js, self._nodes_js, self._settings, self._health, self._clock)
        return [self._room.run, watchdog.run, self._sweeper().run, upkeep.run]

    # --- the parts

    async def _pairs(self) -> list[Pair]:
        """Every client and operation that has a subject in a queue, also those that left the configuration."""
        taken = [await queues.taken_subjects(self._js, client) for client in await queues.clients(self._js)]
        return [(subject.client, subject.operation) for of_client in taken for subject in of_client]

    async def _ensure_queue(self, client: str) -> None:
        await queues.ensure_one(self._js, self._settings, client)

    def _lane(self, operation: Operation) -> Lane:
        cap, lookahead = self._settings.mpcium.lane(operation).in_flight, self._settings.worker.lookahead
        admitted = min(lookahead, 2 * cap) or lookahead
        slots = Slots(self._js, operation, cap)
        return Lane(operation, slots, admitted, self._clients.weight_of, self._clock, self._metrics)

    def _publisher(self) -> Publisher:
        return Publisher(
            record=self._record,
            journal=self._journal,
            gateway=NodeGateway(self._nodes_js, self._settings.mpcium.scoped_client_id),
            lanes=self._lanes,
            clock=self._clock,
            clock_skew_s=self._settings.limits.clock_skew_s,
        )

    def _handler(self, signer: Signer) -> Handler:
        return Handler(
            settings=self._settings,
            reception=Reception(self._settings, self._clients, self._record, self._clock),
            record=self._record,
            journal=self._journal,
            signer=signer,
            publisher=self._publisher(),
            lanes=self._lanes,
            room=self._room,
            takeovers=self._takeovers,
            board=self._board,
            clock=self._clock,
            metrics=self._metrics,
        )

    def _results(self) -> Results:
        chain_code = self._settings.mpcium.chain_code
        book = WalletBook(self._record, self._made_before)
        verifier = ResultVerifier(book, bytes.fromhex(chain_code) if chain_code else None)
        return Results(
            connection=self._nodes_connection,
            record=self._record,
            journal=self._journal,
            verifier=verifier,
            lanes=self._lanes,
            clock=self._clock,
            clock_skew_s=self._settings.limits.clock_skew_s,
            metrics=self._metrics,
        )

    def _sweeper(self) -> Sweeper:
        client_id = self._settings.mpcium.scoped_client_id
        forms = [streams.result_durable_form(operation, client_id) for operation in Operation]
        keep = [partial(streams.keep_durable, self._nodes_js, subjects.NODE_RESULTS_STREAM, form) for form in forms]
        interval_s = self._settings.worker.ack_wait_s
        return Sweeper(
            record=self._record, lanes=self._lanes, keep_durables=keep, clock=self._clock, interval_s=interval_s
        )
