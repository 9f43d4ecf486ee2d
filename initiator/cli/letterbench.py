"""What the commands of dead letters do, one letter after the other, over the daemon's own login."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

import click

from initiator.cli import CliContext, letters
from initiator.core.deadletter import DeadLetter, Selection
from initiator.core.text import plain
from initiator.errors import Code, InitiatorError, RejectError

if TYPE_CHECKING:
    from initiator.deadletters import DeadLetters
    from initiator.flow.fate import Fates, Kind, Replayed
    from initiator.flow.rehearsal import Rehearsal

T = TypeVar("T")
DONE, FAILED = 0, 1


class Bench:
    """What the commands do to one letter; each says whether it went well."""

    def __init__(self, dead: DeadLetters, rehearsal: Rehearsal, fates: Fates) -> None:
        self.letters = dead
        self._rehearsal = rehearsal
        self._fates = fates
        self._replayed: list[Replayed] = []

    async def chosen(self, selection: Selection) -> list[DeadLetter]:
        return [letter async for letter in self.letters.select(selection)]

    async def look(self, sequence: int) -> bool:
        letter, _ = await self.letters.open(sequence)
        click.echo(f"{letters.about(letter)} {plain(letter.code)} would be dropped")
        return True

    async def rehearse(self, sequence: int, *, drop: bool) -> bool:
        letter, data = await self.letters.open(sequence)
        try:
            said = await self._rehearsal.judge(letter, data)
        except RejectError as error:
            click.echo(f"{letters.about(letter)} would be refused: {letters.refusal(error)}")
            return False
        click.echo(f"{letters.about(letter)} {said}{', and the dead letter dropped' if drop else ''}")
        return True

    async def replay(self, sequence: int, *, drop: bool) -> bool:
        letter, data = await self.letters.open(sequence)
        request = await self.letters.replay(letter, data)
        click.echo(f"{letters.about(letter)} replayed as request {request}")  # at once: it is queued, whatever follows
        self._replayed.append(self._fates.replayed(letter, data, request))
        if drop:
            await self.letters.drop(sequence)
        return True

    async def tell(self, wait_s: float) -> int:
        """Say what became of all that was replayed, as far as it is known in time."""
        from initiator.flow.fate import Kind

        counts: Counter[Kind] = Counter()
        try:
            async for replayed, fate in self._fates.tell(self._replayed, wait_s):
                click.echo(f"{letters.about(replayed.letter)} {plain(fate.said)}")
                counts[fate.kind] += 1
        except InitiatorError as error:
            left = f"{len(self._replayed) - counts.total()} of {len(self._replayed)}"
            click.echo(f"what became of {left} cannot be told: {letters.refusal(error)}", err=True)
            return FAILED
        if len(self._replayed) > 1:
            told = ", ".join(f"{counts[kind]} {kind.value}" for kind in Kind if counts[kind])
            click.echo(f"{len(self._replayed)} replayed: {told}")
        return FAILED if counts[Kind.REFUSED] else DONE

    async def drop(self, sequences: list[int]) -> int:
        dropped = 0

        async def one(sequence: int) -> bool:
            nonlocal dropped
            await self.letters.drop(sequence)
            dropped += 1
            return True

        code = await each(sequences, one)
        click.echo(f"{dropped} dropped")
        return code


async def each(sequences: list[int], action: Callable[[int], Awaitable[bool]]) -> int:
    """One after the other; a failure is told and the others go on, unless nobody answers any more."""
    code = DONE
    for done, sequence in enumerate(sequences, 1):
        try:
            code = code if await action(sequence) else FAILED
        except InitiatorError as error:
            code = FAILED
            click.echo(f"{sequence} failed: {letters.refusal(error)}", err=True)
            if error.code is Code.BUS_UNAVAILABLE:
                click.echo(f"stopped; {len(sequences) - done} not tried", err=True)
                break
    return code


def perform(context: CliContext, action: Callable[[Bench], Awaitable[T]]) -> T:
    """Connect, do it, and disconnect."""
    from initiator import log
    from initiator.config.schema import LogSettings

    log.configure(LogSettings(level="error"))  # errors are told by the commands

    async def act() -> T:
        async with _connected(context) as bench:
            return await action(bench)

    return asyncio.run(act())


@asynccontextmanager
async def _connected(context: CliContext) -> AsyncIterator[Bench]:
    """The daemon's own login."""
    from initiator.bus.connection import Connection
    from initiator.bus.jetstream import JetStream
    from initiator.config.wallets import load_wallets
    from initiator.deadletters import DeadLetters
    from initiator.flow.clients import Clients
    from initiator.flow.fate import Fates
    from initiator.flow.intake import Intake
    from initiator.flow.rehearsal import Rehearsal
    from initiator.flow.verification import WalletBook
    from initiator.record import Record

    settings = context.load().settings
    connection = Connection(settings.nats, "initiator-dlq")
    try:
        await connection.open()
        js = JetStream(connection, settings.nats.jetstream_domain)
        dead, record = DeadLetters(js), Record(js)
        clients = Clients.configured(settings)
        intake = Intake(settings, clients, WalletBook(record, load_wallets(settings.mpcium.wallets_file)).owner)
        yield Bench(dead, Rehearsal(intake, dead, record, time.time), Fates(intake, js, record))
    finally:
        await connection.close()
