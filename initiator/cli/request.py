"""`initiator request`: ask for a wallet, a signature or a reshare; with `--wait`, until it is there."""

from __future__ import annotations

import base64
import binascii
import json
import re
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, BinaryIO, TypeVar

import click

from initiator.cli import client as clients
from initiator.cli import shown
from initiator.cli.client import Login, login
from initiator.cli.seconds import Seconds
from initiator.client import Event, Handle, InitiatorClient, KeyType
from initiator.client.wire import keygen as keygen_request
from initiator.client.wire import reshare as reshare_request
from initiator.client.wire import sign as sign_request
from initiator.core.events import parse_when
from initiator.core.model import Request

Command = TypeVar("Command", bound=Callable[..., Any])
MAX_TX_BYTES = 1_048_576


@click.group(name="request")
def request() -> None:
    """Ask for a wallet, a signature or a reshare.

    The same request again joins the one that is under way and gets the same result. Exit codes: 0 completed (without
    --wait: queued), 2 usage or no login, 3 rejected, 4 failed, 5 still running, 7 unavailable, 8 the result cannot be
    trusted.
    """


def _labels(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for text in values:
        name, equals, value = text.partition("=")
        if not equals or not name or name in found:
            raise click.BadParameter(f"expected KEY=VALUE, each key once, got {text[:64]!a}")
        found[name] = value
    return found


def _expiry(_context: click.Context, _parameter: click.Parameter, value: str | None) -> datetime | None:
    if value is None:
        return None
    now = time.time()
    try:
        at, later = parse_when(value, now), parse_when(value, now + 1)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    # a duration is one that moves with now; it is from now on here, not before now
    try:
        return datetime.fromtimestamp(at if at == later else 2 * now - at, UTC)
    except (ValueError, OverflowError):
        raise click.BadParameter(f"expected a time before the year 9999, got {value[:64]!a}") from None


def _path(_context: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[int, ...]:
    return parse_path(value) if value else ()


def parse_path(text: str) -> tuple[int, ...]:
    """A derivation path such as `44/60/0/0/7` or `m/44/60`; raises BadParameter."""
    levels = text.removeprefix("m/").split("/") if text != "m" else []
    # a typo must not sign with another key
    if not all(re.fullmatch(r"[0-9]{1,10}", level) for level in levels):
        reason = f"expected non-hardened levels such as 44/60/0/0/7, got {text[:64]!a}"
        raise click.BadParameter(reason, param_hint="--path")
    return tuple(int(level) for level in levels)


_COMMON = (
    click.option("--wait", is_flag=True, help="Wait for the result."),
    click.option("--timeout", type=Seconds(86_400), default=120.0, show_default=True, metavar="SECONDS",
                 help="How long --wait waits; it goes on afterwards."),
    click.option("--expires", metavar="TIME", callback=_expiry, help="Deadline: RFC 3339, or from now: 10m, 1h, …"),
    click.option("--label", "labels", metavar="KEY=VALUE", multiple=True, callback=_labels, help="Kept on record."),
    click.option("--retry", metavar="EVENT_ID",
                 help="Go on after this failure with outcome `none`, under the same id."),
)  # fmt: skip


def _common(command: Command) -> Command:
    for option in reversed(_COMMON):
        command = option(command)
    return command


@request.command()
@click.option("--wallet-id", required=True, metavar="ID", help="The new wallet's name.")
@_common
@login
def keygen(found: Login, wallet_id: str, expires: datetime | None, labels: Mapping[str, str], **how: Any) -> None:
    """A new wallet: one secp256k1 and one Ed25519 key."""
    _ask(found, keygen_request(wallet_id, expires_at=expires, labels=labels), **how)


@request.command()
@click.option("--wallet-id", required=True, metavar="ID", help="The wallet that signs.")
@click.option(
    "--key-type", required=True, type=click.Choice([key_type.value for key_type in KeyType]), help="Which of its keys."
)
@click.option("--tx-id", metavar="ID", help="Your id of this transaction (default: a new UUID).")
@click.option("--tx", "tx_hex", metavar="HEX", help="What to sign: for secp256k1 its 32-byte hash.")
@click.option("--tx-base64", metavar="TEXT", help="The same in base64.")
@click.option("--tx-file", type=click.File("rb"), metavar="FILE", help="The same as it is in a file (- for stdin).")
@click.option("--network", "network_internal_code", default="", metavar="CODE", help="network_internal_code.")
@click.option("--path", "derivation_path", metavar="PATH", callback=_path, help="Child key, such as 44/60/0/0/7.")
@_common
@login
def sign(
    found: Login, wallet_id: str, key_type: str, tx_id: str | None, tx_hex: str | None, tx_base64: str | None,
    tx_file: BinaryIO | None, network_internal_code: str, derivation_path: tuple[int, ...], expires: datetime | None,
    labels: Mapping[str, str], **how: Any,
) -> None:  # fmt: skip
    """A signature of a wallet's key, or of its child key at --path."""
    tx = _tx(tx_hex, tx_base64, tx_file)
    asked = sign_request(
        wallet_id=wallet_id, tx_id=tx_id or str(uuid.uuid4()), tx=tx, key_type=key_type,
        network_internal_code=network_internal_code, derivation_path=derivation_path, expires_at=expires,
        labels=labels,
    )  # fmt: skip
    _ask(found, asked, **how)


@request.command()
@click.option("--session-id", metavar="ID", help="Your id of this reshare (default: a new UUID).")
@click.option("--wallet-id", required=True, metavar="ID", help="The wallet.")
@click.option(
    "--key-type", required=True, type=click.Choice([key_type.value for key_type in KeyType]), help="Which of its keys."
)
@click.option("--node", "node_ids", required=True, multiple=True, metavar="ID", help="A node of the new committee.")
@click.option(
    "--threshold",
    "new_threshold",
    required=True,
    type=click.IntRange(1, 2**31 - 1),
    metavar="N",
    help="The new threshold.",
)
@_common
@login
def reshare(
    found: Login, session_id: str | None, wallet_id: str, key_type: str, node_ids: tuple[str, ...],
    new_threshold: int, expires: datetime | None, labels: Mapping[str, str], **how: Any,
) -> None:  # fmt: skip
    """Move a key's shares to other nodes, or to another threshold."""
    asked = reshare_request(
        session_id=session_id or str(uuid.uuid4()), wallet_id=wallet_id, key_type=key_type, node_ids=node_ids,
        new_threshold=new_threshold, expires_at=expires, labels=labels,
    )  # fmt: skip
    _ask(found, asked, **how)


def _tx(in_hex: str | None, in_base64: str | None, file: BinaryIO | None) -> bytes:
    """The one form in which the tx is given."""
    if [in_hex, in_base64, file].count(None) != 2:
        raise click.UsageError("expected exactly one of --tx, --tx-base64 and --tx-file")
    if file is not None:
        try:
            data = file.read(MAX_TX_BYTES + 1)
        except (OSError, ValueError) as error:
            raise click.UsageError(f"--tx-file: cannot be read: {type(error).__name__}") from None
        if len(data) > MAX_TX_BYTES:
            raise click.UsageError(f"--tx-file: expected at most {MAX_TX_BYTES} bytes")
        return data
    try:
        if in_hex is not None:
            return bytes.fromhex(in_hex.removeprefix("0x"))
        return base64.b64decode(in_base64 or "", validate=True)
    except (ValueError, binascii.Error):
        # a payload: what came is not repeated
        what = "--tx: expected pairs of hex digits" if in_hex is not None else "--tx-base64: expected padded base64"
        raise click.UsageError(f"{what}, got {len(in_hex or in_base64 or '')} characters that are not") from None


def _ask(found: Login, asked: Request, *, wait: bool, timeout: float, retry: str | None) -> None:
    began = time.monotonic()
    talks = not found.as_json and sys.stderr.isatty()

    def progress(event: Event) -> None:
        if talks:
            click.echo(f"{event.state:<10} {time.monotonic() - began:6.2f} s", err=True)

    async def act(client: InitiatorClient) -> int:
        if not wait:
            _say_queued(found, await client.submit(asked, retry=retry))
            return clients.DONE
        if talks:  # its id, before anything can come between
            click.echo(f"{asked.operation} {asked.operation_id}", err=True)
        result = await client.request(asked, timeout=timeout, retry=retry, progress=progress)
        if found.as_json:
            said = {"op": asked.operation.value, "id": asked.operation_id, "state": "completed"} | shown.result(result)
            click.echo(json.dumps(said))
        else:
            click.echo("\n".join(shown.lines(result)))
        return clients.DONE

    sys.exit(found.run(act, (asked.operation, asked.operation_id)))


def _say_queued(found: Login, handle: Handle) -> None:
    if found.as_json:
        said = {"op": handle.op.value, "id": handle.id, "state": "queued", "request_seq": handle.sequence}
        click.echo(json.dumps(said))
    else:
        click.echo(
            f"queued: {handle.op} {handle.id} (request {handle.sequence})\n"
            f"ask with: {found.asked_with} --request {handle.sequence}"
        )
