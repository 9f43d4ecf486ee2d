"""Child keys: mpcium's own numbers, BIP32's own numbers, and what has no child."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from initiator.core import ckd, curves
from initiator.core.ckd import PathError
from initiator.core.curves import SECP256K1_P, CurveError
from initiator.core.secp256k1 import Engine, PortableEngine, best_engine

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "ckd.json").read_text())
ENGINES = [PortableEngine(), best_engine()]
ED25519_KEY = bytes.fromhex(VECTORS["ed25519"][1]["parent_hex"])
SECP256K1_KEY = bytes.fromhex(VECTORS["secp256k1"][1]["parent_hex"])
CHAIN_CODE = bytes(range(32))

# BIP32, test vectors 1 and 2: every step that is a public one. Parent, index, child.
BIP32 = [
    (
        "xpub68Gmy5EdvgibQVfPdqkBBCHxA5htiqg55crXYuXoQRKfDBFA1WEjWgP6LHhwBZeNK1VTsfTFUHCdrfp1bgwQ9xv5ski8PX9rL2dZXvgGDnw",
        1,
        "xpub6ASuArnXKPbfEwhqN6e3mwBcDTgzisQN1wXN9BJcM47sSikHjJf3UFHKkNAWbWMiGj7Wf5uMash7SyYq527Hqck2AxYysAA7xmALppuCkwQ",
    ),
    (
        "xpub6D4BDPcP2GT577Vvch3R8wDkScZWzQzMMUm3PWbmWvVJrZwQY4VUNgqFJPMM3No2dFDFGTsxxpG5uJh7n7epu4trkrX7x7DogT5Uv6fcLW5",
        2,
        "xpub6FHa3pjLCk84BayeJxFW2SP4XRrFd1JYnxeLeU8EqN3vDfZmbqBqaGJAyiLjTAwm6ZLRQUMv1ZACTj37sR62cfN7fe5JnJ7dh8zL4fiyLHV",
    ),
    (
        "xpub6FHa3pjLCk84BayeJxFW2SP4XRrFd1JYnxeLeU8EqN3vDfZmbqBqaGJAyiLjTAwm6ZLRQUMv1ZACTj37sR62cfN7fe5JnJ7dh8zL4fiyLHV",
        1_000_000_000,
        "xpub6H1LXWLaKsWFhvm6RVpEL9P4KfRZSW7abD2ttkWP3SSQvnyA8FSVqNTEcYFgJS2UaFcxupHiYkro49S8yGasTvXEYBVPamhGW6cFJodrTHy",
    ),
    (
        "xpub661MyMwAqRbcFW31YEwpkMuc5THy2PSt5bDMsktWQcFF8syAmRUapSCGu8ED9W6oDMSgv6Zz8idoc4a6mr8BDzTJY47LJhkJ8UB7WEGuduB",
        0,
        "xpub69H7F5d8KSRgmmdJg2KhpAK8SR3DjMwAdkxj3ZuxV27CprR9LgpeyGmXUbC6wb7ERfvrnKZjXoUmmDznezpbZb7ap6r1D3tgFxHmwMkQTPH",
    ),
    (
        "xpub6ASAVgeehLbnwdqV6UKMHVzgqAG8Gr6riv3Fxxpj8ksbH9ebxaEyBLZ85ySDhKiLDBrQSARLq1uNRts8RuJiHjaDMBU4Zn9h8LZNnBC5y4a",
        1,
        "xpub6DF8uhdarytz3FWdA8TvFSvvAh8dP3283MY7p2V4SeE2wyWmG5mg5EwVvmdMVCQcoNJxGoWaU9DCWh89LojfZ537wTfunKau47EL2dhHKon",
    ),
    (
        "xpub6ERApfZwUNrhLCkDtcHTcxd75RbzS1ed54G1LkBUHQVHQKqhMkhgbmJbZRkrgZw4koxb5JaHWkY4ALHY2grBGRjaDMzQLcgJvLJuZZvRcEL",
        2,
        "xpub6FnCn6nSzZAw5Tw7cgR9bi15UV96gLZhjDstkXXxvCLsUXBGXPdSnLFbdpq8p9HmGsApME5hQTZ3emM2rnY5agb9rXpVGyy3bdW6EEgAtqt",
    ),
]


def read_xpub(text: str) -> tuple[bytes, bytes]:
    """Chain code and key (X‖Y) of an extended public key; the checksum guards against a slip of the pen."""
    alphabet = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
    number = 0
    for char in text:
        number = number * 58 + alphabet.index(char)
    data = number.to_bytes(82, "big")
    assert hashlib.sha256(hashlib.sha256(data[:78]).digest()).digest()[:4] == data[78:]
    x = int.from_bytes(data[46:78], "big")
    y = pow(x**3 + 7, (SECP256K1_P + 1) // 4, SECP256K1_P)
    if y & 1 != data[45] & 1:
        y = SECP256K1_P - y
    return data[13:45], curves.encode_secp256k1((x, y))


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: type(engine).__name__)
@pytest.mark.parametrize(("parent", "index", "child"), BIP32)
def test_secp256k1_children_are_those_of_bip32(engine: Engine, parent: str, index: int, child: str) -> None:
    chain_code, key = read_xpub(parent)
    assert ckd.derive_secp256k1(key, chain_code, [index], engine=engine) == read_xpub(child)[1]


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: type(engine).__name__)
def test_two_steps_of_bip32_carry_the_chain_code_on(engine: Engine) -> None:
    chain_code, key = read_xpub(BIP32[1][0])
    assert ckd.derive_secp256k1(key, chain_code, [2, 1_000_000_000], engine=engine) == read_xpub(BIP32[2][2])[1]


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: type(engine).__name__)
@pytest.mark.parametrize("vector", VECTORS["secp256k1"])
def test_secp256k1_children_are_those_of_mpcium(engine: Engine, vector: dict[str, Any]) -> None:
    parent, chain_code = bytes.fromhex(vector["parent_hex"]), bytes.fromhex(vector["chain_code_hex"])
    assert ckd.derive_secp256k1(parent, chain_code, vector["path"], engine=engine).hex() == vector["child_hex"]


@pytest.mark.parametrize("vector", VECTORS["ed25519"])
def test_ed25519_children_are_those_of_mpcium(vector: dict[str, Any]) -> None:
    parent, chain_code = bytes.fromhex(vector["parent_hex"]), bytes.fromhex(vector["chain_code_hex"])
    assert ckd.derive_ed25519(parent, chain_code, vector["path"]).hex() == vector["child_hex"]


@pytest.mark.parametrize("index", [2**31, 2**32 - 1, 2**32, -1])
def test_a_hardened_or_impossible_index_has_no_child(index: int) -> None:
    with pytest.raises(PathError, match="expected indexes below"):
        ckd.derive_secp256k1(SECP256K1_KEY, CHAIN_CODE, [0, index])
    with pytest.raises(PathError, match="expected indexes below"):
        ckd.derive_ed25519(ED25519_KEY, CHAIN_CODE, [0, index])


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_a_chain_code_of_another_length_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"expected 32 bytes, got {size}"):
        ckd.derive_secp256k1(SECP256K1_KEY, bytes(size), [])
    with pytest.raises(ValueError, match=f"expected 32 bytes, got {size}"):
        ckd.derive_ed25519(ED25519_KEY, bytes(size), [])


def test_even_an_empty_path_wants_a_point() -> None:
    with pytest.raises(CurveError):
        ckd.derive_secp256k1(bytes(64), CHAIN_CODE, [])
    with pytest.raises(CurveError):
        ckd.derive_ed25519((2).to_bytes(32, "little"), CHAIN_CODE, [])
