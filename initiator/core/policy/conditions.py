"""Conditions on a request: all that are stated must hold.

Invariants:
- what is not stated does not matter; a condition on something that an operation does not have never holds for it;
- a check that lacks its fact (a wallet that nobody is known to own) does not hold: allow rules fail closed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields

from initiator.core.model import KeyType, Operation, Request, ReshareRequest, SignRequest
from initiator.core.policy.patterns import PathPattern, TimeWindow, compile_texts

Texts = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a decision looks at.

    Attributes:
        at: the moment of the decision, Unix seconds.
        deadline_s: seconds from the request's arrival to its deadline, the lane's own where it names none.
        signed: it carries its client's valid signature.
        owner: the client whose keygen made the wallet; None: nobody, as far as the record knows, or not asked for.
    """

    client: str
    request: Request
    at: float
    deadline_s: float
    signed: bool = False
    owner: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """As a policy states them; None: not stated.

    Attributes:
        clients, networks, wallets, owners, nodes: patterns, any of which may match (each node must match one).
        owners: who made the wallet; a keygen has none.
        max_deadline_s: longest deadline, from the request's arrival.
        signed: whether the request carries its client's signature.
    """

    clients: Texts | None = None
    operations: frozenset[Operation] | None = None
    key_types: frozenset[KeyType] | None = None
    networks: Texts | None = None
    wallets: Texts | None = None
    owners: Texts | None = None
    paths: tuple[PathPattern, ...] | None = None
    nodes: Texts | None = None
    min_threshold: int | None = None
    max_tx_bytes: int | None = None
    max_deadline_s: float | None = None
    times: tuple[TimeWindow, ...] | None = None
    signed: bool | None = None

    @property
    def stated(self) -> tuple[str, ...]:
        """The names of those that are stated."""
        return tuple(field.name for field in fields(self) if getattr(self, field.name) is not None)


@dataclass(frozen=True, slots=True)
class Check:
    """One condition, ready to be asked."""

    name: str
    holds: Callable[[Facts], bool]


_HAS: dict[str, frozenset[Operation]] = {
    "key_types": frozenset({Operation.SIGN, Operation.RESHARE}),
    "networks": frozenset({Operation.SIGN}),
    "owners": frozenset({Operation.SIGN, Operation.RESHARE}),
    "paths": frozenset({Operation.SIGN}),
    "nodes": frozenset({Operation.RESHARE}),
    "min_threshold": frozenset({Operation.RESHARE}),
    "max_tx_bytes": frozenset({Operation.SIGN}),
}


def inapplicable(conditions: Conditions, operation: Operation) -> tuple[str, ...]:
    """The stated conditions that never hold for an operation, since it has no such thing."""
    return tuple(name for name in conditions.stated if operation not in _HAS.get(name, (operation,)))


def speaks_of(conditions: Conditions, client: str, operation: Operation) -> bool:
    """Whether client and operation, which every request has, are what the conditions are about."""
    if conditions.operations is not None and operation not in conditions.operations:
        return False
    return conditions.clients is None or compile_texts(conditions.clients, client).fullmatch(client) is not None


def compile_checks(conditions: Conditions, client: str, operation: Operation) -> tuple[Check, ...]:
    """What remains to be asked of a request of this client and operation (see `speaks_of`)."""
    missing = inapplicable(conditions, operation)
    never = (Check(name, lambda _facts: False) for name in missing)
    return (*never, *(check for check in _checks(conditions, client) if check.name not in missing))


def _checks(conditions: Conditions, client: str) -> Iterator[Check]:
    if (patterns := conditions.wallets) is not None:
        wallet = compile_texts(patterns, client).fullmatch
        yield Check("wallets", lambda facts: wallet(facts.request.wallet_id) is not None)
    yield from _sign_checks(conditions, client)
    yield from _reshare_checks(conditions, client)
    if (key_types := conditions.key_types) is not None:
        yield Check("key_types", lambda facts: getattr(facts.request, "key_type", None) in key_types)
    if (owners := conditions.owners) is not None:
        owner = compile_texts(owners, client).fullmatch
        yield Check("owners", lambda facts: facts.owner is not None and owner(facts.owner) is not None)
    if (longest_s := conditions.max_deadline_s) is not None:
        yield Check("max_deadline_s", lambda facts: facts.deadline_s <= longest_s)
    if (times := conditions.times) is not None:
        yield Check("times", lambda facts: any(window.holds(facts.at) for window in times))
    if (signed := conditions.signed) is not None:
        yield Check("signed", lambda facts: facts.signed is signed)


def _sign_checks(conditions: Conditions, client: str) -> Iterator[Check]:
    def of(holds: Callable[[SignRequest], bool]) -> Callable[[Facts], bool]:
        return lambda facts: isinstance(facts.request, SignRequest) and holds(facts.request)

    if (patterns := conditions.networks) is not None:
        network = compile_texts(patterns, client).fullmatch
        yield Check("networks", of(lambda request: network(request.network_internal_code) is not None))
    if (paths := conditions.paths) is not None:
        # path swap: mpcium's signature does not cover the path, so nobody else will look at it
        yield Check("paths", of(lambda request: any(path.holds(request.derivation_path) for path in paths)))
    if (largest := conditions.max_tx_bytes) is not None:
        yield Check("max_tx_bytes", of(lambda request: len(request.tx) <= largest))


def _reshare_checks(conditions: Conditions, client: str) -> Iterator[Check]:
    def of(holds: Callable[[ReshareRequest], bool]) -> Callable[[Facts], bool]:
        return lambda facts: isinstance(facts.request, ReshareRequest) and holds(facts.request)

    if (patterns := conditions.nodes) is not None:
        node = compile_texts(patterns, client).fullmatch
        yield Check("nodes", of(lambda request: all(node(one) is not None for one in request.node_ids)))
    if (lowest := conditions.min_threshold) is not None:
        yield Check("min_threshold", of(lambda request: request.new_threshold >= lowest))


def first_failing(checks: tuple[Check, ...], facts: Facts) -> str | None:
    """The name of the first condition that does not hold; None: all do."""
    for check in checks:
        if not check.holds(facts):
            return check.name
    return None
