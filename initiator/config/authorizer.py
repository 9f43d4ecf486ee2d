"""Settings of an authorizer: one small file of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from initiator.config.load import read_file, section_from
from initiator.config.schema import LogSettings, NatsSettings
from initiator.config.section import Section
from initiator.config.signers import LocalKeySettings
from initiator.core.authorization import is_authorizer
from initiator.errors import Code, HaltError

_HINT = "docs/authorizers.md has the form, deploy/authorizer.example.yaml an example"


class AuthorizerSettings(Section):
    """An authorizer."""

    authorizer_id: str = Field(description="your id in the nodes' authorization.authorizer_public_keys, in lower case")
    nats: NatsSettings = Field(default_factory=NatsSettings, description="your NATS login; as the daemon's own `nats`")
    key: LocalKeySettings = Field(
        default_factory=LocalKeySettings, description="your key; as the daemon's signer.local"
    )
    event_initiator_pubkey: str = Field(description="the pin: the nodes' event_initiator_pubkey, hex or base64")
    event_initiator_algorithm: Literal["p256", "ed25519"] = Field("p256", description="the nodes' own setting")
    policy: str | None = Field(None, description="file of rules: what they allow is signed, what they deny is denied")
    unmatched: Literal["leave", "deny"] = Field("leave", description="what becomes of what no rule allows or denies")
    decisions: str | None = Field(
        None,
        description="absolute path of the file (SQLite) of what was signed: no id twice, over restarts too; "
        "default: in memory",
    )
    audience: str = Field("initiator", description="the daemon's policy.audience, which requesters sign for")
    log: LogSettings = Field(default_factory=LogSettings)


def load_authorizer(path: str) -> AuthorizerSettings:
    """The settings in a file.

    Raises:
        HaltError: `CONFIG_INVALID`, with every error.
    """
    settings = section_from(AuthorizerSettings, read_file(path), path, hint=_HINT)
    if not is_authorizer(settings.authorizer_id):
        reason = f"expected lower-case letters, digits, _ and -, got {settings.authorizer_id[:64]!a}"
        raise HaltError(Code.CONFIG_INVALID, reason, field="authorizer_id", hint=_HINT)
    if settings.decisions is not None and not Path(settings.decisions).is_absolute():
        # two files, by two working directories, would know nothing of each other
        reason = f"expected an absolute path, got {settings.decisions[:64]!a}"
        raise HaltError(Code.CONFIG_INVALID, reason, field="decisions", hint=_HINT)
    return settings
