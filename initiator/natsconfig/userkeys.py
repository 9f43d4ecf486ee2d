"""Users' keys of the JWT form: which are in use, and which are void.

What an account's key has signed holds as long as the account does, whatever became of the file that it stood in. So
every key that was ever in use is noted, and one that no login's file holds any more is revoked.
"""

from __future__ import annotations

import json

from initiator.natsconfig.keyring import Keyring, unusable

_NAME = "users.json"
_IN_USE = 0


class UserKeys:
    """The keys by account.

    Args:
        now: seconds since 1970; what was signed until then is void with its key.

    Raises:
        HaltError: the file is not as it was written.
    """

    def __init__(self, keyring: Keyring, now: int) -> None:
        self._keyring, self._now = keyring, now
        self._known = self._read()
        self._used: dict[str, set[str]] = {}

    def _read(self) -> dict[str, dict[str, int]]:
        try:
            found = json.loads(self._keyring.text(_NAME) or "{}")
            return {account: {key: int(until) for key, until in keys.items()} for account, keys in found.items()}
        except (ValueError, TypeError, AttributeError):
            hint = "restore it from a copy: it keeps out whoever was revoked"
            raise unusable(self._keyring.path(_NAME), "expected JSON: keys by account", hint) from None

    def use(self, account: str, key: str, file: str) -> None:
        """Note that a login's file holds this key. Raises HaltError for one that was revoked."""
        if self._known.get(account, {}).get(key, _IN_USE) != _IN_USE:
            raise unusable(self._keyring.path(file), "its key was revoked", "remove it: a new one is made")
        self._known.setdefault(account, {})[key] = _IN_USE
        self._used.setdefault(account, set()).add(key)

    def close(self) -> None:
        """All that are in use have been named: the others are void from now on."""
        for account, keys in self._known.items():
            gone = {key for key, until in keys.items() if until == _IN_USE} - self._used.get(account, set())
            keys.update(dict.fromkeys(gone, self._now))
        self._keyring.file(_NAME, json.dumps(self._known, indent=2) + "\n")

    def revoked(self, account: str) -> dict[str, int]:
        """By key, until when what was signed for it is void."""
        return {key: until for key, until in self._known.get(account, {}).items() if until != _IN_USE}
