"""The policy file: its form, and what it says as a `Policy`.

Invariants: an unknown key is refused wherever it stands; a condition that can never hold is refused; all errors are
told at once, each with the rule that it stands in; the version is the file's own digest, so that two files that differ
are never taken for one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, tzinfo
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field, ValidationError, model_validator

from initiator.config.load import parse_yaml, plain_words
from initiator.config.section import Seconds, Section, Token
from initiator.core.authorization import is_authorizer
from initiator.core.model import KeyType, Operation
from initiator.core.policy import patterns
from initiator.core.policy.conditions import Conditions, inapplicable
from initiator.core.policy.rules import DEFAULT, Limit, Policy, Rule
from initiator.core.requester import parse_key
from initiator.core.spki import parse_public_key
from initiator.errors import Code, HaltError

PERIODS_S = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}
MAX_FILE_BYTES = 1_048_576
_HINT = "docs/policy.md has the form; `initiator policy check --file FILE` reads it without a daemon"

Pattern = Annotated[str, Field(max_length=256), AfterValidator(patterns.check_text)]
Patterns = tuple[Pattern, ...]


class TimesSection(Section):
    """Hours of the week."""

    days: tuple[str, ...] = Field(patterns.DAYS, strict=False)
    from_: str | int = Field("00:00", alias="from")
    until: str | int = Field("24:00")
    zone: str = Field("UTC", max_length=64)

    @model_validator(mode="after")
    def _readable(self) -> Self:
        self.window()
        return self

    def window(self) -> patterns.TimeWindow:
        start, end = patterns.parse_clock(self.from_), patterns.parse_clock(self.until)
        if start == end or start == patterns.DAY_MINUTES:
            raise ValueError("from and until: expected a time before 24:00, and another one; 00:00 and 24:00 are a day")
        return patterns.TimeWindow(patterns.parse_days(self.days), start, end, _zone(self.zone))


def _zone(name: str) -> tzinfo:
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"zone: expected a name such as Europe/Berlin, got {name!a}") from error


class ConditionsSection(Section):
    """What a rule, a limit or an `unless` is about; what is left out does not matter."""

    clients: Patterns | None = Field(None, strict=False, min_length=1)
    operations: tuple[Annotated[Operation, Field(strict=False)], ...] | None = Field(None, strict=False, min_length=1)
    key_types: tuple[Annotated[KeyType, Field(strict=False)], ...] | None = Field(None, strict=False, min_length=1)
    networks: Patterns | None = Field(None, strict=False, min_length=1)
    wallets: Patterns | None = Field(None, strict=False, min_length=1)
    owners: Patterns | None = Field(None, strict=False, min_length=1)
    paths: tuple[Annotated[str, Field(max_length=256)], ...] | None = Field(None, strict=False, min_length=1)
    nodes: Patterns | None = Field(None, strict=False, min_length=1)
    min_threshold: int | None = Field(None, ge=1)
    max_tx_bytes: int | None = Field(None, ge=1)
    max_deadline_s: Seconds | None = Field(None, strict=False)
    times: tuple[TimesSection, ...] | None = Field(None, strict=False, min_length=1)
    signed: bool | None = None

    @model_validator(mode="after")
    def _readable(self) -> Self:
        self.conditions()
        return self

    def stated(self) -> dict[str, Any]:
        """The conditions as they are written, for people."""
        plain = self.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
        return {name: plain[name] for name in ConditionsSection.model_fields if name in plain}

    def conditions(self) -> Conditions:
        return Conditions(
            clients=self.clients,
            operations=frozenset(self.operations) if self.operations else None,
            key_types=frozenset(self.key_types) if self.key_types else None,
            networks=self.networks,
            wallets=self.wallets,
            owners=self.owners,
            paths=tuple(patterns.parse_path(path) for path in self.paths) if self.paths else None,
            nodes=self.nodes,
            min_threshold=self.min_threshold,
            max_tx_bytes=self.max_tx_bytes,
            max_deadline_s=self.max_deadline_s,
            times=tuple(times.window() for times in self.times) if self.times else None,
            signed=self.signed,
        )


class NamedSection(ConditionsSection):
    """Conditions with a name."""

    id: Token
    description: str = Field("", max_length=512)
    unless: ConditionsSection | None = None

    @model_validator(mode="after")
    def _can_hold(self) -> Self:
        if self.unless is not None and not self.unless.conditions().stated:
            raise ValueError("unless: expected at least one condition")
        when = self.conditions()
        missing = {op: inapplicable(when, op) for op in when.operations or Operation}
        if all(missing.values()):
            name = min(name for names in missing.values() for name in names)
            raise ValueError(f"{name}: no {' or '.join(sorted(missing))} ever has it: this would never apply")
        return self


class RuleSection(NamedSection):
    effect: Literal["allow", "deny"]
    authorizers: tuple[str, ...] = Field((), strict=False)

    @model_validator(mode="after")
    def _only_allowing(self) -> Self:
        if self.authorizers and self.effect == "deny":
            raise ValueError("authorizers: a rule that denies has none")
        if len(set(self.authorizers)) < len(self.authorizers):
            raise ValueError("authorizers: expected each once")
        return self

    def rule(self) -> Rule:
        unless = self.unless.conditions() if self.unless else None
        return Rule(
            id=self.id,
            allows=self.effect == "allow",
            when=self.conditions(),
            unless=unless,
            authorizers=self.authorizers,
        )


class LimitSection(NamedSection):
    most: int = Field(ge=1, le=1_000_000_000)
    period: Literal["second", "minute", "hour", "day"]
    per: tuple[Literal["client", "wallet"], ...] = Field(("client",), strict=False)

    def limit(self) -> Limit:
        unless = self.unless.conditions() if self.unless else None
        period_s = PERIODS_S[self.period]
        return Limit(
            id=self.id,
            when=self.conditions(),
            unless=unless,
            per=frozenset(self.per),
            most=self.most,
            period_s=period_s,
        )


class ClientSection(Section):
    keys: tuple[Annotated[str, AfterValidator(lambda text: _checked_key(text))], ...] = Field((), strict=False)


def _checked_key(text: str) -> str:
    try:
        parse_key(text)
    except HaltError as error:
        raise ValueError(error.reason) from None
    return text


class AuthorizerSection(Section):
    """As the nodes' `authorization.authorizer_public_keys` has it."""

    algorithm: Literal["ed25519", "p256"]
    public_key: str

    @model_validator(mode="after")
    def _readable(self) -> Self:
        try:
            parse_public_key(self.public_key, self.algorithm)
        except HaltError as error:
            raise ValueError(f"public_key: {error.reason}") from None
        return self


class PolicySection(Section):
    """A whole policy file."""

    version: Literal[1]
    clients: dict[Token, ClientSection] = Field(default_factory=dict)
    authorizers: dict[str, AuthorizerSection] = Field(default_factory=dict)
    rules: tuple[RuleSection, ...] = Field((), strict=False)
    limits: tuple[LimitSection, ...] = Field((), strict=False)

    @model_validator(mode="after")
    def _unique(self) -> Self:
        for kind, ids in (("rules", [rule.id for rule in self.rules]), ("limits", [one.id for one in self.limits])):
            twice = sorted({one for one in ids if ids.count(one) > 1})
            if twice:
                raise ValueError(f"{kind}: {twice[0]} stands there twice")
        for name in self.authorizers:
            if not is_authorizer(name):
                raise ValueError(f"authorizers: expected ids of lower-case letters, digits, _ and -, got {name[:64]!a}")
        for rule in self.rules:
            for name in rule.authorizers:
                if name not in self.authorizers:
                    raise ValueError(f"rules: {rule.id} wants the authorizer {name[:64]!a}, whose key is not here")
        if DEFAULT in [rule.id for rule in self.rules]:
            raise ValueError(f"rules: `{DEFAULT}` names the answer where no rule speaks; choose another id")
        return self


def load_policy(path: str) -> Policy:
    """The policy in a file; raises as `read_policy`."""
    return read_policy(path)[1]


def read_policy(path: str) -> tuple[PolicySection, Policy]:
    """A policy file as it is written, and as what it says.

    Raises:
        HaltError: `POLICY_INVALID`, with every error and where it stands.
    """
    raw = _read(path)
    content = parse_yaml(raw)
    if isinstance(content, str):
        raise _invalid(path, content)
    try:
        section = PolicySection.model_validate(content)
    except ValidationError as error:
        raise _invalid(path, "; ".join(_problems(error, content))) from None
    return section, Policy(
        version=hashlib.sha256(raw).hexdigest()[:16],
        rules=tuple(rule.rule() for rule in section.rules),
        limits=tuple(limit.limit() for limit in section.limits),
        authorizers={
            name: parse_public_key(one.public_key, one.algorithm) for name, one in section.authorizers.items()
        },
        keys={name: tuple(parse_key(key) for key in client.keys) for name, client in section.clients.items()},
    )


def _read(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        raise _invalid(path, getattr(error, "strerror", None) or "no path of a file") from error
    if len(raw) > MAX_FILE_BYTES:
        raise _invalid(path, f"larger than {MAX_FILE_BYTES} bytes")
    return raw


def _invalid(path: str, reason: str) -> HaltError:
    return HaltError(Code.POLICY_INVALID, f"{path}: {reason}", field="policy.file", hint=_HINT)


def _problems(error: ValidationError, content: Any) -> Sequence[str]:
    found = []
    for item in error.errors(include_url=False, include_context=False, include_input=True):
        where = _where(item["loc"], content)
        if item["type"] == "extra_forbidden":
            found.append(f"{where}: no such key")
            continue
        value = item.get("input")
        shown = (
            f", got {str(value)[:64]!r}" if isinstance(value, (str, int, float)) and "got" not in item["msg"] else ""
        )
        found.append(f"{where}: {plain_words(item['msg'])}{shown}")
    return found


def _where(loc: Sequence[str | int], content: Any) -> str:
    """`rules.3 (pay-sign).wallets.0`: a place in the file, with the id of the rule that stands there."""
    parts = [str(part) for part in loc if part != "[key]"]
    if len(loc) > 1 and isinstance(loc[1], int) and isinstance(content, dict):
        section = content.get(str(loc[0]))
        item = section[loc[1]] if isinstance(section, list) and loc[1] < len(section) else None
        if isinstance(item, dict) and isinstance(item.get("id"), str):
            parts[1] = f"{loc[1]} ({item['id'][:64]})"
    return ".".join(parts) or "policy"
