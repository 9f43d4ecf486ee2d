"""What an authorizer is asked, checked before it is shown or decided.

Invariants, in this order: it is for this authorizer, and on its own subject; it names one operation throughout; our
own rules of ids hold; the initiator's signature verifies under the pin over exactly what is signed; it has not expired;
and one id is never signed for two different requests, in this process or another one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from initiator.authorizer.decisions import Decisions
from initiator.core import authorization, events, identity, message, requester, subjects, validate
from initiator.core.authorization import Answer, Asking
from initiator.core.model import Request
from initiator.core.policy.conditions import Facts
from initiator.core.policy.rules import Policy, PolicyError
from initiator.core.signature import Verifier
from initiator.core.signer import PublicKey, Signer
from initiator.errors import Code, HaltError, InitiatorError, RejectError


@dataclass(frozen=True, slots=True)
class Case:
    """One operation, checked.

    Attributes:
        request: as the nodes will read it, with the labels and the expiry that its client gave.
        digest: of that request and its client, derivation path included (`identity.request_digest`).
        signed_by: the client's own key, where its signature verifies under one that this authorizer knows.
    """

    asking: Asking
    request: Request
    digest: str
    to_sign: bytes
    signed_by: str | None


@dataclass(frozen=True, slots=True)
class Decision:
    """Yes (`signs`), no (with a reason), or neither: somebody else may decide."""

    signs: bool
    rule: str
    reason: str = ""

    @property
    def denies(self) -> bool:
        return not self.signs and bool(self.reason)


class Desk:
    """One authorizer's.

    Args:
        pin: the event-initiator key that the nodes trust: an authorizer believes no other.
        policy: its own rules; None: it decides nothing by itself.

    Raises:
        HaltError: the policy asks what an authorizer cannot know, or counts.
    """

    def __init__(
        self,
        authorizer_id: str,
        signer: Signer,
        pin: PublicKey,
        audience: str,
        policy: Policy | None,
        unmatched: str,
        decisions: Decisions,
    ) -> None:
        self.authorizer_id = authorizer_id
        self._signer = signer
        self._pin = Verifier(pin)
        self._audience = audience
        self._policy = policy
        self._unmatched = unmatched
        self._decisions = decisions
        if policy is not None:
            _check_policy(policy)

    @property
    def remembers(self) -> bool:
        """Whether it knows after a restart what it has signed."""
        return self._decisions.lasting

    async def read(self, subject: str, data: bytes, now: float) -> Case:
        """What is asked, if it may be considered at all.

        Raises:
            RejectError: it must not be signed, whoever says so.
            HaltError: the file of decisions cannot be read.
        """
        case = self._checked(subject, data, now)
        asking = case.asking
        await asyncio.to_thread(self._decisions.check, asking.operation, asking.operation_id, case.digest)
        return case

    def _checked(self, subject: str, data: bytes, now: float) -> Case:
        """Raises RejectError: it fails by itself, whatever was signed before."""
        asking = authorization.decode_asking(data)
        if asking.authorizer_id != self.authorizer_id:
            raise _bad("authorizer_id", f"expected {self.authorizer_id}")
        if subject != subjects.authorize(asking.authorizer_id, asking.operation, asking.operation_id):
            raise _bad("subject", "it is another one's")
        parsed = asking.parsed()
        request = parsed.request
        # swap: what is shown under one id must be what is signed under it
        if request.operation_id != asking.operation_id:
            raise _bad("id", "its message is for another id")
        if not validate.ID.fullmatch(request.operation_id) or not validate.ID.fullmatch(request.wallet_id):
            raise _bad("id", "expected ids of A-Z a-z 0-9 _ -")
        message.check_unambiguous(request)  # keygen-as-sign
        # forgery: only what the initiator has signed can ever reach the nodes
        if not self._pin.verify(parsed.signed, parsed.signature):
            raise _bad("signature", "it does not verify under the pinned initiator key")
        if asking.expires_at <= now:
            raise RejectError(Code.EXPIRED, f"expired at {events.format_time(asking.expires_at)}", field="expires_at")
        digest = identity.request_digest(asking.client, request)
        request, signed_by = self._requester(asking, request)
        return Case(asking, request, digest, message.authorizer_bytes(parsed.request, parsed.signature), signed_by)

    def _requester(self, asking: Asking, request: Request) -> tuple[Request, str | None]:
        """The request with its labels; and the client's key, where its signature holds by a key known here."""
        given: Mapping[str, Any] | None = asking.requester
        labelled = replace(request, labels=dict(asking.labels))
        if given is None or self._policy is None:
            return labelled, None
        try:
            signed = requester.parse_header(f"{given['key']} {given['signature']}")
            key = requester.check_known(signed, self._policy.keys.get(asking.client, ()), asking.client)
            whole, covered = requester.as_signed(given, self._audience, asking.client, request)
            requester.verify(key, signed.signature, covered)
        except (InitiatorError, KeyError, TypeError, ValueError, AttributeError):
            return labelled, None
        return whole, signed.key

    def decide(self, case: Case, now: float) -> Decision:
        """By the rules, as far as they say anything."""
        if self._policy is None:
            return Decision(False, "none")
        facts = Facts(
            client=case.asking.client,
            request=case.request,
            at=now,
            deadline_s=case.asking.expires_at - now,
            signed=case.signed_by is not None,
        )
        try:
            return Decision(True, self._policy.permit(facts).rule)
        except PolicyError as refused:
            applying = (one.rule for one in self._policy.consider(facts) if one.applies)
            denied = next((rule.id for rule in applying if not rule.allows), None)
            if denied is not None:
                return Decision(False, denied, f"rule {denied} denies it")
            reason = f"no rule of {self.authorizer_id} allows it" if self._unmatched == "deny" else ""
            return Decision(False, refused.rule, reason)

    async def sign(self, case: Case) -> Answer:
        """Our signature; it is on disk what is signed before it is.

        Raises:
            RejectError: `CONFLICT`: another request was signed under this id meanwhile.
            HaltError: the key or the file of decisions cannot be used.
        """
        asking = case.asking
        await asyncio.to_thread(self._decisions.hold, asking.operation, asking.operation_id, case.digest)
        signed = await self._signer.sign(case.to_sign)
        return Answer(self.authorizer_id, signed.signature)


def _check_policy(policy: Policy) -> None:
    if policy.limits:
        raise _unusable("limits are for the daemon: an authorizer does not count")
    for rule in policy.rules:
        for when in (rule.when, rule.unless):
            if when is not None and "owners" in when.stated:
                raise _unusable(f"rule {rule.id}: owners cannot be known here: the daemon's record alone has them")
        if rule.authorizers:
            raise _unusable(f"rule {rule.id}: authorizers are for the daemon to ask")


def _unusable(reason: str) -> HaltError:
    return HaltError(Code.POLICY_INVALID, reason, field="policy")


def _bad(name: str, reason: str) -> RejectError:
    return RejectError(Code.INVALID_FIELD, reason, field=name)
