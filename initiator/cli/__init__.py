"""The command line: a frame that imports each command only when it is used."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import click

from initiator import __version__
from initiator.errors import Code, InitiatorError

if TYPE_CHECKING:
    from initiator.config.load import Loaded

_COMMANDS = {
    "request": ("initiator.cli.request:request", "Ask for a wallet, a signature or a reshare."),
    "status": ("initiator.cli.asking:status", "Say what became of an operation."),
    "cancel": ("initiator.cli.asking:cancel", "End an operation that nothing was signed for."),
    "events": ("initiator.cli.asking:events", "List or follow your events."),
    "wallet": ("initiator.cli.asking:wallet", "Show a wallet's public keys."),
    "run": ("initiator.cli.run:run", "Run the daemon."),
    "top": ("initiator.cli.top:top", "Show what is going on, live."),
    "check": ("initiator.cli.check:check", "Connect to everything and say what is wrong."),
    "freeze": ("initiator.cli.freeze:freeze", "Stop signing, over all replicas."),
    "unfreeze": ("initiator.cli.freeze:unfreeze", "Lift a freeze."),
    "stopline": ("initiator.cli.stopline:stopline", "No more than so many signatures until somebody raises it."),
    "config": ("initiator.cli.config:config", "Show, check or print an example of the configuration."),
    "authorizer": ("initiator.cli.authorizer:authorizer", "Sign what others must sign, too: a service, or a person."),
    "audit": ("initiator.cli.audit:audit", "Export the record as a log, verify and prove it."),
    "policy": ("initiator.cli.policy:policy", "Check, explain and test the policy."),
    "dlq": ("initiator.cli.dlq:dlq", "Show, replay or drop dead letters."),
    "dev": ("initiator.dev.cli:dev", "Run the whole system on this machine, for development."),
    "completion": ("initiator.cli.completion:completion", "Print the completion script of a shell."),
    "nats-config": ("initiator.cli.nats_config:nats_config", "Write nats-server's configuration: accounts, logins."),
    "key": ("initiator.cli.key:key", "Show the public key for the nodes, or make a local one."),
    "verify": ("initiator.cli.verify:verify", "Verify a signed event as the nodes do."),
    "version": ("initiator.cli.version:version", "Print the version."),
}


# of sysexits.h: no other exit code means the same
_BUG, _INPUT_OUTPUT = 70, 74
_PIPE_CLOSED = 141  # as a shell says of SIGPIPE


@dataclass(slots=True)
class CliContext:
    """The global options."""

    config_path: str | None = None
    overrides: dict[str, str] = field(default_factory=dict)
    debug: bool = False

    def load(self) -> Loaded:
        """The effective settings; raises HaltError."""
        from initiator.config.load import load_settings

        return load_settings(self.config_path, self.overrides)


def tell_memory_open(reason: str | None) -> None:
    """One line in the log where `memory.close` could not do all, or was taken back."""
    from initiator.log import get_logger

    if reason:
        get_logger().warning("process.memory_open", reason=reason)


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        near = difflib.get_close_matches(args[0], _COMMANDS, n=1)
        if args[0] not in _COMMANDS and near and not args[0].startswith("-"):
            ctx.fail(f"No such command {args[0]!r}. Did you mean {near[0]!r}?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="initiator")
@click.option("--config", "config_path", metavar="FILE", help="YAML configuration (default: $INITIATOR_CONFIG).")
@click.option(
    "--set", "overrides", metavar="KEY=VALUE", multiple=True, help="Override a setting, such as log.level=debug."
)
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@click.pass_context
def cli(context: click.Context, config_path: str | None, overrides: tuple[str, ...], debug: bool) -> None:
    """The KMS-backed event initiator of an mpcium MPC wallet cluster."""
    parsed = {}
    for item in overrides:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise click.UsageError(f"--set: expected KEY=VALUE, got {item[:64]!r}")
        parsed[key] = value
    context.obj = CliContext(config_path, parsed, debug)


def main() -> None:
    """The console script: every error of ours ends as one line that says what to do."""
    try:
        result = cli(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except SystemExit:
        if "PacifyFlush" in type(sys.stdout).__name__:  # click's sign for a pipe that was closed
            sys.exit(_PIPE_CLOSED)
        raise
    except KeyboardInterrupt:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except InitiatorError as error:
        if "--debug" in sys.argv:
            raise
        click.echo(f"error: {error.code} {error.field + ': ' if error.field else ''}{error.reason}", err=True)
        if error.hint:
            click.echo(f"hint: {error.hint}", err=True)
        sys.exit(2 if error.code is Code.CONFIG_INVALID else 1)
    except Exception as error:
        sys.exit(_unforeseen(error))
    sys.exit(result if isinstance(result, int) else 0)


def _unforeseen(error: Exception) -> int:
    """Say what is no error of ours; returns its exit code."""
    if isinstance(error, BrokenPipeError):
        # whoever read has heard enough; nothing more may be written, not even at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _PIPE_CLOSED
    if "--debug" in sys.argv or not isinstance(error, OSError):
        traceback.print_exception(error)
    if isinstance(error, OSError):
        click.echo(f"error: {error}", err=True)
        return _INPUT_OUTPUT
    click.echo("error: a bug of this program; please report it with the lines above", err=True)
    return _BUG
