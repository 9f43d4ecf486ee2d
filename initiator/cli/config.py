"""`initiator config`: what is in force, whether it is right, and an example of every key."""

from __future__ import annotations

import json
from typing import Any

import click

from initiator.cli import CliContext
from initiator.config.schema import Settings

WIDTH = 72


@click.group()
def config() -> None:
    """Show, check or print an example of the configuration."""


@config.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def show(context: CliContext, as_json: bool) -> None:
    """Print every effective setting and where it came from; secrets are redacted."""
    from initiator.config.example import flatten

    loaded = context.load()
    rows = [(key, value, loaded.sources.get(key, "default")) for key, value in flatten(loaded.settings).items()]
    if as_json:
        click.echo(json.dumps({key: {"value": value, "source": source} for key, value, source in rows}, indent=2))
        return
    width = min(WIDTH, max(len(f"{key}: {_text(value)}") for key, value, _ in rows))
    for key, value, source in rows:
        click.echo(f"{f'{key}: {_text(value)}':<{width}}  # {source}")


def _text(value: Any) -> str:
    return json.dumps(value)


@config.command()
@click.pass_obj
def check(context: CliContext) -> None:
    """Read the configuration, and the policy that it names, and say what is wrong; connects to nothing."""
    settings = context.load().settings
    if settings.policy.file is not None:
        from initiator.config.policyfile import load_policy

        load_policy(settings.policy.file)
    click.echo("ok")
    for missing in _missing(settings):
        click.echo(f"to run it needs {missing}", err=True)


def _missing(settings: Settings) -> list[str]:
    """What may be left open in a configuration, but not by a daemon that is to serve somebody."""
    signer = settings.signer
    wanted = {
        "signer.kms.key_id": signer.type == "kms" and not signer.kms.targets,
        "signer.local.path": signer.type == "local" and not signer.local.path,
        "clients: without one nobody may ask for anything": not settings.clients,
    }
    return [name for name, missing in wanted.items() if missing]


@config.command()
def example() -> None:
    """Print a configuration file with every key, its default and its unit."""
    from initiator.config.example import render

    click.echo(render(), nl=False)
