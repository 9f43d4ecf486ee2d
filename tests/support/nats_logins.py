"""Servers that take NKeys, and credentials files as operators hand them out; all keys are made here, for one test."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from initiator.natsconfig import nkey, token


class Key:
    """A key pair with its public name."""

    def __init__(self, prefix: int) -> None:
        self.seed = nkey.make(prefix)
        self._pair = nkey.Pair(self.seed, prefix)
        self.name = self._pair.public

    def token(self, subject: str, kind: str, **claims: Any) -> str:
        """A JWT about `subject`, signed by this key."""
        about = {"type": kind, "version": 2, **claims}
        return token.mint(self._pair, subject, kind, about, int(time.time()))


def user_key() -> Key:
    return Key(nkey.USER)


def with_operator(folder: Path, **permissions: Any) -> tuple[str, Path]:
    """A server's configuration in operator mode, and a user's credentials file.

    Args:
        permissions: the user's claims, such as `pub` and `sub`.
    """
    operator, account, user = Key(nkey.OPERATOR), Key(nkey.ACCOUNT), user_key()
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
