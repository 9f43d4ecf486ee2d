"""`initiator check`: connect to everything and say of each part that it is well, or what is wrong and what to do."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import click

from initiator.bus.errors import NotFoundError
from initiator.cli import CliContext
from initiator.config.schema import AuditSettings, LogSettings, NatsSettings, Settings
from initiator.core.text import plain
from initiator.errors import Code, InitiatorError, RetryError

PART_TIMEOUT_S = 20.0
PROBE = b"initiator check: a message that is no request"


@dataclass(frozen=True, slots=True)
class Finding:
    """One part's state."""

    part: str
    ok: bool
    detail: str
    hint: str | None = None


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def check(context: CliContext, as_json: bool) -> None:
    """Connect to NATS, the nodes' streams and the signer; change nothing. Exit 0 if all is well, 1 if not.

    It takes the daemon's own configuration: what is there is held against it, and its key makes a test signature.
    """
    from initiator import log

    settings = context.load().settings
    log.configure(LogSettings(level="error"))  # the report says it all
    findings = asyncio.run(_check_all(settings))
    ok = all(finding.ok for finding in findings)
    if as_json:
        click.echo(json.dumps({"ok": ok, "parts": [asdict(finding) for finding in findings]}, indent=2))
    else:
        for finding in findings:
            click.echo(f"{'ok  ' if finding.ok else 'FAIL'} {finding.part}: {finding.detail}")
            if finding.hint and not finding.ok:
                click.echo(f"     {finding.hint}")
    sys.exit(0 if ok else 1)


async def _try(part: str, action: Callable[[], Awaitable[str]]) -> Finding:
    try:
        async with asyncio.timeout(PART_TIMEOUT_S):
            return Finding(part, True, await action())
    except TimeoutError:
        return Finding(part, False, f"no answer within {PART_TIMEOUT_S:g} s")
    except InitiatorError as error:
        field = f"{error.field}: " if error.field else ""
        return Finding(part, False, f"{error.code} {field}{error.reason}", error.hint)


async def _check_all(settings: Settings) -> list[Finding]:
    findings = [await _try("signer", lambda: _signer(settings))]
    if settings.signer.type == "kms" and len(settings.signer.kms.targets) > 1 and findings[0].ok:
        findings += await _regions(settings)
    if settings.policy.file:
        findings.append(await _try("policy", lambda: _policy(settings.policy.file)))
    if settings.mpcium.wallets_file:
        findings.append(await _try("wallets made before", lambda: _wallets(settings)))
    findings += await _nats(settings)
    return findings


async def _policy(path: str | None) -> str:
    from initiator.config.policyfile import load_policy

    found = load_policy(path or "")
    return f"version {found.version}, {len(found.rules)} rules, {len(found.limits)} limits"


async def _wallets(settings: Settings) -> str:
    from initiator.config.wallets import load_wallets

    return f"{len(load_wallets(settings.mpcium.wallets_file).keys)} with their keys"


async def _signer(settings: Settings) -> str:
    from initiator.app import connect_signer
    from initiator.core.spki import fingerprint

    signer = await connect_signer(settings)
    try:
        await signer.sign(PROBE, deadline=asyncio.get_running_loop().time() + 10)
        pinned = "as pinned" if settings.mpcium.event_initiator_pubkey else "NOT pinned (mpcium.event_initiator_pubkey)"
        return f"{signer.public_key.algorithm} {fingerprint(signer.public_key)}, {pinned}; a test signature verifies"
    finally:
        await signer.close()


async def _regions(settings: Settings) -> list[Finding]:
    """Each Region by itself: one that only others stand in for is found before it is needed."""
    from initiator.app import connect_signer
    from initiator.kms import KmsSigner

    signer = await connect_signer(settings)
    try:
        if not isinstance(signer, KmsSigner):
            return []
        found = await signer.sign_everywhere(PROBE, deadline=asyncio.get_running_loop().time() + PART_TIMEOUT_S)
        return [_region(name, error) for name, error in found.items()]
    finally:
        await signer.close()


def _region(name: str, error: InitiatorError | None) -> Finding:
    part = f"signer in {name}"
    if error is None:
        return Finding(part, True, "the same key; a test signature verifies")
    return Finding(part, False, f"{error.code} {error.reason}", error.hint)


async def _nats(settings: Settings) -> list[Finding]:
    from initiator.bus import forms, inspect, queues

    routing = settings.mpcium.routing
    ours = [*forms.own_forms(settings), *(queues.form(settings, client) for client in sorted(settings.clients))]
    own = [(f"stream {form['name']}", partial(inspect.own_stream, form=form)) for form in ours]
    own.append(("clients' queues", partial(inspect.past_clients, settings=settings)))
    own.append(("orders", partial(_orders)))
    own.append(("audit exporter", partial(_exporter, audit=settings.audit)))
    nodes = [
        (f"stream {form['name']}", partial(inspect.node_stream, form=form, routing=routing))
        for form in forms.node_forms(routing)
    ]
    return [
        *await _account("nats", settings.nats, own),
        *await _account("nats of the nodes", settings.mpcium.nats or settings.nats, nodes),
    ]


async def _orders(js: Any) -> str:
    """What operators hold back; that is told, and nothing wrong."""
    from initiator.orders import OrderBook
    from initiator.stopline import Counter

    try:
        orders = await OrderBook(js).read()
    except NotFoundError:
        return "none yet"
    said = [plain(str(freeze)) for freeze in orders.freezes] or ["nothing is frozen"]
    if orders.line:
        spent = (await Counter(js).read(orders.line.id)).calls
        said.append(f"stop line: {spent} of {orders.line.limit} calls spent")
    return "; ".join(said)


async def _exporter(js: Any, audit: AuditSettings) -> str:
    """How far the audit's exporter has come. Raises RetryError where the daemons wait for it."""
    from initiator.flow.unexported import backlog

    if audit.exporter is None:
        return "none configured (audit.exporter): no log of the record is looked after"
    found = await backlog(js, audit.exporter)
    age_s = max(0.0, time.time() - found.oldest_at) if found.oldest_at is not None else 0.0
    told = f"up to {found.sequence} of {found.last}" if found.sequence is not None else "it has not said how far it is"
    if found.set_back:
        told += ": the record was set back, so that it halts"
    waits = f"the oldest event it lacks is {age_s:.0f} s old" if found.oldest_at is not None else "nothing waits for it"
    said = f"{audit.exporter}: {told}; {waits}"
    if age_s > audit.max_lag_s:
        reason = f"{said}: no new id is claimed above {audit.max_lag_s:.0f} s"
        raise RetryError(Code.AUDIT_BEHIND, reason, hint="does `initiator audit export --follow` run with this name?")
    return said


async def _account(part: str, login: NatsSettings, checks: list[tuple[str, Any]]) -> list[Finding]:
    """One login, and the streams of its account."""
    from initiator.bus.connection import Connection
    from initiator.bus.jetstream import JetStream

    connection = Connection(login, "initiator-check")

    async def connect() -> str:
        await connection.open()
        return connection.describe()

    try:
        findings = [await _try(part, connect)]
        if findings[0].ok:
            js = JetStream(connection, login.jetstream_domain)
            findings += [await _try(name, partial(check, js)) for name, check in checks]
        return findings
    finally:
        await connection.close()
