"""The log's hashes, proofs and notes, against the vectors of Certificate Transparency and the words of the RFCs."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from initiator.core import tlog
from initiator.core.tlog import Checkpoint, Frontier, LogKey
from initiator.errors import HaltError, RejectError

# leaves and roots of certificate-transparency's reference tests (RFC 6962)
LEAVES = [bytes.fromhex(one) for one in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657",
                                         "606162636465666768696a6b6c6d6e6f")]  # fmt: skip
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
KEY = Ed25519PrivateKey.generate()
NEUMANN = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"


def naive_root(entries: Sequence[bytes]) -> bytes:
    """RFC 6962's definition, word by word."""
    if not entries:
        return hashlib.sha256(b"").digest()
    if len(entries) == 1:
        return hashlib.sha256(b"\x00" + entries[0]).digest()
    split = 1
    while split * 2 < len(entries):
        split *= 2
    return hashlib.sha256(b"\x01" + naive_root(entries[:split]) + naive_root(entries[split:])).digest()


def hashes_of(entries: Sequence[bytes]) -> tlog.Hashes:
    return lambda level, number: naive_root(entries[number << level : (number + 1) << level])


def test_the_reference_roots() -> None:
    assert tlog.root_of([]) == hashlib.sha256(b"").digest()
    for size, root in enumerate(ROOTS, start=1):
        assert tlog.root_of(LEAVES[:size]).hex() == root


@given(st.integers(0, 70))
def test_roots_follow_the_definition_and_say_which_subtrees_are_complete(size: int) -> None:
    entries = [bytes([n]) for n in range(size)]
    frontier, made = Frontier(), {}
    for entry in entries:
        for level, number, found in frontier.append(tlog.leaf_hash(entry)):
            assert (level, number) not in made
            made[level, number] = found
    assert frontier.root == naive_root(entries)
    assert made == {
        (level, number): hashes_of(entries)(level, number) for level in range(8) for number in range(size >> level)
    }


@given(st.data())
def test_inclusion_is_proved_and_nothing_else_is(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 40))
    index = data.draw(st.integers(0, size - 1))
    entries = [bytes([n]) for n in range(size)]
    root, leaf = naive_root(entries), tlog.leaf_hash(entries[index])
    path = tlog.prove_inclusion(index, size, hashes_of(entries))
    assert tlog.verify_inclusion(leaf, index, size, path, root)
    assert not tlog.verify_inclusion(tlog.leaf_hash(b"other"), index, size, path, root)
    assert not tlog.verify_inclusion(leaf, index, size, path, bytes(32))
    assert not tlog.verify_inclusion(leaf, size, size, path, root)
    assert not tlog.verify_inclusion(leaf, index, size, [*path, bytes(32)], root)
    if path:
        assert not tlog.verify_inclusion(leaf, index, size, path[:-1], root)
        assert not tlog.verify_inclusion(leaf, index ^ 1, size, path, root)


@given(st.data())
def test_consistency_is_proved_and_a_fork_is_not(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 40))
    old = data.draw(st.integers(1, size))
    entries = [bytes([n]) for n in range(size)]
    proof = tlog.prove_consistency(old, size, hashes_of(entries))
    old_root, root = naive_root(entries[:old]), naive_root(entries)
    assert tlog.verify_consistency(old, old_root, size, root, proof)
    forked = [b"x", *entries[1:]]
    assert not tlog.verify_consistency(old, naive_root(forked[:old]), size, root, proof)
    assert not tlog.verify_consistency(old, old_root, size, naive_root(forked), proof)
    if proof:
        assert not tlog.verify_consistency(old, old_root, size, root, proof[:-1])


@pytest.mark.parametrize(("index", "size"), [(0, 0), (1, 1), (-1, 3)])
def test_what_is_not_in_a_log_is_not_proved(index: int, size: int) -> None:
    with pytest.raises(ValueError, match="expected"):
        tlog.prove_inclusion(index, size, lambda *_: bytes(32))


def test_paths_of_tiles() -> None:
    assert tlog.tile_path(0, 0) == "tile/0/000"
    assert tlog.tile_path(1, 67, 112) == "tile/1/067.p/112"
    assert tlog.tile_path("entries", 1234067) == "tile/entries/x001/x234/067"


@pytest.mark.parametrize(
    ("size", "tiles"),
    [
        (0, []),
        (1, [(0, 0, 1)]),
        (256, [(0, 0, 256), (1, 0, 1)]),
        (257, [(0, 0, 256), (0, 1, 1), (1, 0, 1)]),
        (70_000, [*((0, n, 256) for n in range(273)), (0, 273, 112), (1, 0, 256), (1, 1, 17), (2, 0, 1)]),
    ],
)
def test_tiles_of_a_log(size: int, tiles: list[tuple[int, int, int]]) -> None:
    assert tlog.tiles_of(size) == tiles


def test_a_verifier_key_of_the_specification() -> None:
    """The example of golang.org/x/mod/sumdb/note."""
    assert tlog.parse_log_key(NEUMANN).text == NEUMANN


@pytest.mark.parametrize(
    "text", ["", "a", "a+b+c", "PeterNeumann+c74f20a4+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"]
)
def test_what_is_no_verifier_key(text: str) -> None:
    with pytest.raises(HaltError, match="expected a verifier key"):
        tlog.parse_log_key(text)


def test_a_note_of_the_specification() -> None:
    """The same example's signed text: the line is found among others, the text is what is signed."""
    note = (
        "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
        "\n— PeterNeumann "
        "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
    )
    key = tlog.parse_log_key(NEUMANN)
    body, _, line = note.partition("\n\n")
    assert tlog._signs(line.strip(), f"{body}\n".encode(), key)
    assert not tlog._signs(line.strip(), f"{body}!\n".encode(), key)


def signed(size: int = 3, origin: str = "example.org/log") -> bytes:
    return tlog.sign_checkpoint(Checkpoint(origin, size, bytes(range(32))), KEY)


LOG = LogKey("example.org/log", KEY.public_key().public_bytes_raw())


def test_a_checkpoint_is_read_back() -> None:
    assert tlog.open_checkpoint(signed(), LOG) == Checkpoint("example.org/log", 3, bytes(range(32)))
    witnessed = signed() + "— witness.example AAAA\n".encode()
    assert tlog.open_checkpoint(witnessed, LOG).size == 3


@pytest.mark.parametrize("position", range(0, 60, 3))
def test_any_changed_byte_of_a_checkpoints_text_is_noticed(position: int) -> None:
    data = bytearray(signed())
    data[position] ^= 1
    with pytest.raises(RejectError):
        tlog.open_checkpoint(bytes(data), LOG)


@pytest.mark.parametrize("data", [b"", b"\xff", b"a\n1\nx\n", b"\n\n", b"example.org/log\n01\nAA==\n\n"])
def test_what_is_no_checkpoint(data: bytes) -> None:
    with pytest.raises(RejectError):
        tlog.open_checkpoint(data, LOG)


def test_another_logs_checkpoint_is_refused() -> None:
    with pytest.raises(RejectError, match=r"expected the log example\.org/log"):
        tlog.open_checkpoint(signed(origin="example.org/other"), LOG)
    other = LogKey(LOG.name, Ed25519PrivateKey.generate().public_key().public_bytes_raw())
    with pytest.raises(RejectError, match="no signature of"):
        tlog.open_checkpoint(signed(), other)


def test_a_proof_is_read_back() -> None:
    text = tlog.format_proof(7, [bytes(32), bytes(range(32))], signed())
    assert text.startswith(f"c2sp.org/tlog-proof@v1\nindex 7\n{base64.b64encode(bytes(32)).decode()}\n")
    assert tlog.parse_proof(text) == (7, [bytes(32), bytes(range(32))], signed())
    with pytest.raises(RejectError):
        tlog.parse_proof(text.replace("index 7", "index 07"))
    with pytest.raises(RejectError):
        tlog.parse_proof("x")
