"""What the commands of clients share: the login, the exit codes, and how errors are said.

Exit codes, the same everywhere: 0 completed (or answered), 1 nothing is known, 2 usage or no login, 3 rejected,
4 failed, 5 still running, 7 unavailable, 8 the result cannot be trusted, 70 a bug, 130 interrupted.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, TypeVar

import click

from initiator.client import (
    ClientError,
    DeniedError,
    InitiatorClient,
    NothingSignedError,
    OutcomeUnknownError,
    RejectedError,
    RequestSigner,
    StillRunningError,
    TooLateError,
    UnavailableError,
    UntrustedResultError,
)
from initiator.config import context as contexts
from initiator.core.model import Operation
from initiator.core.text import plain
from initiator.errors import Code

DONE, UNKNOWN, USAGE, REJECTED, FAILED, RUNNING, UNAVAILABLE, UNTRUSTED = 0, 1, 2, 3, 4, 5, 7, 8
INTERRUPTED = 130
Command = TypeVar("Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option("--context", "context_path", metavar="FILE", envvar=contexts.VARIABLE,
                 help="Your login: client, nats, chain_code (default: ~/.config/initiator/client.yaml)."),
    click.option("--server", metavar="URL", envvar="INITIATOR_CLIENT_SERVER", help="NATS."),
    click.option("--client", metavar="NAME", envvar="INITIATOR_CLIENT_NAME", help="Your name at the daemon."),
    click.option("--user", metavar="NAME", envvar="INITIATOR_CLIENT_USER", help="Your name at NATS."),
    click.option("--password-file", metavar="FILE", envvar="INITIATOR_CLIENT_PASSWORD_FILE",
                 help="Your password at NATS."),
    click.option("--creds", metavar="FILE", envvar="INITIATOR_CLIENT_CREDS", help="NATS credentials."),
    click.option("--chain-code", metavar="HEX", envvar="INITIATOR_CLIENT_CHAIN_CODE",
                 help="The cluster's, 64 hex digits: verifies and derives child keys."),
    click.option("--signing-key", metavar="FILE", envvar="INITIATOR_CLIENT_SIGNING_KEY",
                 help="Signs your requests: an NKey seed or PEM."),
    click.option("--json", "as_json", is_flag=True, help="JSON lines, also on a terminal."),
)  # fmt: skip


class Login:
    """Who asks, and how answers are shown.

    Attributes:
        as_json: JSON lines; else words for people.
    """

    def __init__(self, context: contexts.ClientContext, *, as_json: bool) -> None:
        self._context = context
        self.as_json = as_json
        self._about: tuple[str, str] | None = None

    @property
    def chain_code(self) -> str | None:
        return self._context.chain_code

    def run(
        self, action: Callable[[InitiatorClient], Awaitable[int]], about: tuple[Operation | str, str] | None = None
    ) -> int:
        """Connect and act; every error of a call becomes its exit code and a line that says what to do.

        Args:
            about: the operation and its id, which are named in whatever is said.
        """
        self._about = (str(about[0]), about[1]) if about else None
        try:
            return asyncio.run(self._run(action))
        except ClientError as error:
            self.say_error(error)
            return code_of(error)
        except KeyboardInterrupt:
            if self._about:
                click.echo(f"\n{' '.join(self._about)}: what is queued goes on; ask with: {self.asked_with}", err=True)
            return INTERRUPTED

    @property
    def asked_with(self) -> str:
        """The command that asks what became of it."""
        return f"initiator status {' '.join(self._about or ('OP', 'ID'))}"

    async def _run(self, action: Callable[[InitiatorClient], Awaitable[int]]) -> int:
        from initiator.bus.connection import login_options

        nats = self._context.nats
        key, signer = self._context.signing_key_file, None
        if key is not None:
            signer = RequestSigner.from_file(key, audience=self._context.audience)
        connecting = InitiatorClient.connect(
            list(nats.servers), client=self._context.client, chain_code=self._context.chain_code, signer=signer,
            connect_timeout=max(5.0, nats.connect_timeout_s), **login_options(nats),
        )  # fmt: skip
        async with connecting as client:
            return await action(client)

    def say_error(self, error: ClientError) -> None:
        """What a call ended with: JSON on the output, or lines for people beside it."""
        hint = self._hint(error)
        if self.as_json:
            named = dict(zip(("op", "id"), self._about, strict=True)) if self._about else {}
            click.echo(json.dumps(named | _described(error) | ({"hint": hint} if hint else {})))
            return
        about = f"{' '.join(self._about)}: " if self._about else ""
        where = f"{error.field}: " if error.field else ""
        click.echo(f"{about}{_ending(error).word}: {error.code} {where}{plain(error.reason)}", err=True)
        if hint:
            click.echo(f"hint: {hint}", err=True)

    def _hint(self, error: ClientError) -> str:
        """What to do, in commands."""
        match error:
            case NothingSignedError() if error.code == Code.CANCELLED:
                return "it is over for good; what it was for may be asked for under another id"
            case NothingSignedError() if error.event.op is Operation.RESHARE:
                return f"under another session_id, after: {self.asked_with.replace('status', 'cancel', 1)}"
            case NothingSignedError():
                cancel = self.asked_with.replace("status", "cancel", 1)
                return f"again with --retry {error.event.event_id}; under another id only after: {cancel}"
            case OutcomeUnknownError():
                return f"never ask again under another id; a late success may come: {self.asked_with}"
            case StillRunningError():
                return f"it goes on: {self.asked_with}, or the same command again"
            case UnavailableError() if error.maybe_queued and self._about:
                return f"{error.hint + '; ' if error.hint else ''}it may be queued all the same: {self.asked_with}"
        return error.hint or ""


def login(command: Command) -> Command:
    """Options of a command that speaks for a client; it gets a `Login` in their place."""

    def with_login(
        context_path: str | None, server: str | None, client: str | None, user: str | None, password_file: str | None,
        creds: str | None, chain_code: str | None, signing_key: str | None, as_json: bool, **others: Any,
    ) -> Any:  # fmt: skip
        changes = {
            "client": client, "nats.servers": [server] if server else None, "nats.user": user,
            "nats.password_file": password_file, "nats.creds_file": creds, "chain_code": chain_code,
            "signing_key_file": signing_key,
        }  # fmt: skip
        # whoever names a server and a client needs no file, and must not get another stack's password with it
        path = None if server and client and not context_path else contexts.find(context_path)
        found = Login(contexts.load(path, changes), as_json=as_json or not sys.stdout.isatty())
        return command(found, **others)

    wrapped: Any = with_login
    wrapped.__doc__, wrapped.__name__ = command.__doc__, command.__name__
    wrapped.__click_params__ = getattr(command, "__click_params__", [])
    for option in reversed(_OPTIONS):
        wrapped = option(wrapped)
    return wrapped  # type: ignore[no-any-return]


def code_of(error: ClientError) -> int:
    """The exit code of an error."""
    return _ending(error).code


class _Ending(NamedTuple):
    """How a class of errors is told.

    Attributes:
        code: the exit code.
        word: for people.
        state: in JSON.
    """

    code: int
    word: str
    state: str


_ENDINGS: dict[type[ClientError], _Ending] = {
    RejectedError: _Ending(REJECTED, "rejected", "rejected"),
    NothingSignedError: _Ending(FAILED, "failed, nothing was signed", "failed"),
    OutcomeUnknownError: _Ending(FAILED, "failed, outcome unknown", "failed"),
    TooLateError: _Ending(FAILED, "too late", "too_late"),
    StillRunningError: _Ending(RUNNING, "still running", "running"),
    UntrustedResultError: _Ending(UNTRUSTED, "not to be trusted", "untrusted"),
    UnavailableError: _Ending(UNAVAILABLE, "unavailable", "unavailable"),
    DeniedError: _Ending(USAGE, "denied", "denied"),
}


def _ending(error: ClientError) -> _Ending:
    return next(_ENDINGS[kind] for kind in type(error).__mro__ if kind in _ENDINGS)


def _described(error: ClientError) -> dict[str, Any]:
    found: dict[str, Any] = {"state": _ending(error).state, "code": str(error.code)}
    found |= {"field": error.field} if error.field else {}
    found |= {"reason": error.reason}
    if isinstance(error, NothingSignedError | OutcomeUnknownError):
        found |= {"outcome": error.event.outcome, "event_id": error.event.event_id}
    if isinstance(error, StillRunningError):
        found |= {"last": error.state or "queued"}
    if isinstance(error, UnavailableError):
        found |= {"maybe_queued": error.maybe_queued}
    return found
