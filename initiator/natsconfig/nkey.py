"""NKeys: Ed25519 keys in NATS' own text form; the only importer of `nkeys`."""

from __future__ import annotations

import os

import nkeys

OPERATOR: int = nkeys.PREFIX_BYTE_OPERATOR
ACCOUNT: int = nkeys.PREFIX_BYTE_ACCOUNT
USER: int = nkeys.PREFIX_BYTE_USER
_LETTERS = {OPERATOR: "O", ACCOUNT: "A", USER: "U"}


def make(kind: int) -> bytes:
    """The seed of a new key."""
    seed: bytes = nkeys.encode_seed(os.urandom(32), kind)
    return seed


class Pair:
    """A key that signs, and its public name.

    Raises:
        ValueError: no seed of that kind.
    """

    __slots__ = ("_pair", "public")

    def __init__(self, seed: bytes, kind: int) -> None:
        try:
            self._pair = nkeys.from_seed(bytearray(seed.strip()))
            self.public: str = self._pair.public_key.decode()
        except Exception:  # nkeys and PyNaCl tell in many ways, and may quote
            raise ValueError("no NKey seed") from None
        if not self.public.startswith(_LETTERS[kind]):
            raise ValueError(f"expected an NKey that begins with {_LETTERS[kind]}, got {self.public[0]}")

    def sign(self, data: bytes) -> bytes:
        signature: bytes = self._pair.sign(data)
        return signature
