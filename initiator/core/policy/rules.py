"""The decision: may this client have this, by which rule, and which limits count it.

Invariants, in the order in which they are applied:
- a deny rule whose conditions all hold refuses, whatever else is allowed;
- the first allow rule whose conditions all hold permits; without one the answer is no;
- `unless` takes from a rule what its conditions all hold for;
- every refusal names its rule: the one that denies, or the allow rule that came nearest.

A limit is no rule: every limit whose conditions hold counts the request, whichever rule allowed it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from initiator.core.model import Operation
from initiator.core.policy.conditions import Check, Conditions, Facts, compile_checks, first_failing, speaks_of
from initiator.core.signer import PublicKey
from initiator.errors import Code, RejectError

DEFAULT = "default"
"""Where no rule speaks: the answer is no."""

_VIEWS = 4096


class PolicyError(RejectError):
    """Refused by the policy; `rule` is the id of the rule, or `default`."""

    def __init__(self, rule: str, reason: str) -> None:
        super().__init__(Code.POLICY_DENIED, reason, field=f"policy.rules.{rule}")
        self.rule = rule


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One statement. `allows` is false where it denies.

    Attributes:
        authorizers: who must have signed, too, before the nodes are asked; of a rule that allows.
    """

    id: str
    allows: bool
    when: Conditions
    unless: Conditions | None = None
    authorizers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """How many operations may begin in a period.

    Attributes:
        per: what has a count of its own: each `client`, each `wallet`, both, or (empty) nothing: one count for all.
        most: operations in one period, over all replicas.
        period_s: 1, 60, 3,600 or 86,400: calendar periods in UTC.
    """

    id: str
    when: Conditions
    unless: Conditions | None = None
    per: frozenset[str] = frozenset({"client"})
    most: int
    period_s: int


@dataclass(frozen=True, slots=True)
class Count:
    """One count of a limit, for one client or wallet; `bucket` is a safe token."""

    limit: str
    bucket: str
    most: int
    period_s: int


@dataclass(frozen=True, slots=True)
class Grant:
    """A yes.

    Attributes:
        version: of the policy that said it.
        counts: the counts that the operation takes one place of, each.
        authorizers: who must sign, too.
    """

    rule: str
    version: str
    counts: tuple[Count, ...] = ()
    authorizers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Considered:
    """A rule as it looked at one request; `failing`: the condition that does not hold, if one does not."""

    rule: Rule
    failing: str | None

    @property
    def applies(self) -> bool:
        return self.failing is None


@dataclass(frozen=True, slots=True)
class _Asked:
    """A rule or limit with its conditions ready for one client and operation."""

    checks: tuple[Check, ...]
    unless: tuple[Check, ...] | None

    def failing(self, facts: Facts) -> str | None:
        failing = first_failing(self.checks, facts)
        if failing is None and self.unless is not None and first_failing(self.unless, facts) is None:
            return "unless"
        return failing


@dataclass(frozen=True, slots=True)
class _View:
    """What a policy has to say of one client and operation, in the order in which it is asked."""

    rules: tuple[tuple[Rule, _Asked], ...]
    limits: tuple[tuple[Limit, _Asked], ...]
    asks_owner: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """All rules and limits of one file.

    Attributes:
        version: SHA-256 of the file, shortened: what events and logs name.
        keys: the public keys with which each client signs its requests.
        authorizers: the public keys of authorizers, by id, as the nodes have them.
    """

    version: str
    rules: tuple[Rule, ...] = ()
    limits: tuple[Limit, ...] = ()
    keys: Mapping[str, Sequence[PublicKey]] = field(default_factory=dict)
    authorizers: Mapping[str, PublicKey] = field(default_factory=dict)
    _views: dict[tuple[str, Operation], _View] = field(default_factory=dict, compare=False, repr=False)

    def permit(self, facts: Facts) -> Grant:
        """The rule that allows a request, and what counts it.

        Raises:
            PolicyError: no, with the rule that says so.
        """
        view = self._view(facts.client, facts.request.operation)
        nearest: tuple[int, str, str] | None = None
        for rule, asked in view.rules:
            failing = asked.failing(facts)
            if failing is None and not rule.allows:
                raise PolicyError(rule.id, f"rule {rule.id} denies it")
            if failing is None:
                return Grant(rule.id, self.version, tuple(self._counts(view, facts)), rule.authorizers)
            if rule.allows:
                met = _met(asked, failing)
                if nearest is None or met > nearest[0]:
                    nearest = (met, rule.id, failing)
        if nearest is None:
            raise PolicyError(DEFAULT, f"no rule allows {facts.client} any {facts.request.operation}")
        _, rule_id, failing = nearest
        raise PolicyError(rule_id, f"no rule allows it; rule {rule_id} would, but for {failing}")

    def consider(self, facts: Facts) -> Iterator[Considered]:
        """Every rule about this client and operation, denying ones first, with what kept it from applying."""
        for rule, asked in self._view(facts.client, facts.request.operation).rules:
            yield Considered(rule, asked.failing(facts))

    def counts(self, facts: Facts) -> tuple[Count, ...]:
        """The counts that a request would take a place of."""
        return tuple(self._counts(self._view(facts.client, facts.request.operation), facts))

    def asks_owner(self, client: str, operation: Operation) -> bool:
        """Whether a decision needs to know who made the wallet."""
        return self._view(client, operation).asks_owner

    def _counts(self, view: _View, facts: Facts) -> Iterator[Count]:
        for limit, asked in view.limits:
            if asked.failing(facts) is None:
                yield Count(limit.id, _bucket(limit, facts), limit.most, limit.period_s)

    def _view(self, client: str, operation: Operation) -> _View:
        key = (client, operation)
        found = self._views.get(key)
        if found is None:
            if len(self._views) >= _VIEWS:  # names come from outside
                self._views.clear()
            found = self._views[key] = self._make_view(client, operation)
        return found

    def _make_view(self, client: str, operation: Operation) -> _View:
        ordered = sorted(self.rules, key=lambda rule: rule.allows)  # deny rules first; each kind in the file's order
        rules = tuple(
            (rule, _ask(rule, client, operation)) for rule in ordered if speaks_of(rule.when, client, operation)
        )
        limits = tuple(
            (limit, _ask(limit, client, operation)) for limit in self.limits if speaks_of(limit.when, client, operation)
        )
        asked = [asked for _, asked in (*rules, *limits)]
        asks_owner = any(check.name == "owners" for one in asked for check in (*one.checks, *(one.unless or ())))
        return _View(rules, limits, asks_owner)


def _ask(of: Rule | Limit, client: str, operation: Operation) -> _Asked:
    unless = None
    if of.unless is not None and speaks_of(of.unless, client, operation):
        unless = compile_checks(of.unless, client, operation)
    return _Asked(compile_checks(of.when, client, operation), unless)


def _met(asked: _Asked, failing: str) -> int:
    """How many conditions held before the one that did not."""
    if failing == "unless":
        return len(asked.checks)
    return next(index for index, check in enumerate(asked.checks) if check.name == failing)


def _bucket(limit: Limit, facts: Facts) -> str:
    parts = []
    if "client" in limit.per:
        parts.append(f"c-{facts.client}")
    if "wallet" in limit.per:
        parts.append(f"w-{facts.request.wallet_id}")
    return ".".join(parts) or "all"


def unrestricted() -> Policy:
    """What holds without a policy file: every configured client may have whatever its operations are."""
    return Policy(version="none", rules=(Rule(id="no-policy-file", allows=True, when=Conditions()),))
