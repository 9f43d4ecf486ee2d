"""Where a client's commands find their login: one small file, named or in one of two well-known places."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from initiator.config.load import read_file, section_from
from initiator.config.schema import NatsSettings
from initiator.config.section import Section, Token
from initiator.errors import Code, HaltError

VARIABLE = "INITIATOR_CLIENT_CONTEXT"
_HINT = "a login is a YAML file: client: NAME, nats: {servers: [URL], user: …, password_file: …}; see docs/clients.md"


class ClientContext(Section):
    """A client's login."""

    client: Token = Field(description="your name in the daemon's configuration: the token in your subjects")
    nats: NatsSettings = Field(default_factory=NatsSettings, description="your NATS login; as the daemon's own `nats`")
    chain_code: str | None = Field(
        None, pattern=r"^[0-9a-fA-F]{64}$", description="the cluster's chain_code (64 hex digits): derives child keys"
    )


def own_path(environ: Mapping[str, str] = os.environ) -> Path:
    """The user's own file."""
    home = environ.get("XDG_CONFIG_HOME") or Path(environ.get("HOME", "/")) / ".config"
    return Path(home) / "initiator" / "client.yaml"


def development_path(environ: Mapping[str, str] = os.environ) -> Path:
    """What a running `initiator dev` leaves for its user's commands."""
    home = environ.get("XDG_STATE_HOME") or Path(environ.get("HOME", "/")) / ".local" / "state"
    return Path(home) / "initiator" / "dev.json"


def find(named: str | None, environ: Mapping[str, str] = os.environ) -> Path | None:
    """The file that counts: the named one, the variable's, the user's own, the running development stack's."""
    if chosen := named or environ.get(VARIABLE):
        return Path(chosen)
    return next((path for path in (own_path(environ), development_path(environ)) if path.is_file()), None)


def load(path: Path | None, changes: Mapping[str, Any]) -> ClientContext:
    """A login from its file, with single values changed.

    Args:
        changes: by dotted key; None: not changed.

    Raises:
        HaltError: `CONFIG_INVALID`, with every error.
    """
    if path and not path.is_file():
        raise HaltError(Code.CONFIG_INVALID, f"{path}: no such file", field="--context", hint=_HINT)
    content = read_file(str(path)) if path else {}
    for dotted, value in changes.items():
        if value is not None:
            *sections, last = dotted.split(".")
            into = content
            for section in sections:
                into = into.setdefault(section, {})
            into[last] = value
    if path is None and "client" not in content:
        reason = f"no --context, no {own_path()}, and no `initiator dev` runs"
        raise HaltError(Code.CONFIG_INVALID, reason, field="login", hint=_HINT)
    return section_from(ClientContext, content, str(path or "login"), hint=_HINT)
