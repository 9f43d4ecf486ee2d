"""Users' keys of the JWT form: which are in use, and which are void.

What an account's key has signed holds as long as the account does, whatever became of the file that it stood in. So
every key that was ever in use is noted, and one that no login's file holds any more is revoked.
"""

from __future__ import annotations

import json

from initiator.natsconfig.keyring import Keyring, unusable

_NAME = "users.json"
_IN_USE = 0
_FOR_EVER = 253_402_300_799
"""The end of the year 9999: no key that was revoked is used again, and whoever signed may have had a clock ahead."""
_HINT = "restore it from a copy: it keeps out whoever was revoked"


class UserKeys:
    """The keys by account.

    Args:
        begun: nothing was signed before: there is no file yet.

    Raises:
        HaltError: the file is not as it was written, or is not there.
    """

    def __init__(self, keyring: Keyring, *, begun: bool) -> None:
        self._keyring = keyring
        self._known = self._read(begun=begun)
        self._used: dict[str, set[str]] = {}
        self._write()

    def _read(self, *, begun: bool) -> dict[str, dict[str, int]]:
        text = self._keyring.text(_NAME)
        if text is None and not begun:
            raise unusable(self._keyring.path(_NAME), "not there", _HINT)
        try:
            found = json.loads("{}" if text is None else text)
            return {account: {key: int(until) for key, until in keys.items()} for account, keys in found.items()}
        except (ValueError, TypeError, AttributeError):
            raise unusable(self._keyring.path(_NAME), "expected JSON: keys by account", _HINT) from None

    def note(self, account: str, key: str) -> None:
        """A key that is signed next: it is in the file before anybody can have it."""
        self._known.setdefault(account, {}).setdefault(key, _IN_USE)
        self._write()

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
            keys.update(dict.fromkeys(gone, _FOR_EVER))
        self._write()

    def _write(self) -> None:
        self._keyring.file(_NAME, json.dumps(self._known, indent=2) + "\n")

    def revoked(self, account: str) -> dict[str, int]:
        """By key, until when what was signed for it is void."""
        return {key: until for key, until in self._known.get(account, {}).items() if until != _IN_USE}
