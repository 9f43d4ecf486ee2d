"""The composition root: builds everything, owns the tasks, signals and shutdown.

Nothing here decides anything about requests. Back ends that are away at the start are waited for; readiness says
which one, and turns true when all of them are there.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

from initiator import keyfile
from initiator.assembly import Assembly
from initiator.bus import forms
from initiator.bus.connection import Connection
from initiator.bus.errors import NotFoundError
from initiator.bus.jetstream import JetStream
from initiator.config.schema import Settings
from initiator.core.signer import Limiter, Permit, Signer
from initiator.core.spki import check_pin, fingerprint, parse_public_key
from initiator.errors import Code, HaltError, RetryError
from initiator.flow.lease import Lease
from initiator.flow.permit import CallPermit
from initiator.flow.worker import Worker
from initiator.health import Health
from initiator.http import HealthServer
from initiator.log import get_logger
from initiator.metrics import Metrics
from initiator.orders import OrderBook
from initiator.policywatch import PolicyWatch
from initiator.quota import SharedLimiter
from initiator.reload import Reload

log = get_logger()
T = TypeVar("T")
Chore = Callable[[], Coroutine[Any, Any, None]]
SignerSource = Callable[[Settings], Awaitable[Signer]]
START_RETRY_MAX_S = 10.0
SIGNER_WATCH_S = 5.0
CHORE_AGAIN_S = 5.0
ABORT_WAIT_S = 0.5
_PARTS = ("nats", "nodes", "streams", "record", "signer", "orders", "worker", "progress", "questions")


class App:
    """One daemon.

    Args:
        connect: makes the signer; the start repeats it for as long as it takes.
        load: reads the configuration again, at SIGHUP; default: it never changes.
    """

    def __init__(
        self,
        settings: Settings,
        connect: SignerSource | None = None,
        load: Callable[[], Settings] | None = None,
    ) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.health = Health(_PARTS, lambda part: self.metrics.part_ok.labels(part.name).set(part.ok))
        self._load = load or (lambda: settings)
        self._hangup = asyncio.Event()
        self._policy_told = asyncio.Event()
        self._stop = asyncio.Event()
        self._abort = asyncio.Event()
        self._same_nats = settings.mpcium.nats is None
        self._connection = Connection(settings.nats, "initiator", self._part("nats"))
        self._questions = Connection(settings.nats, "initiator-questions", self._on_questions)
        self._on_questions(False, "not connected yet")
        self._nodes_connection = (
            self._connection
            if settings.mpcium.nats is None
            else Connection(settings.mpcium.nats, "initiator-nodes", self._part("nodes"))
        )
        js = JetStream(self._connection, settings.nats.jetstream_domain)
        self._lease = Lease(js, secrets.token_hex(8), self.health, self.metrics)
        self._permit = CallPermit(js, self._lease, self.metrics, OrderBook(js).say_reached)
        self._connect = connect or partial(
            connect_signer, metrics=self.metrics, limiter=self._shared_limiter(js), permit=self._permit
        )
        self.http = HealthServer(settings.http, self.health, self.metrics.registry)

    @property
    def _connections(self) -> list[Connection]:
        nodes = [] if self._same_nats else [self._nodes_connection]
        return [self._connection, self._questions, *nodes]

    def _shared_limiter(self, js: JetStream) -> Limiter | None:
        """What all replicas share; it asks NATS, and so is of use once that is there."""
        chosen = self.settings.signer.kms
        if chosen.limit_over == "replica" or not chosen.max_signs_per_s:
            return None
        form, skew_s = forms.limits_form(self.settings), self.settings.limits.clock_skew_s
        make = partial(js.api, f"STREAM.CREATE.{form['name']}", form)
        return SharedLimiter(js, chosen.max_signs_per_s, chosen.burst_signs, skew_s, make=make)

    def _part(self, name: str) -> Callable[[bool, str], None]:
        def listener(connected: bool, reason: str) -> None:
            self.health.set(name, connected, reason, None if connected else Code.BUS_UNAVAILABLE)
            if name == "nats" and self._same_nats:
                self.health.set("nodes", connected, reason, None if connected else Code.BUS_UNAVAILABLE)

        return listener

    def _on_questions(self, connected: bool, reason: str) -> None:
        """Noted, and no reason not to be ready: signing does not wait for questions."""
        self.health.set("questions", True, note="" if connected else f"clients' questions are not answered: {reason}")

    # --- life

    async def run(self) -> int:
        """Run until SIGTERM or SIGINT; returns the exit code.

        0 after a drain, 1 if a connection closed for good or a second signal aborted it.

        Raises:
            HaltError: something that only a person can mend stood in the way of the start.
        """
        self._listen_to_signals()
        if self.settings.http.enabled:
            await self.http.start()
            log.info("http.started", host=self.settings.http.host, port=self.http.port)
        serving = asyncio.create_task(self._serve())
        aborted = asyncio.create_task(self._abort.wait())
        try:
            await asyncio.wait({serving, aborted}, return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                return serving.result()
            log.error("daemon.aborted")
            return 1
        finally:
            for task in (serving, aborted):
                task.cancel()
            await asyncio.wait({serving, aborted}, timeout=ABORT_WAIT_S)
            await self.http.close()

    @property
    def aborted(self) -> bool:
        """Told to stop twice."""
        return self._abort.is_set()

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number.name)
        loop.add_signal_handler(signal.SIGHUP, self.reload)

    def _on_signal(self, name: str) -> None:
        log.info("daemon.stop_requested", signal=name)
        self.stop()

    def reload(self) -> None:
        """Read configuration and policy again, once the start is complete; see `Reload` for what of it can change."""
        self._hangup.set()
        self._policy_told.set()

    def stop(self) -> None:
        """Drain and end; said again: abort at once."""
        if self._stop.is_set():
            self._abort.set()
        self._stop.set()

    async def _serve(self) -> int:
        signer: Signer | None = None
        try:
            signer = await self._start("signer", self._connect_signer)
            await self._start("nats", self._connection.open)
            if not self._same_nats:
                await self._start("nodes", self._nodes_connection.open)
            parts = self._assembly()
            await self._start("streams", parts.ensure_streams)
            if not self._stop.is_set():
                await self._work(parts, signer)
        except _StoppedError:
            return 0
        else:
            return 1 if any(connection.closed.is_set() for connection in self._connections) else 0
        finally:
            for connection in reversed(self._connections):
                await connection.close()
            if signer is not None:
                await signer.close()
            log.info("daemon.stopped")

    def _assembly(self) -> Assembly:
        return Assembly(
            self.settings, self._connection, self._questions, self._nodes_connection, self.health, self.metrics,
            self._lease, self._permit,
        )  # fmt: skip

    async def _start(self, part: str, action: Callable[[], Awaitable[T]]) -> T:
        """Do one step of the start, for as long as it takes."""
        delay_s = 0.5
        while not self._stop.is_set():
            try:
                result = await action()
            except (RetryError, NotFoundError) as error:
                self.health.set(part, False, error.reason, error.code)
                log.warning("start.waiting", part=part, code=error.code.value, reason=error.reason, hint=error.hint)
            except HaltError as error:
                if error.code not in _WAIT_FOR_A_PERSON:
                    raise
                self.health.set(part, False, error.reason, error.code)
                log.warning("start.blocked", part=part, code=error.code.value, reason=error.reason, hint=error.hint)
            else:
                self.health.set(part, True)
                return result
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await self._stop.wait()
            delay_s = min(delay_s * 2, START_RETRY_MAX_S)
        raise _StoppedError

    # --- parts

    async def _connect_signer(self) -> Signer:
        signer = await self._connect(self.settings)
        algorithm, shown = signer.public_key.algorithm, fingerprint(signer.public_key)
        self.metrics.key_info.labels(shown, algorithm).set(1)
        log.info("signer.ready", algorithm=algorithm, fingerprint=shown)
        return signer

    async def _work(self, parts: Assembly, signer: Signer) -> None:
        worker = await self._start("streams", partial(parts.worker, signer))
        await parts.listen(signer.public_key)
        answering = await self._try_to_answer(parts)
        later = [] if answering else [partial(self._answer_later, parts)]
        reload = Reload(self.settings, self._hangup, self._load, parts.take_over, self.metrics)
        own: list[Chore] = [
            self._lease.run,
            self._permit.run,
            partial(self._watch_signer, signer),
            reload.run,
            *self._policy_watch(parts),
            *later,
        ]
        await self._until_stopped(worker, [*parts.chores(), *own])
        await self._lease.leave()
        await parts.close()

    def _policy_watch(self, parts: Assembly) -> list[Chore]:
        chosen, clients = self.settings.policy, parts.clients
        if chosen.file is None:
            return []
        watch = PolicyWatch(
            path=chosen.file,
            every_s=chosen.watch_s,
            policy=clients.policy,
            told=self._policy_told,
            apply=clients.set_policy,
            health=self.health,
            metrics=self.metrics,
        )
        return [watch.run]

    async def _try_to_answer(self, parts: Assembly) -> bool:
        """Begin to answer clients' questions; returns whether that went well: signing does not wait for it."""
        try:
            if not self._questions.connected:
                await self._questions.open()
            await parts.answer()
        except (RetryError, HaltError) as error:
            self._on_questions(False, error.reason)
            log.warning("questions.waiting", code=error.code.value, reason=error.reason, hint=error.hint)
            return False
        return True

    async def _answer_later(self, parts: Assembly) -> None:
        delay_s = 0.5
        while not await self._try_to_answer(parts):
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, START_RETRY_MAX_S)

    async def _until_stopped(self, worker: Worker, chores: list[Chore]) -> None:
        for connection in self._connections:
            chores.append(partial(self._leave_when_closed, connection))
        watchers = [asyncio.create_task(_unfailing(chore)) for chore in chores]
        self.health.set("worker", True)
        self.health.mark_started()
        log.info("daemon.started", clients=sorted(self.settings.clients), routing=self.settings.mpcium.routing)
        stopping = asyncio.create_task(self._say_stopping())
        try:
            await worker.run(self._stop)
        finally:
            for task in (*watchers, stopping):
                task.cancel()

    async def _say_stopping(self) -> None:
        await self._stop.wait()
        self.health.set("worker", False, "draining")

    async def _leave_when_closed(self, connection: Connection) -> None:
        await connection.closed.wait()
        self._stop.set()

    async def _watch_signer(self, signer: Signer) -> None:
        """Readiness reflects the ability to sign."""
        while True:
            state = signer.health()
            self.health.set("signer", state.ok, state.reason, state.code, state.note)
            await asyncio.sleep(SIGNER_WATCH_S)


async def _unfailing(chore: Chore) -> None:
    """An error that nobody foresaw is seen, and ends nothing: the chore is begun again."""
    while True:
        try:
            await chore()
        except Exception as error:
            log.exception("daemon.chore_failed", error_type=type(error).__name__)
            await asyncio.sleep(CHORE_AGAIN_S)
        else:
            return


class _StoppedError(Exception):
    """Asked to stop before the start was complete."""


# A person has to act, but the daemon may wait for it: the key is enabled again, the permission is granted,
# the record is restored.
_WAIT_FOR_A_PERSON = frozenset({Code.KMS_ACCESS_DENIED, Code.KMS_KEY_UNUSABLE, Code.BUS_DENIED, Code.RECORD_LOST})


async def connect_signer(
    settings: Settings,
    metrics: Metrics | None = None,
    limiter: Limiter | None = None,
    permit: Permit | None = None,
) -> Signer:
    """The configured signer, its key compared with the pin.

    Args:
        metrics: where it counts what it does.
        limiter: spaces the calls to KMS; default: this process's own, by the settings.
        permit: accounts for each signature; default: nobody does.

    Raises:
        HaltError: `KEY_MISMATCH` with both fingerprints, or the key is not of the form that the nodes verify.
        RetryError: KMS is away.
    """
    signer_settings, pinned = settings.signer, settings.mpcium.event_initiator_pubkey
    if signer_settings.type == "kms":
        from initiator.kms import KmsSigner  # with AWS's library, which takes its time: only where it is used

        pin = parse_public_key(pinned) if pinned else None
        return await KmsSigner.connect(signer_settings.kms, pin=pin, metrics=metrics, limiter=limiter, permit=permit)
    local = keyfile.load_local_signer(signer_settings.local)
    local.permit = permit
    check_pin(local.public_key, parse_public_key(pinned, local.public_key.algorithm) if pinned else None)
    return local
