"""A folder of keys: made once in files of their owner's alone, and never overwritten.

Invariants: a secret is written to a new file of mode 0600 or not at all; a secret that is there is used as it is; one
that others can read is refused, since it is none any more. Certificates are no secrets: others may read them.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

from initiator.errors import Code, HaltError
from initiator.files import sync_folder

_OTHERS = 0o077
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Keyring:
    """One folder.

    Attributes:
        made: the secrets that this run made, as paths in the folder.
        changed: the other files that this run wrote.
        removed: the files that this run took away.

    Raises:
        HaltError: `CONFIG_INVALID`: the folder's name can stand in no configuration.
    """

    def __init__(self, folder: Path) -> None:
        # nats-server takes `$NAME` in some paths for a variable, and not every reader knows every escape
        if not str(folder).isprintable() or "$" in str(folder):
            reason = f"expected a path of printable characters without $, got {ascii(str(folder))[:128]}"
            raise HaltError(Code.CONFIG_INVALID, reason, field="FOLDER")
        self.folder = folder
        self.made: list[str] = []
        self.changed: list[str] = []
        self.removed: list[str] = []
        self._used: set[str] = set()

    def path(self, name: str) -> Path:
        return self.folder / name

    def secret(self, name: str, make: Callable[[], bytes]) -> bytes:
        """The secret of that name, made if it is not there.

        Raises:
            HaltError: it is there, but not for us alone; or it cannot be read or written.
        """
        return self._once(name, make, _OTHERS)

    def certificate(self, name: str, make: Callable[[], bytes]) -> bytes:
        """What is made once like a secret, and is none: everybody may read it. Raises HaltError."""
        return self._once(name, make, 0)

    def _once(self, name: str, make: Callable[[], bytes], not_for: int) -> bytes:
        self._used.add(name)
        try:
            found = self._read(name, not_for)
            if found is not None:
                return found
            content = make()
            self._write_new(name, content)
        except OSError as error:
            raise unusable(self.path(name), str(error.strerror)) from None
        self.made.append(name)
        return content

    def _read(self, name: str, not_for: int) -> bytes | None:
        path = self.path(name)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        with os.fdopen(descriptor, "rb") as file:
            if mode := os.fstat(descriptor).st_mode & not_for:
                raise unusable(path, f"expected mode 0600, got one that others may use ({mode:03o})", "chmod 600 it")
            content = file.read()
        if not content:
            raise unusable(path, "empty", "remove it: a new one is made")
        return content

    def text(self, name: str) -> str | None:
        """What a file says; None where there is none.

        Raises:
            HaltError: it is no text, or cannot be read.
        """
        try:
            return self.path(name).read_text("utf-8")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise unusable(self.path(name), str(error.strerror)) from None
        except UnicodeDecodeError:
            raise unusable(self.path(name), "expected text in UTF-8") from None

    def remove(self, name: str) -> None:
        """Take a file away that opens nothing any more, if it is there. Raises HaltError."""
        try:
            self.path(name).unlink()
        except FileNotFoundError:
            return
        except OSError as error:
            raise unusable(self.path(name), str(error.strerror)) from None
        self.removed.append(name)

    def _write_new(self, name: str, content: bytes) -> None:
        path = self.path(name)
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        with os.fdopen(os.open(path, _NEW, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # power loss: an empty list of the revoked would let them in

    def file(self, name: str, content: str, *, once: bool = False) -> None:
        """A file of no secret of its own, written whole or not at all.

        Args:
            once: it is its reader's from then on: what is there stays.
        """
        self._used.add(name)
        path = self.path(name)
        try:
            if path.exists() and (once or path.read_bytes() == content.encode()):
                return
        except OSError as error:
            raise unusable(path, str(error.strerror)) from None
        self.replace(name, content.encode())

    def replace(self, name: str, content: bytes) -> None:
        """A file anew, all at once; a secret's around the same secret (as a user's JWT beside its seed).

        Raises:
            HaltError: it cannot be written.
        """
        beside = f"{name}.{secrets.token_hex(6)}"
        try:
            self._write_new(beside, content)
            self.path(beside).replace(self.path(name))
            sync_folder(self.path(name).parent)
        except OSError as error:
            raise unusable(self.path(name), str(error.strerror)) from None
        if name not in self.changed:
            self.changed.append(name)

    def strays(self, under: str) -> Iterator[str]:
        """Files there that this run had no use for."""
        for path in sorted(self.path(under).glob("*")):
            name = str(path.relative_to(self.folder))
            if name not in self._used:
                yield name


def unusable(path: Path, reason: str, hint: str | None = None) -> HaltError:
    """A file that is not as it must be."""
    return HaltError(Code.CONFIG_INVALID, reason, field=str(path), hint=hint)
