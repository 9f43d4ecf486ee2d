"""`initiator verify`: is this event signed by this initiator? Needs no configuration and no network.

Exit codes: 0 it is, 1 it is not, 2 no answer (an unusable key, option or file, or bytes that are no such event).
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import IO, cast

import click

from initiator.core.model import Operation
from initiator.core.signer import Algorithm
from initiator.errors import InitiatorError
from initiator.verify import Verdict, verify_event

VALID, INVALID, UNUSABLE = 0, 1, 2
MAX_EVENT_BYTES = 1_048_576  # NATS' own default limit of a message; a file beyond it is no event


@click.command(name="verify", short_help="Check the signature of an event for the nodes.")
@click.option("--pubkey", required=True, metavar="HEX", help="The key, as in event_initiator_pubkey: hex or base64.")
@click.option("--op", "operation", required=True, type=click.Choice([op.value for op in Operation]),
              help="What the event asks for; its bytes do not say it.")  # fmt: skip
@click.option("--algorithm", default="p256", show_default=True, type=click.Choice(["p256", "ed25519"]),
              help="As in event_initiator_algorithm.")  # fmt: skip
@click.option("--authorizer", "authorizers", multiple=True, metavar="ID=ALGORITHM:HEX",
              help="An authorizer who must have signed too (repeatable); without one, none are checked.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="The verdict as one JSON object.")
@click.argument("file", type=click.File("rb"))
def verify(
    pubkey: str, operation: str, algorithm: str, authorizers: tuple[str, ...], as_json: bool, file: IO[bytes]
) -> None:
    """Check that the event in FILE (- for standard input) was signed by the initiator whose public key is given.

    FILE holds the event as the nodes receive it: the JSON of mpcium's keygen, sign or reshare message. Exit code: 0
    valid, 1 invalid, 2 no answer (unusable key or file, or not such an event).
    """
    keys = _authorizers(authorizers)
    data = file.read(MAX_EVENT_BYTES + 1)
    if len(data) > MAX_EVENT_BYTES:
        raise click.UsageError(f"expected an event of at most {MAX_EVENT_BYTES} bytes, got more")
    try:
        verdict = verify_event(
            pubkey, operation, data, algorithm=cast(Algorithm, algorithm), authorizers=keys if keys else None
        )
    except InitiatorError as error:
        raise click.UsageError(_said(error)) from error
    _print(verdict, as_json)
    sys.exit(VALID if verdict.valid else INVALID if verdict.readable else UNUSABLE)


def _authorizers(texts: tuple[str, ...]) -> dict[str, tuple[str, Algorithm]]:
    keys = dict(_authorizer(text) for text in texts)
    if len({name.lower() for name in keys}) != len(texts):
        raise click.BadParameter("expected each ID once (upper and lower case are one)", param_hint="--authorizer")
    return keys


def _authorizer(text: str) -> tuple[str, tuple[str, Algorithm]]:
    name, _, rest = text.partition("=")
    algorithm, _, key = rest.partition(":")
    if not name or algorithm not in ("p256", "ed25519") or not key:
        raise click.BadParameter("expected ID=p256:HEX or ID=ed25519:HEX", param_hint="--authorizer")
    return name, (key, cast(Algorithm, algorithm))


def _said(error: InitiatorError) -> str:
    about = f"{error.field}: " if error.field else ""
    return f"{error.code}: {about}{error.reason}" + (f"\nhint: {error.hint}" if error.hint else "")


def _print(verdict: Verdict, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(asdict(verdict)))
        return
    word = "valid" if verdict.valid else "invalid" if verdict.readable else "unusable"
    # ids of an event are any text, and a terminal obeys control characters
    about = "" if verdict.operation_id is None else f" ({verdict.operation_id[:80]!a})"
    field = f"{verdict.field}: " if verdict.field else ""
    click.echo(f"{word}{about}: {field}{verdict.reason}\nkey: {verdict.key_fingerprint}")
