"""`initiator completion`: what a shell needs to complete commands, options and choices."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

_PLACES = {
    "bash": 'eval "$(initiator completion bash)" in ~/.bashrc',
    "zsh": 'eval "$(initiator completion zsh)" in ~/.zshrc',
    "fish": "initiator completion fish > ~/.config/fish/completions/initiator.fish",
}


@click.command(epilog="To use it: " + "; ".join(_PLACES.values()))
@click.argument("shell", type=click.Choice(list(_PLACES)))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script of a shell."""
    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"click knows no {shell}")
    root = context.find_root().command
    click.echo(found(root, {}, "initiator", "_INITIATOR_COMPLETE").source())
