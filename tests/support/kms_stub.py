"""KMS as AWS documents it, over HTTP on loopback, with faults on demand: what no emulator does.

Refuses RAW messages over 4,096 bytes and digests of a wrong length, signs a digest without hashing it again, refuses
disabled keys and other usages, and follows a script of faults, one for each call.
"""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import struct
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

ACCOUNT, REGION = "111122223333", "eu-central-1"
MAX_RAW_BYTES = 4096


@dataclass
class Key:
    """One key."""

    spec: str = "ECC_NIST_P256"
    usage: str = "SIGN_VERIFY"
    state: str = "Enabled"
    region: str = REGION
    key_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    private: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    @property
    def arn(self) -> str:
        return f"arn:aws:kms:{self.region}:{ACCOUNT}:key/{self.key_id}"

    @property
    def spki(self) -> bytes:
        return self.private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@dataclass
class Error:
    """An error answer; `clock_s` sets the server's Date off."""

    code: str
    status: int = 400
    message: str = ""
    clock_s: float = 0.0


@dataclass
class Reset:
    """The connection is reset before an answer."""


@dataclass
class Slow:
    """The answer comes later."""

    seconds: float


@dataclass
class Body:
    """Another body with HTTP 200; `cut` announces more bytes than come."""

    content: bytes
    cut: bool = False


@dataclass
class Change:
    """The true answer with fields changed; None takes one away."""

    fields: dict[str, Any]


@dataclass(frozen=True)
class Drip:
    """An answer that comes drop by drop, each in time, and never ends within `seconds`."""

    seconds: float


Fault = Drip | Error | Reset | Slow | Body | Change
_STATES = {"Disabled": "DisabledException", "PendingDeletion": "KMSInvalidStateException"}


class KmsStub:
    """The server; `script` holds the faults of the next calls, None for none, `standing` the fault of all others.

    Args:
        region: what the ARNs of its keys name.
    """

    def __init__(self, region: str = REGION) -> None:
        self.region = region
        self.standing: Fault | None = None
        self.keys: dict[str, Key] = {}
        self.aliases: dict[str, Key] = {}
        self.script: deque[Fault | None] = deque()
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.access_keys: list[str] = []
        self.url = ""

    def add(self, **fields: Any) -> Key:
        key = Key(**({"region": self.region} | fields))
        self.keys[key.key_id] = self.keys[key.arn] = key
        return key

    def next_fault(self, operation: str) -> Fault | None:
        """What goes wrong with the call at hand."""
        del operation
        return self.script.popleft() if self.script else self.standing

    def find(self, key_id: str) -> Key | None:
        return self.keys.get(key_id) or self.aliases.get(key_id)

    def answer(self, operation: str, asked: dict[str, Any]) -> dict[str, Any] | Error:
        """What KMS would say."""
        key = self.find(asked["KeyId"])
        if key is None:
            return Error("NotFoundException")
        if key.state in _STATES:
            return Error(_STATES[key.state])
        if operation == "GetPublicKey":
            return {
                "KeyId": key.arn,
                "PublicKey": base64.b64encode(key.spki).decode(),
                "KeySpec": key.spec,
                "KeyUsage": key.usage,
                "SigningAlgorithms": ["ECDSA_SHA_256"] if key.usage == "SIGN_VERIFY" else [],
            }
        if key.usage != "SIGN_VERIFY" or asked["SigningAlgorithm"] != "ECDSA_SHA_256":
            return Error("InvalidKeyUsageException")
        return self._signed(key, asked)

    def _signed(self, key: Key, asked: dict[str, Any]) -> dict[str, Any] | Error:
        message = base64.b64decode(asked["Message"])
        as_digest = asked["MessageType"] == "DIGEST"
        if as_digest and len(message) != hashes.SHA256.digest_size:
            return Error("ValidationException", message="Digest is invalid length for algorithm ECDSA_SHA_256.")
        if not as_digest and not 1 <= len(message) <= MAX_RAW_BYTES:
            return Error("ValidationException", message="Member must have length less than or equal to 4096")
        algorithm = ec.ECDSA(Prehashed(hashes.SHA256()) if as_digest else hashes.SHA256())
        signature = base64.b64encode(key.private.sign(message, algorithm)).decode()
        return {"KeyId": key.arn, "Signature": signature, "SigningAlgorithm": "ECDSA_SHA_256"}


def _break_off(handler: BaseHTTPRequestHandler, fault: Drip | Reset) -> None:
    """No whole answer."""
    handler.close_connection = True
    if isinstance(fault, Reset):
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        handler.connection.close()
        return
    until = time.monotonic() + fault.seconds
    with contextlib.suppress(OSError):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Drops: ")
        while time.monotonic() < until:
            handler.wfile.write(b".")
            time.sleep(0.1)


def _handler(stub: KmsStub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        clock_s = 0.0

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            operation = self.headers["X-Amz-Target"].rpartition(".")[2]
            stub.calls.append((operation, asked))
            stub.access_keys.append(self.headers["Authorization"].partition("Credential=")[2].partition("/")[0])
            fault = stub.next_fault(operation)
            if isinstance(fault, (Drip, Reset)):
                _break_off(self, fault)
                return
            if isinstance(fault, Slow):
                time.sleep(fault.seconds)
            if isinstance(fault, Body):
                self._send(200, fault.content, more=10 if fault.cut else 0)
                return
            answer = fault if isinstance(fault, Error) else stub.answer(operation, asked)
            if isinstance(fault, Change) and isinstance(answer, dict):
                answer = {name: value for name, value in (answer | fault.fields).items() if value is not None}
            self._say(answer)

        def _say(self, answer: dict[str, Any] | Error) -> None:
            if isinstance(answer, Error):
                self.clock_s = answer.clock_s
                body = {"__type": answer.code, "message": answer.message}
                self._send(answer.status, json.dumps(body).encode())
            else:
                self._send(200, json.dumps(answer).encode())

        def _send(self, status: int, body: bytes, more: int = 0) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/x-amz-json-1.1")
            self.send_header("x-amzn-RequestId", str(uuid.uuid4()))
            self.send_header("Content-Length", str(len(body) + more))
            self.end_headers()
            self.wfile.write(body)
            if more:
                self.close_connection = True

        def date_time_string(self, timestamp: float | None = None) -> str:
            return formatdate((timestamp or time.time()) + self.clock_s, usegmt=True)

        def log_message(self, format: str, *args: Any) -> None:
            return

    return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        return  # resets and impatient clients are what it is for


@contextlib.contextmanager
def kms_stub(region: str = REGION, port: int = 0) -> Iterator[KmsStub]:
    """A stub on a loopback port, any free one by default, for the length of the block."""
    stub = KmsStub(region)
    with serving(stub, port):
        yield stub


@contextlib.contextmanager
def serving(stub: KmsStub, port: int = 0) -> Iterator[None]:
    """Serve on a loopback port, any free one by default, for the length of the block."""
    server = _Server(("127.0.0.1", port), _handler(stub))
    stub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
