"""What a request must pass before it may claim its id: decode, validate, its client's signature, policy.

No back end is asked, but for who made a wallet, where the policy wants to know that.

One room for the handler and for whoever rehearses it: what passes here is refused later only by what the record says.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from initiator.config.schema import Settings
from initiator.core import codec, message, requester, validate
from initiator.core.lifecycle import REOPEN
from initiator.core.model import ContentType, KeygenRequest, Operation, Request
from initiator.core.policy.clients import check_operation
from initiator.core.policy.conditions import Facts
from initiator.core.policy.rules import Grant
from initiator.core.requester import RequesterSignature
from initiator.core.signer import PublicKey
from initiator.errors import Code, RejectError, RetryError
from initiator.flow.clients import Clients


class Intake:
    """The checks of one configuration.

    Args:
        owner_of: the client whose keygen made a wallet, None: nobody is known to have; may raise RetryError.
    """

    def __init__(self, settings: Settings, clients: Clients, owner_of: Callable[[str], Awaitable[str | None]]) -> None:
        self._clients = clients
        self._owner_of = owner_of
        self._audience = settings.policy.audience
        self._settings = settings
        limits = settings.limits
        self._rules = validate.Rules(
            max_tx_bytes=limits.max_tx_bytes,
            tx_id_form=settings.mpcium.tx_id_form,
            max_expiry_s=limits.max_expiry_s,
            max_labels=limits.max_labels,
            must_expire=settings.streams.final_max_age_s is not None,
        )

    def signature_of(self, client: str, request: Request, headers: Mapping[str, str]) -> RequesterSignature | None:
        """The request's own signature by its client, verified; None if it has none.

        Raises:
            RejectError: `REQUESTER_SIGNATURE_INVALID`: what is there and does not hold is worse than nothing.
        """
        value = headers.get(requester.HEADER)
        if value is None:
            return None
        signed = requester.parse_header(value)
        key = self.check_known(client, signed)
        if request.expires_at is None:
            # replay of what was refused: it left no trace, and only its own deadline ends it
            raise RejectError(Code.MISSING_FIELD, "this field is required in a signed request", field="expires_at")
        covered = requester.canonical_bytes(self._audience, client, request, headers.get(REOPEN))
        requester.verify(key, signed.signature, covered)
        return signed

    def evidence(self, request: Request, signed: RequesterSignature, reopens: str | None) -> dict[str, Any]:
        """See `requester.evidence`."""
        return requester.evidence(self._audience, request, signed, reopens)

    def check_known(self, client: str, signed: RequesterSignature) -> PublicKey:
        """The key, as the policy knows it now; raises RejectError where it does not (any more)."""
        return requester.check_known(signed, self._clients.policy.keys.get(client, ()), client)

    async def grant(self, client: str, request: Request, arrived_at: float, now: float, *, signed: bool) -> Grant:
        """The rule that lets `client` have this now.

        Args:
            arrived_at: when its stream stored the request, Unix seconds.
            signed: it carries its client's signature; see `signature_of`.

        Raises:
            RejectError: `POLICY_DENIED`, with the rule that says no.
            RetryError: who made the wallet cannot be read now.
        """
        operation = request.operation
        owner, asked = None, isinstance(request, KeygenRequest)
        while not asked and self._clients.policy.asks_owner(client, operation):
            owner, asked = await self._owner_of(request.wallet_id), True
        # reload race: what is decided on is read after the last wait
        check_operation(self._clients.permitted, client, operation)
        policy = self._clients.policy
        deadline_s = self.deadline(request, arrived_at) - arrived_at
        facts = Facts(client=client, request=request, at=now, deadline_s=deadline_s, signed=signed, owner=owner)
        return policy.permit(facts)

    def still(self, grant: Grant) -> None:
        """Raises RetryError where a grant is not of the policy that is in force now: it must be asked for again."""
        if grant.version != self._clients.policy.version:
            raise RetryError(Code.RECORD_BUSY, "the policy has changed meanwhile", delay_s=0.0)

    def deadline(self, request: Request, arrived_at: float) -> float:
        """When the daemon gives up, Unix seconds; the lane's own time where the request names none."""
        return request.expires_at or arrived_at + self._settings.mpcium.lane(request.operation).default_expiry_s

    def read(self, client: str, operation: Operation, encoding: ContentType, data: bytes, now: float) -> Request:
        """A payload as a request of `client`.

        Args:
            now: Unix seconds.

        Raises:
            RejectError: it is refused, with the code, the field and the reason that its sender is told.
        """
        check_operation(self._clients.permitted, client, operation)  # a stranger's bytes are not read
        request = validate.parse_request(operation, codec.decode(encoding, data), encoding, self._rules, now)
        # keygen-as-sign: a signed wallet_id must not read as another message
        message.check_unambiguous(request)
        return request

    def reread(self, operation: Operation, encoding: ContentType, data: bytes) -> Request | None:
        """A payload by the widest bounds that any configuration may have had; None if it is no request by any."""
        with contextlib.suppress(RejectError):
            return validate.parse_by_any(operation, codec.decode(encoding, data), encoding)
        return None
