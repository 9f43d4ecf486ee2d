"""Child public keys as the peer nodes derive them: non-hardened BIP32 on both curves.

For every index i, from the parent point K and chain code c:

    I = HMAC-SHA512(c, compress(K) ‖ i as 4 bytes big-endian);  child = K + I[:32] · G;  chain code = I[32:]

`compress` is 02/03 by the parity of y and then x big-endian, on Ed25519 as on secp256k1. On Ed25519 I[:32] is
reduced by the group order, on secp256k1 a value that is not below the order is refused.

Sources: mpcium's pkg/ckdutil; BIP32 (CKDpub). The chain code is one per cluster, so a wallet's key and the
cluster's `chain_code` stand in for the extended public key.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from initiator.core import curves
from initiator.core.secp256k1 import ENGINE, Engine

CHAIN_CODE_BYTES = 32
HARDENED = 0x8000_0000


class PathError(ValueError):
    """There is no child at this path: a hardened index, or (one case in 2**127) an index without a child."""


def derive_secp256k1(pub_key: bytes, chain_code: bytes, path: Sequence[int], *, engine: Engine = ENGINE) -> bytes:
    """The child key at `path`.

    Args:
        pub_key: the wallet's key, X‖Y (64 bytes).
        chain_code: the cluster's chain code, 32 bytes.
        path: indexes below 2**31; an empty one gives the key itself.

    Returns:
        X‖Y, 64 bytes.

    Raises:
        CurveError: the key is no point of the curve.
        PathError: no child at this path.
        ValueError: the chain code's length.
    """
    _require_chain_code(chain_code)
    point = curves.decode_secp256k1(pub_key)
    for index in path:
        left, chain_code = _step(point, chain_code, index)
        if not 0 < left < curves.SECP256K1_N:
            raise PathError(f"index {index} has no child key")
        pub_key = engine.add_base(pub_key, left)
        point = curves.decode_secp256k1(pub_key)
    return pub_key


def derive_ed25519(pub_key: bytes, chain_code: bytes, path: Sequence[int]) -> bytes:
    """The child key at `path`, 32 bytes compressed; arguments and errors as in `derive_secp256k1`."""
    _require_chain_code(chain_code)
    point = curves.decode_ed25519(pub_key)
    for index in path:
        left, chain_code = _step(point, chain_code, index)
        left %= curves.ED25519_L
        point = curves.add_ed25519(point, curves.multiply_ed25519_base(left))
        if left == 0 or point[0] == 0:  # x = 0 is the identity; mpcium refuses both
            raise PathError(f"index {index} has no child key")
    return curves.encode_ed25519(point)


def _step(point: curves.AffinePoint, chain_code: bytes, index: int) -> tuple[int, bytes]:
    if not 0 <= index < HARDENED:
        raise PathError(f"expected indexes below {HARDENED}, got {index}")
    mac = hmac.digest(chain_code, curves.compress(point) + index.to_bytes(4, "big"), hashlib.sha512)
    return int.from_bytes(mac[:32], "big"), mac[32:]


def _require_chain_code(chain_code: bytes) -> None:
    if len(chain_code) != CHAIN_CODE_BYTES:
        raise ValueError(f"chain_code: expected {CHAIN_CODE_BYTES} bytes, got {len(chain_code)}")
