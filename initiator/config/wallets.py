"""Wallets that were made before this daemon: their public keys, so that their signatures can be verified.

The file holds mpcium's own keygen results, one JSON object a line, as its nodes publish them or its clients keep them.
"""

from __future__ import annotations

from pathlib import Path

from initiator.core.model import Operation
from initiator.core.result import parse_result
from initiator.core.wallet import WalletKeys, check_keygen
from initiator.errors import Code, HaltError, RejectError

_FIELD = "mpcium.wallets_file"


def load_wallets(path: str | None) -> dict[str, WalletKeys]:
    """Public keys by wallet id; none without a file.

    Raises:
        HaltError: `CONFIG_INVALID`: no such file, or a line that is no keygen's success, named by its number.
    """
    if path is None:
        return {}
    found: dict[str, WalletKeys] = {}
    try:
        with Path(path).open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    wallet_id, keys = _read(line, number)
                    if found.setdefault(wallet_id, keys) != keys:
                        raise _refused(number, f"other keys than before for wallet {wallet_id}")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "no path of a file"
        raise HaltError(Code.CONFIG_INVALID, f"{path!r}: {reason}", field=_FIELD) from error
    return found


def _read(line: bytes, number: int) -> tuple[str, WalletKeys]:
    try:
        result = parse_result(Operation.KEYGEN, line)
        return result.wallet_id, check_keygen(result)
    except RejectError as error:
        raise _refused(number, f"{error.field}: {error.reason}" if error.field else error.reason) from error


def _refused(number: int, reason: str) -> HaltError:
    hint = "each line is one of mpcium's keygen results: result_type success, wallet_id, ecdsa_pub_key, eddsa_pub_key"
    return HaltError(Code.CONFIG_INVALID, f"line {number}: {reason}", field=_FIELD, hint=hint)
