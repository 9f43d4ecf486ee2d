"""Our bytes through the real encoding/json: what a node decodes and encodes anew is what KMS signed.

Runs where a Go toolchain is installed; the vectors and the independent reading in test_message hold the same line
everywhere else.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from initiator.core import message
from initiator.core.message import AuthorizerSignature
from initiator.core.model import KeygenRequest, KeyType, Request, ReshareRequest, SignRequest

GO = shutil.which("go")
PROGRAM = Path(__file__).parent / "go" / "reencode.go"
ALPHABET = [chr(point) for point in range(0x100)] + list(
    '<>&"\\/\u2028\u2029\u2027\u202a\ufeff\ufffd\ufffe漢é😀\U0010ffff'
)

pytestmark = pytest.mark.skipif(GO is None, reason="no Go toolchain on this machine")


@pytest.fixture(scope="module")
def reencode(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Go program, built without modules and without the network."""
    binary = tmp_path_factory.mktemp("go") / "reencode"
    assert GO
    subprocess.run(
        [GO, "build", "-o", str(binary), str(PROGRAM)],
        check=True,
        timeout=100,
        env=os.environ | {"GOPROXY": "off", "GOTOOLCHAIN": "local", "GO111MODULE": "off", "CGO_ENABLED": "0"},
    )
    return binary


def text(source: random.Random) -> str:
    if source.random() < 0.2:
        points = (source.randrange(0x110000 - 0x800) for _ in range(5))
        return "".join(chr(point if point < 0xD800 else point + 0x800) for point in points)  # no surrogates
    return "".join(source.choices(ALPHABET, k=source.randrange(12)))


def event(source: random.Random) -> tuple[Request, bytes, list[AuthorizerSignature]]:
    signature = source.randbytes(source.randrange(73))
    authorizers = [
        AuthorizerSignature(authorizer_id=text(source), signature=source.randbytes(source.randrange(73)))
        for _ in range(source.randrange(3))
    ]
    key_type = source.choice(list(KeyType))
    requests: list[Request] = [
        KeygenRequest(wallet_id=text(source)),
        SignRequest(
            key_type=key_type,
            wallet_id=text(source),
            network_internal_code=text(source),
            tx_id=text(source),
            tx=source.randbytes(source.randrange(40)),
            derivation_path=source.choice([None, tuple(source.randrange(2**32) for _ in range(source.randrange(4)))]),
        ),
        ReshareRequest(
            session_id=text(source),
            node_ids=tuple(text(source) for _ in range(source.randrange(4))),
            new_threshold=source.choice([1, 2, -(2**63), 2**63 - 1]),
            key_type=key_type,
            wallet_id=text(source),
        ),
    ]
    return source.choice(requests), signature, authorizers


def test_go_signs_and_writes_the_very_bytes_that_we_do(reencode: Path) -> None:
    source = random.Random(20260401)
    events = [event(source) for _ in range(3000)]
    ours = [
        (message.signed_bytes(request), message.event_bytes(request, signature, authorizers))
        for request, signature, authorizers in events
    ]
    lines = "".join(
        f"{request.operation} {whole.hex()}\n" for (request, *_), (_, whole) in zip(events, ours, strict=True)
    )
    done = subprocess.run([str(reencode)], input=lines.encode(), capture_output=True, check=True, timeout=60)
    gos = done.stdout.decode().splitlines()
    assert gos == [f"{part.hex()} {whole.hex()}" for part, whole in ours]
