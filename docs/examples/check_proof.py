"""Verifies a proof of `initiator audit prove` with nothing but Python, `cryptography` and the log's public key.

python check_proof.py PROOF.json 'audit.example.com/initiator+1a2b3c4d+AbCd…'
"""

import base64
import hashlib
import json
import sys

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def must(holds: bool, why: str) -> None:
    if not holds:
        sys.exit(f"not proven: {why}")


def node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def open_checkpoint(note: str, vkey: str) -> tuple[int, bytes]:
    """Size and root that the log has signed (c2sp.org/signed-note, c2sp.org/tlog-checkpoint)."""
    name, key_id, encoded = vkey.split("+", 2)
    body, signatures = note.split("\n\n", 1)
    origin, size, root = body.split("\n")[:3]
    must(origin == name, "a checkpoint of another log")
    for line in signatures.splitlines():
        dash, signer, signature = line.split(" ")
        raw = base64.b64decode(signature)
        if dash == "—" and signer == name and raw[:4].hex() == key_id:
            public = Ed25519PublicKey.from_public_bytes(base64.b64decode(encoded)[1:])
            public.verify(raw[4:], f"{body}\n".encode())
            return int(size), base64.b64decode(root)
    sys.exit("not proven: no signature of this log")


def root_from(leaf: bytes, index: int, size: int, path: list[bytes]) -> bytes:
    """The root that an entry's path leads to (RFC 9162, 2.1.3.2)."""
    made, place, last = leaf, index, size - 1
    for sibling in path:
        must(last > 0, "the path is too long")
        if place % 2 or place == last:
            made = node(sibling, made)
            while place and place % 2 == 0:
                place, last = place // 2, last // 2
        else:
            made = node(made, sibling)
        place, last = place // 2, last // 2
    must(last == 0, "the path is too short")
    return made


def main(file: str, vkey: str) -> None:
    with open(file) as source:
        proof = json.load(source)
    for one in proof["entries"]:
        entry = base64.b64decode(one["entry"])
        head, checkpoint = one["proof"].split("\n\n", 1)
        first, index, *path = head.split("\n")
        must(first == "c2sp.org/tlog-proof@v1", "a proof of another form")
        size, root = open_checkpoint(checkpoint, vkey)
        leaf = hashlib.sha256(b"\x00" + entry).digest()
        number = int(index.removeprefix("index "))
        must(root_from(leaf, number, size, [base64.b64decode(line) for line in path]) == root, "not in this log")
        fields = json.loads(entry)
        print(f"{fields['stored_at']}  {fields['subject']}  is entry {number} of {size}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(f"usage: python check_proof.py PROOF.json VKEY\n\n{__doc__}")
    main(*sys.argv[1:])
