"""A service's way to the daemon: wallets and signatures with one call, from Python::

    async with InitiatorClient.connect("nats://localhost:4222", client="payments", user=…, password=…) as initiator:
        wallet = await initiator.keygen("w-1")
        signature = await initiator.sign("w-1", digest, tx_id=uuid, key_type="secp256k1")

The same call again, after a crash, a timeout or in another process, joins the operation that is under way and gets the
same result. What a call ends with otherwise is one of a few errors, one for each way to react; see `errors`. All of it
needs a client's least permissions: its own subjects, and no JetStream API. Nothing of the daemon is imported.
"""

from initiator.client.aio import InitiatorClient
from initiator.client.errors import (
    ClientError,
    DeniedError,
    NothingSignedError,
    OutcomeUnknownError,
    RejectedError,
    StillRunningError,
    TooLateError,
    UnavailableError,
    UntrustedResultError,
)
from initiator.client.results import EcdsaSignature, EddsaSignature, PublicKey, ResharedKey, VerifiedBy, Wallet
from initiator.client.signing import RequestSigner
from initiator.client.sync import SyncInitiatorClient
from initiator.client.wire import Event, Handle
from initiator.core.model import KeygenRequest, KeyType, Operation, ReshareRequest, SignRequest

__all__ = [
    "ClientError",
    "DeniedError",
    "EcdsaSignature",
    "EddsaSignature",
    "Event",
    "Handle",
    "InitiatorClient",
    "KeyType",
    "KeygenRequest",
    "NothingSignedError",
    "Operation",
    "OutcomeUnknownError",
    "PublicKey",
    "RejectedError",
    "RequestSigner",
    "ReshareRequest",
    "ResharedKey",
    "SignRequest",
    "StillRunningError",
    "SyncInitiatorClient",
    "TooLateError",
    "UnavailableError",
    "UntrustedResultError",
    "VerifiedBy",
    "Wallet",
]
