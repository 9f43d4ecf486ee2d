"""Passwords and their bcrypt hashes: the server's configuration holds the hash alone."""

from __future__ import annotations

import secrets

import bcrypt

_COST = 11  # nats-server's own choice; a password of 192 random bits needs none, one that a person chose does


def make() -> bytes:
    """A new password of 192 random bits."""
    return secrets.token_urlsafe(24).encode()


def hashed(password: bytes) -> bytes:
    """The bcrypt hash of a password."""
    return bcrypt.hashpw(password, bcrypt.gensalt(_COST))


def matches(password: bytes, known: bytes) -> bool:
    """Whether a hash is that password's."""
    try:
        return bcrypt.checkpw(password, known)
    except ValueError:  # no bcrypt hash at all
        return False
