"""Servers that take NKeys, and credentials files as operators hand them out; all keys are made here, for one test."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

import nkeys


class Key:
    """A key pair with its public name."""

    def __init__(self, prefix: int) -> None:
        self.seed: bytes = nkeys.encode_seed(os.urandom(32), prefix)
        self._pair = nkeys.from_seed(bytearray(self.seed))
        self.name: str = self._pair.public_key.decode()

    def token(self, subject: str, kind: str, **claims: Any) -> str:
        """A JWT about `subject`, signed by this key."""
        body = {
            "iat": int(time.time()), "iss": self.name, "sub": subject, "name": kind,
            "nats": {"type": kind, "version": 2, **claims},
        }  # fmt: skip
        body["jti"] = base64.b32encode(hashlib.sha256(_compact(body)).digest()).decode().rstrip("=")
        signed = f"{_part({'typ': 'JWT', 'alg': 'ed25519-nkey'})}.{_part(body)}"
        return f"{signed}.{_plain(self._pair.sign(signed.encode()))}"


def user_key() -> Key:
    return Key(nkeys.PREFIX_BYTE_USER)


def with_operator(folder: Path, **permissions: Any) -> tuple[str, Path]:
    """A server's configuration in operator mode, and a user's credentials file.

    Args:
        permissions: the user's claims, such as `pub` and `sub`.
    """
    operator, account, user = Key(nkeys.PREFIX_BYTE_OPERATOR), Key(nkeys.PREFIX_BYTE_ACCOUNT), user_key()
    unlimited = dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn", "leaf"), -1)
    about_account = operator.token(account.name, "account", limits=unlimited | {"wildcards": True})
    unlimited_user = dict.fromkeys(("subs", "data", "payload"), -1)
    about_user = account.token(user.name, "user", **unlimited_user, **permissions)
    path = folder / "user.creds"
    path.touch(mode=0o600)
    path.write_text(
        f"-----BEGIN NATS USER JWT-----\n{about_user}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user.seed.decode()}\n------END USER NKEY SEED------\n"
    )
    about_operator = operator.token(operator.name, "operator")
    config = f"operator: {about_operator}\nresolver: MEMORY\nresolver_preload: {{ {account.name}: {about_account} }}\n"
    return config, path


def _compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _part(value: Any) -> str:
    return _plain(_compact(value))


def _plain(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
