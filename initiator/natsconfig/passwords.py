"""Passwords and their bcrypt hashes: the server's configuration holds the hash alone."""

from __future__ import annotations

import secrets

import bcrypt

_COST = 11  # nats-server's own choice; a password of 192 random bits needs none, one that a person chose does
_LIMIT = 72


def make() -> bytes:
    """A new password of 192 random bits."""
    return secrets.token_urlsafe(24).encode()


def problem(password: bytes) -> str | None:
    """Why a password that a person chose can be none; None if it can."""
    if len(password) > _LIMIT:
        return f"expected at most {_LIMIT} bytes (bcrypt reads no more), got {len(password)}"
    try:
        text = password.decode()
    except UnicodeDecodeError:
        return "expected text in UTF-8"
    return None if text and text.isprintable() else "expected one line of printable characters"


def hashed(password: bytes) -> bytes:
    """The bcrypt hash of a password."""
    return bcrypt.hashpw(password, bcrypt.gensalt(_COST))


def matches(password: bytes, known: bytes) -> bool:
    """Whether a hash is that password's."""
    try:
        return bcrypt.checkpw(password, known)
    except ValueError:  # no bcrypt hash at all
        return False
