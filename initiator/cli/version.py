"""`initiator version`."""

from __future__ import annotations

import json
import platform

import click

from initiator import __version__


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def version(as_json: bool) -> None:
    """Print the version."""
    if as_json:
        click.echo(json.dumps({"initiator": __version__, "python": platform.python_version()}))
    else:
        click.echo(f"initiator {__version__} (Python {platform.python_version()})")
