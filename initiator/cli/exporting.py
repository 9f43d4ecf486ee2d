"""A payload into a file of its owner's alone. What it holds may be a transaction: it is written where it was asked for,
whole or not at all, and over nothing that was not meant.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
import sys
from pathlib import Path

import click

from initiator.core.text import plain

STDOUT = "-"
_MODE = 0o600


def check(path: str, *, force: bool) -> None:
    """Raises UsageError where nothing can be written; asked before anything is connected."""
    if path == STDOUT:
        if sys.stdout.isatty():
            raise click.UsageError("--export -: expected a pipe or a file on the output, got a terminal")
        return
    shown = plain(path)
    if not Path(path).parent.is_dir():
        raise click.UsageError(f"--export: expected a file in a directory that is there, got {shown}")
    try:
        found = Path(path).lstat()
    except OSError:
        return
    if not stat.S_ISREG(found.st_mode):  # a link or a device: --force replaces a file, and follows nothing
        raise click.UsageError(f"--export: expected a plain file, got {shown}, which is none")
    if not force:
        raise click.UsageError(f"--export: expected a new file, or --force, got {shown}, which exists")


def write(path: str, data: bytes, *, force: bool) -> None:
    """The exact bytes. Raises ClickException where that fails; then nothing is left behind."""
    try:
        if path == STDOUT:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
            return
        _save(Path(path), data, force=force)
    except OSError as error:
        raise click.ClickException(f"--export: {plain(path)}: {error.strerror or error}") from None
    digest = hashlib.sha256(data).hexdigest()
    click.echo(f"{len(data)} bytes written to {plain(path)} (mode {_MODE:04o}), sha256 {digest}")


def _save(path: Path, data: bytes, *, force: bool) -> None:
    # beside it first: whoever has the old file open, or may read it, gets nothing of the new one
    made = path.with_name(f".dlq-{secrets.token_hex(8)}") if force else path
    descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, _MODE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, _MODE)
            file.write(data)
        if force:
            made.replace(path)
    except BaseException:
        made.unlink(missing_ok=True)
        raise
