"""Wallets that were made before this daemon: their public keys, so that their signatures can be verified.

The file holds mpcium's own keygen results, one JSON object a line, as its nodes publish them or its clients keep them.
A line may also name the `client` that the wallet belongs to, for policies that ask who owns it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from initiator.core import codec
from initiator.core.model import ContentType, Operation
from initiator.core.result import parse_result
from initiator.core.subjects import is_client
from initiator.core.wallet import WalletKeys, check_keygen
from initiator.errors import Code, HaltError, RejectError

_FIELD = "mpcium.wallets_file"


@dataclass(frozen=True, slots=True)
class Wallets:
    """Public keys, and the clients that own them where the file says so, by wallet id."""

    keys: dict[str, WalletKeys] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)


def load_wallets(path: str | None) -> Wallets:
    """What the file says; nothing without one.

    Raises:
        HaltError: `CONFIG_INVALID`: no such file, or a line that is no keygen's success, named by its number.
    """
    found = Wallets()
    if path is None:
        return found
    try:
        with Path(path).open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    wallet_id, keys, owner = _read(line, number)
                    if found.keys.setdefault(wallet_id, keys) != keys:
                        raise _refused(number, f"other keys than before for wallet {wallet_id}")
                    if owner is not None and found.owners.setdefault(wallet_id, owner) != owner:
                        raise _refused(number, f"another client than before for wallet {wallet_id}")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "no path of a file"
        raise HaltError(Code.CONFIG_INVALID, f"{path!r}: {reason}", field=_FIELD) from error
    return found


def _read(line: bytes, number: int) -> tuple[str, WalletKeys, str | None]:
    try:
        fields = codec.decode(ContentType.JSON, line.strip())
        owner = fields.pop("client", None)
        result = parse_result(Operation.KEYGEN, json.dumps(fields).encode())
        if owner is not None and not (isinstance(owner, str) and is_client(owner)):
            raise _refused(number, "client: expected the name of a client")
        return result.wallet_id, check_keygen(result), owner
    except RejectError as error:
        raise _refused(number, f"{error.field}: {error.reason}" if error.field else error.reason) from error


def _refused(number: int, reason: str) -> HaltError:
    hint = "each line is one of mpcium's keygen results: result_type success, wallet_id, ecdsa_pub_key, eddsa_pub_key"
    return HaltError(Code.CONFIG_INVALID, f"line {number}: {reason}", field=_FIELD, hint=hint)
