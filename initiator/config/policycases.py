"""Cases that a policy is held against: a platform keeps its policy under test."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from initiator.config.load import read_file, section_from
from initiator.config.section import Section, Token
from initiator.core.model import KeygenRequest, KeyType, Operation, Request, ReshareRequest, SignRequest
from initiator.core.policy.conditions import Facts


class RequestSection(Section):
    """What of a request a policy looks at; the rest has values that do not matter."""

    wallet_id: str = "wallet"
    key_type: Annotated[KeyType, Field(strict=False)] = KeyType.SECP256K1
    network_internal_code: str = ""
    tx_id: str = "tx"
    tx_bytes: int = Field(32, ge=1, le=1_048_576)
    derivation_path: tuple[int, ...] | None = Field(None, strict=False)
    session_id: str = "session"
    node_ids: tuple[str, ...] = Field(("node0", "node1"), strict=False)
    new_threshold: int = Field(1, ge=1)

    def request(self, operation: Operation) -> Request:
        match operation:
            case Operation.KEYGEN:
                return KeygenRequest(wallet_id=self.wallet_id)
            case Operation.SIGN:
                return SignRequest(
                    key_type=self.key_type,
                    wallet_id=self.wallet_id,
                    network_internal_code=self.network_internal_code,
                    tx_id=self.tx_id,
                    tx=bytes(self.tx_bytes),
                    derivation_path=self.derivation_path or None,
                )
            case Operation.RESHARE:
                return ReshareRequest(
                    session_id=self.session_id,
                    node_ids=self.node_ids,
                    new_threshold=self.new_threshold,
                    key_type=self.key_type,
                    wallet_id=self.wallet_id,
                )


class AskedSection(Section):
    """Who asks for what, and how."""

    client: Token
    operation: Annotated[Operation, Field(strict=False)]
    request: RequestSection = Field(default_factory=RequestSection)
    deadline_s: float = Field(900.0, gt=0, strict=False)
    signed: bool = False
    owner: Token | None = None
    at: Annotated[datetime, BeforeValidator(lambda at: _moment(at))] | None = None

    def facts(self, now: float) -> Facts:
        """What the policy decides on.

        Args:
            now: Unix seconds; where the case names no time.
        """
        return Facts(
            client=self.client,
            request=self.request.request(self.operation),
            at=now if self.at is None else self.at.timestamp(),
            deadline_s=self.deadline_s,
            signed=self.signed,
            owner=self.owner,
        )


def _moment(at: Any) -> datetime:
    """YAML reads an unquoted time as one. Raises ValueError."""
    moment = at if isinstance(at, datetime) else datetime.fromisoformat(str(at))
    if moment.tzinfo is None:
        raise ValueError("expected a time with a zone, such as 2026-01-31T12:00:00Z")
    return moment


class CaseSection(AskedSection):
    """One case and its answer.

    Attributes:
        rule: the rule that decides.
        limits: the limits that count it, where it is allowed.
    """

    name: str = Field(min_length=1, max_length=256)
    expect: Literal["allow", "deny"]
    rule: str | None = None
    limits: tuple[str, ...] | None = Field(None, strict=False)


class CasesSection(Section):
    """A whole file of cases."""

    cases: tuple[CaseSection, ...] = Field(strict=False, min_length=1)


def load_cases(path: str) -> tuple[CaseSection, ...]:
    """The cases in a file; raises HaltError, with every error."""
    return section_from(CasesSection, read_file(path), path, strict=None).cases


def asked(fields: dict[str, Any], source: str) -> AskedSection:
    """One request to be explained; raises HaltError, with every error."""
    return section_from(AskedSection, fields, source, strict=None)
