"""One multi-Region key in two Regions, each a stub of its own."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from initiator.config.signers import KmsSettings
from initiator.core.spki import p256_public_key
from initiator.kms import KmsSigner
from initiator.metrics import Metrics
from tests.support.kms_stub import Change, Error, Key, KmsStub

FIRST, SECOND = "eu-central-1", "eu-west-1"
MRK = "mrk-1234abcd1234abcd1234abcd1234abcd"
QUICK = {
    "connect_timeout_s": 0.5, "read_timeout_s": 0.5, "retry_base_s": 0.01, "retry_max_s": 0.05, "threads": 4,
    "breaker_failures": 3, "breaker_pause_s": 0.3, "breaker_pause_max_s": 0.3,
}  # fmt: skip
FALSE = Change({"Signature": "eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4"})
DOWN = Error("KMSInternalException", 500)


class Pair:
    """Two Regions that hold one multi-Region key."""

    def __init__(self, first: KmsStub, second: KmsStub) -> None:
        self.first, self.second = first, second
        private = ec.generate_private_key(ec.SECP256R1())
        self.keys: list[Key] = [stub.add(key_id=MRK, private=private) for stub in (first, second)]
        self.pin = p256_public_key(private.public_key())
        self.metrics = Metrics()

    def settings(self, **changes: Any) -> KmsSettings:
        regions = [{"region": stub.region, "endpoint_url": stub.url} for stub in (self.first, self.second)]
        fields = {"key_id": self.keys[0].arn, "regions": regions, "access_key_id": "a", "secret_access_key": "s"}
        return KmsSettings.model_validate(fields | QUICK | changes, strict=False)

    def asked(self) -> tuple[int, int]:
        """Sign calls to each, since last asked."""
        counts = [sum(operation == "Sign" for operation, _ in stub.calls) for stub in (self.first, self.second)]
        self.first.calls.clear()
        self.second.calls.clear()
        return counts[0], counts[1]

    def moves(self, region: str) -> dict[tuple[str, str], float]:
        """Counted moves of one Region: (state, code) to how often."""
        return {
            (sample.labels["state"], sample.labels["code"]): sample.value
            for family in self.metrics.registry.collect()
            for sample in family.samples
            if sample.name == "initiator_signer_region_changes_total" and sample.labels["region"] == region
        }

    @contextlib.asynccontextmanager
    async def signer(self, **changes: Any) -> AsyncIterator[KmsSigner]:
        signer = await KmsSigner.connect(self.settings(**changes), pin=self.pin, metrics=self.metrics)
        try:
            yield signer
        finally:
            await signer.close()


Moves = list[tuple[str, str, str, str]]
