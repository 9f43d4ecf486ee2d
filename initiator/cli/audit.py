"""`initiator audit`: the record as a log that an outsider verifies, and what an auditor does with it."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from initiator.cli import CliContext, tell_memory_open
from initiator.core.model import Operation
from initiator.core.text import plain
from initiator.errors import Code, HaltError, InitiatorError, RejectError

if TYPE_CHECKING:
    from initiator.audit.checks import Report
    from initiator.audit.cloudtrail import Reconciliation
    from initiator.audit.reading import LogReader
    from initiator.audit.service import Service
    from initiator.audit.store import Store
    from initiator.config.schema import Settings
    from initiator.core.tlog import Checkpoint

MOST_SHOWN = 50
_LOG = click.argument("place", metavar="LOG")
_KEY = click.option("--key", "key_text", required=True, metavar="VKEY", help="The log's public key, or a file with it.")
_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON object.")


@click.group()
def audit() -> None:
    """Export the record as a log, verify it, prove what is in it, hold it against KMS's own log."""


@audit.command()
@click.argument("path", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--name", required=True, help="The log's name, such as audit.example.com/initiator.")
def key(path: Path, name: str) -> None:
    """Make the key that signs a log. Prints its public key, which auditors need; the file stays with the exporter."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from initiator.cli.key import write_key
    from initiator.core.tlog import LogKey, check_name, format_signer_key

    made = Ed25519PrivateKey.generate()
    write_key(path, f"{format_signer_key(check_name(name), made)}\n")
    click.echo(LogKey(name, made.public_key().public_bytes_raw()).text)


# --- export


@audit.command()
@_LOG
@click.option("--key-file", required=True, type=click.Path(dir_okay=False, path_type=Path), help="See `audit key`.")
@click.option("--follow", is_flag=True, help="Go on as the record grows, until SIGTERM; waits for what is away.")
@_JSON
@click.pass_obj
def export(context: CliContext, place: str, key_file: Path, follow: bool, as_json: bool) -> None:
    """Write what the record has, and the log has not yet, into LOG: a folder, or s3://BUCKET/PREFIX.

    It reads the daemon's configuration; its login may be an auditor's.
    """
    from initiator import log, memory

    unclosed = memory.close()
    settings = context.load().settings
    log.configure(settings.log)
    tell_memory_open(unclosed)
    service = asyncio.run(_export(settings, partial(_store, place, writing=True), key_file, follow))
    said = {"size": service.size, "sequence": service.sequence}
    if as_json:
        click.echo(json.dumps(said))
    else:
        click.echo(f"{service.size} entries, up to sequence {service.sequence} of the record")


def _store(place: str, *, writing: bool = False) -> Store:
    """What a log lies in; AWS's library, which takes its time, only where it is S3."""
    from initiator.audit.store import S3_SCHEME, FileStore

    _refuse_s3(place, S3_SCHEME, "LOG: expected a folder, or s3://BUCKET/PREFIX (a folder of that name: ./s3:…)")
    if not place.startswith(S3_SCHEME):
        return FileStore.open_for_writing(Path(place)) if writing else FileStore(Path(place))
    from initiator.audit.s3 import S3Store

    return S3Store.open_for_writing(place) if writing else S3Store(place)


def _refuse_s3(place: str, but: str | None, expected: str) -> None:
    """Raises UsageError: what looks like S3 would be taken for a folder."""
    if place.lower().startswith("s3:") and not (but and place.startswith(but)):
        raise click.UsageError(f"{expected}, got {plain(place)[:80]}")


async def _export(settings: Settings, open_store: Callable[[], Store], key_file: Path, follow: bool) -> Service:
    from initiator.audit.service import Service
    from initiator.core.tlog import parse_signer_key

    name, signing_key = parse_signer_key(_read_private(key_file))
    _refuse_initiators_key(settings, signing_key.public_key().public_bytes_raw())
    service, stop = Service(settings, open_store, signing_key, name, partial(click.echo, err=True)), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT) if follow else ():
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        await (service.follow(stop) if follow else service.once())
    finally:
        await service.close()
    return service


def _read_private(path: Path) -> str:
    try:
        if path.stat().st_mode & 0o077:
            raise HaltError(Code.KEY_FILE_INVALID, f"{path}: expected a file that only its owner can read", field="key")
        return path.read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "no text"
        raise HaltError(Code.KEY_FILE_INVALID, f"{path}: {reason}", field="key") from None


def _refuse_initiators_key(settings: Settings, public: bytes) -> None:
    # one key for both: what signs for the auditors could then sign for the nodes
    pinned = (settings.mpcium.event_initiator_pubkey or "").lower().removeprefix("0x")
    if pinned == public.hex():
        raise HaltError(Code.KEY_FILE_INVALID, "expected another key than the event initiator's", field="key")


# --- verify


@audit.command()
@_LOG
@_KEY
@click.option(
    "--initiator-key",
    "initiator_keys",
    multiple=True,
    metavar="KEY",
    help="event_initiator_pubkey of the nodes, hex or base64: verifies every signature. Each there ever was.",
)
@click.option("--algorithm", type=click.Choice(["p256", "ed25519"]), default="p256", show_default=True, help="Of it.")
@click.option(
    "--since",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="An older checkpoint of this log: a copy of LOG/checkpoint.",
)
@_JSON
def verify(
    place: str, key_text: str, initiator_keys: tuple[str, ...], algorithm: Any, since: Path | None, as_json: bool
) -> None:
    """Check all that a log's files say. Exit code 0: all of it holds; 1: not, and where."""
    from initiator.audit.checks import Auditor
    from initiator.core.spki import parse_public_key

    initiators = [parse_public_key(text, algorithm) for text in initiator_keys]
    try:
        reader = _reader(place, key_text)
        older = _older(since, key_text) if since else None
    except RejectError as error:
        _say_broken(error, as_json)
        sys.exit(1)
    report = Auditor(reader, initiators, older).check()
    _print_report(report, bool(initiators), as_json)
    sys.exit(0 if report.ok else 1)


def _older(path: Path, key_text: str) -> Checkpoint:
    """A checkpoint that an auditor kept; raises RejectError."""
    from initiator.core.tlog import open_checkpoint

    try:
        return open_checkpoint(path.read_bytes(), _log_key(key_text))
    except RejectError as error:
        reason = f"expected a copy of LOG/checkpoint as it was before, signed by this log's key, got {plain(str(path))}"
        raise RejectError(error.code, f"{reason}: {error.reason}", field="--since") from error


def _say_broken(error: InitiatorError, as_json: bool) -> None:
    what = f"{error.field}: {error.reason}" if error.field else error.reason
    if as_json:
        click.echo(json.dumps({"ok": False, "findings": [{"what": what}]}, indent=2))
    else:
        click.echo(f"FAIL {what}")


def _print_report(report: Report, signatures: bool, as_json: bool) -> None:
    if as_json:
        findings = [
            {"what": one.what, "entry": one.index, "sequence": one.sequence, "subject": one.subject}
            for one in report.findings
        ]
        said = {"ok": report.ok, "size": report.size, "root": report.root.hex(), "counts": dict(report.counts)}
        click.echo(json.dumps(said | {"signatures_verified": signatures, "findings": findings}, indent=2))
        return
    for finding in report.findings[:MOST_SHOWN]:
        click.echo(f"FAIL {finding}")
    if len(report.findings) > MOST_SHOWN:
        click.echo(f"… and {len(report.findings) - MOST_SHOWN} more")
    click.echo(f"{'ok' if report.ok else 'NOT ok'}: {report.size} entries, root {report.root.hex()}")
    for what, count in sorted(report.counts.items()):
        click.echo(f"  {count} {what}")
    if not signatures:
        click.echo("  signatures were not verified: that needs --initiator-key")


def _reader(place: str, key_text: str) -> LogReader:
    from initiator.audit.reading import LogReader

    return LogReader(_store(place), _log_key(key_text))


def _log_key(text: str) -> Any:
    """A verifier key, as it stands or in a file."""
    from initiator.core.tlog import parse_log_key

    path = Path(text)
    return parse_log_key(path.read_text() if "+" not in text and path.is_file() else text)


# --- prove


@audit.command()
@_LOG
@click.argument("op", type=click.Choice([op.value for op in Operation]))
@click.argument("operation_id", metavar="ID")
@_KEY
def prove(place: str, op: str, operation_id: str, key_text: str) -> None:
    """Print a proof of one operation: its events, and that they are in the log. It holds its signed bytes."""
    from initiator.audit import proofs

    click.echo(proofs.prove(_reader(place, key_text), Operation(op), operation_id))


@audit.command("check-proof")
@click.argument("proof", type=click.File("r"))
@_KEY
@_JSON
def check_proof(proof: Any, key_text: str, as_json: bool) -> None:
    """Verify a proof with nothing but the log's public key. Exit code 0: it holds; 1: not."""
    from initiator.audit import proofs

    try:
        proven = proofs.check(proof.read(), _log_key(key_text))
    except RejectError as error:
        _say_broken(error, as_json)
        sys.exit(1)
    rows = [{"entry": index, "stored_at": one.stored_at, "subject": one.subject} for index, one in proven.entries]
    if as_json:
        said = {"ok": True, "size": proven.checkpoint.size, "root": proven.checkpoint.root.hex(), "entries": rows}
        click.echo(json.dumps(said, indent=2))
        return
    click.echo(f"ok: in the log {proven.checkpoint.origin} of {proven.checkpoint.size} entries")
    for row in rows:
        click.echo(f"  {row['stored_at']}  {row['subject']}  (entry {row['entry']})")


# --- reconcile


@audit.command()
@_LOG
@click.argument("cloudtrail", nargs=-1, required=True, type=click.Path(path_type=Path))
@_KEY
@click.option("--kms-key", "kms_keys", multiple=True, help="ARN of a key that counts; default: those on record.")
@_JSON
def reconcile(
    place: str, cloudtrail: tuple[Path, ...], key_text: str, kms_keys: tuple[str, ...], as_json: bool
) -> None:
    """Hold the log against KMS's own: CloudTrail's files, or folders of them.

    Exit code 1: one side lacks something, or there was nothing to compare.
    """
    from initiator.audit import cloudtrail as trail

    files = list(_files(cloudtrail))
    reader = _reader(place, key_text)
    found = trail.reconcile(trail.calls(files), trail.signatures(reader), frozenset(kms_keys))
    _print_reconciliation(found, as_json)
    sys.exit(0 if found.ok else 1)


def _files(paths: tuple[Path, ...]) -> Iterator[Path]:
    for path in paths:
        _refuse_s3(
            str(path), None, "CLOUDTRAIL: expected files or folders of this machine (`aws s3 sync` fetches them)"
        )
        if not path.is_dir():
            yield path
            continue
        found = sorted(one for pattern in ("*.json", "*.json.gz") for one in path.rglob(pattern))
        if not found:
            raise click.UsageError(f"CLOUDTRAIL: expected *.json or *.json.gz, got {plain(str(path))} without any")
        yield from found


def _print_reconciliation(found: Reconciliation, as_json: bool) -> None:
    if as_json:
        from dataclasses import asdict

        click.echo(json.dumps({"ok": found.ok} | asdict(found), indent=2))
        return
    for call in found.only_kms:
        click.echo(f"only KMS: {call.time} {call.request_id} by {call.principal} from {call.source}")
    for one in found.only_trail:
        click.echo(f"only the log: {one.stored_at} {one.request_id} {one.subject} (entry {one.index})")
    if found.nothing:
        click.echo(f"nothing was compared: {found.nothing}")
    click.echo(f"{'ok' if found.ok else 'NOT ok'}: {found.matched} on both sides, {found.failed} refused by KMS")
    if found.later:
        click.echo(f"  {found.later} newer than the last call in these files: they may not be delivered yet")
    if found.local:
        click.echo(f"  {found.local} by a local key, which no log of KMS has")
