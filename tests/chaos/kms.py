"""The KMS of a chaos run: the stub, with faults that last for a while."""

from __future__ import annotations

import base64
import random

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.kms_stub import Body, Change, Error, Fault, Key, KmsStub, Reset, Slow

KINDS = (
    "kms_slow",
    "kms_throttled",
    "kms_5xx",
    "kms_reset",
    "kms_truncated",
    "kms_empty",
    "kms_wrong_signature",
    "kms_switched_key",
    "kms_expired_credentials",
)


class ChaosKms(KmsStub):
    """While `kind` is set, most calls go wrong in its way."""

    def __init__(self) -> None:
        super().__init__()
        self.kind = ""
        self._random = random.Random(0)
        self._stranger = Key()

    def next_fault(self, operation: str) -> Fault | None:
        kind = self.kind
        if not kind or self._random.random() < 0.2:
            return None
        return self._fault(kind, operation)

    def _fault(self, kind: str, operation: str) -> Fault | None:
        match kind:
            case "kms_slow":
                return Slow(self._random.uniform(0.2, 4.0))
            case "kms_throttled":
                return Error("ThrottlingException", 400)
            case "kms_5xx":
                return Error("KMSInternalException", 500)
            case "kms_reset":
                return Reset()
            case "kms_truncated":
                return Body(b'{"KeyId": "arn:aws', cut=True)
            case "kms_empty":
                return Body(b"")
            case "kms_expired_credentials":
                return Error("ExpiredTokenException", 400)
            case "kms_wrong_signature" if operation == "Sign":
                return Change({"Signature": self._foreign_signature()})
            case "kms_switched_key" if operation == "GetPublicKey":
                return Change({"PublicKey": base64.b64encode(self._stranger.spki).decode()})
            case "kms_switched_key":
                return Change({"Signature": self._foreign_signature(), "KeyId": self._stranger.arn})
            case _:
                return None

    def _foreign_signature(self) -> str:
        return base64.b64encode(self._stranger.private.sign(b"something else", ec.ECDSA(hashes.SHA256()))).decode()
