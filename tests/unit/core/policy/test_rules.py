"""Default deny, explicit deny wins, the first allow rule that holds permits, and every refusal names its rule."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initiator.core.model import KeygenRequest, KeyType, Operation, Request, ReshareRequest, SignRequest
from initiator.core.policy.conditions import Conditions, Facts, inapplicable
from initiator.core.policy.patterns import TimeWindow, parse_path
from initiator.core.policy.rules import DEFAULT, Count, Limit, Policy, PolicyError, Rule, unrestricted
from initiator.errors import Code

KEYGEN = KeygenRequest(wallet_id="w1")
SIGN = SignRequest(
    key_type=KeyType.SECP256K1, wallet_id="w1", network_internal_code="eth", tx_id="t1", tx=bytes(32),
    derivation_path=(44, 60),
)  # fmt: skip
RESHARE = ReshareRequest(
    session_id="s1", node_ids=("n0", "n1"), new_threshold=1, key_type=KeyType.ED25519, wallet_id="w1"
)


def facts(request: Request = SIGN, **more: Any) -> Facts:
    return Facts(**({"client": "alice", "request": request, "at": 0.0, "deadline_s": 900.0} | more))


def policy(*rules: Rule, limits: tuple[Limit, ...] = ()) -> Policy:
    return Policy(version="v", rules=rules, limits=limits)


def allow(id_: str = "yes", unless: Conditions | None = None, **when: Any) -> Rule:
    return Rule(id=id_, allows=True, when=Conditions(**when), unless=unless)


def deny(id_: str = "no", unless: Conditions | None = None, **when: Any) -> Rule:
    return Rule(id=id_, allows=False, when=Conditions(**when), unless=unless)


def refused(by: Policy, asked: Facts) -> PolicyError:
    with pytest.raises(PolicyError) as caught:
        by.permit(asked)
    assert caught.value.code is Code.POLICY_DENIED
    assert caught.value.field == f"policy.rules.{caught.value.rule}"
    return caught.value


def test_no_rule_means_no() -> None:
    error = refused(policy(), facts())
    assert (error.rule, error.reason) == (DEFAULT, "no rule allows alice any sign")


def test_a_rule_about_others_means_no() -> None:
    assert refused(policy(allow(clients=("bob",))), facts()).rule == DEFAULT


def test_a_deny_rule_wins_wherever_it_stands() -> None:
    for rules in ((allow(), deny()), (deny(), allow())):
        error = refused(policy(*rules), facts())
        assert (error.rule, error.reason) == ("no", "rule no denies it")


def test_the_first_allow_rule_that_holds_is_the_one() -> None:
    grant = policy(allow("bob-only", clients=("bob",)), allow("first"), allow("second")).permit(facts())
    assert (grant.rule, grant.version) == ("first", "v")


def test_the_refusal_names_the_rule_that_came_nearest_and_what_it_lacks() -> None:
    far = allow("far", wallets=("x",), key_types=frozenset({KeyType.ED25519}))
    near = allow("near", wallets=("w*",), networks=("btc",))
    error = refused(policy(far, near), facts())
    assert (error.rule, error.reason) == ("near", "no rule allows it; rule near would, but for networks")


def test_unless_takes_from_a_rule() -> None:
    unsigned = deny("unsigned", unless=Conditions(signed=True))
    assert policy(unsigned, allow()).permit(facts(signed=True)).rule == "yes"
    assert refused(policy(unsigned, allow()), facts()).rule == "unsigned"
    only = allow(unless=Conditions(networks=("eth",)))
    assert refused(policy(only), facts()).reason == "no rule allows it; rule yes would, but for unless"


def test_unless_about_another_client_or_operation_takes_nothing() -> None:
    rule = deny(unless=Conditions(clients=("bob",)))
    assert refused(policy(rule, allow()), facts()).rule == "no"
    rule = deny(unless=Conditions(operations=frozenset({Operation.KEYGEN})))
    assert refused(policy(rule, allow()), facts()).rule == "no"
    # what a keygen does not have never holds: the deny stays
    rule = deny(unless=Conditions(networks=("*",)))
    assert refused(policy(rule, allow()), facts(KEYGEN)).rule == "no"


ALWAYS = TimeWindow(frozenset(range(7)), 0, 1440, UTC)
NEVER = TimeWindow(frozenset({6}), 0, 1, UTC)


@pytest.mark.parametrize(
    ("condition", "holds", "fails", "request_", "more"),
    [
        ("clients", ("al*",), ("bob",), SIGN, {}),
        ("operations", frozenset({Operation.SIGN}), frozenset({Operation.KEYGEN}), SIGN, {}),
        ("key_types", frozenset({KeyType.SECP256K1}), frozenset({KeyType.ED25519}), SIGN, {}),
        ("key_types", frozenset({KeyType.ED25519}), frozenset({KeyType.SECP256K1}), RESHARE, {}),
        ("networks", ("e*",), ("btc",), SIGN, {}),
        ("wallets", ("w1",), ("w2",), KEYGEN, {}),
        ("wallets", ("w1",), ("w2",), SIGN, {}),
        ("wallets", ("w1",), ("w2",), RESHARE, {}),
        ("owners", ("{client}",), ("bob",), SIGN, {"owner": "alice"}),
        ("owners", ("*",), ("alice",), RESHARE, {"owner": "bob"}),
        ("paths", (parse_path("44/*"),), (parse_path("m"),), SIGN, {}),
        ("nodes", ("n?",), ("n0",), RESHARE, {}),
        ("min_threshold", 1, 2, RESHARE, {}),
        ("max_tx_bytes", 32, 31, SIGN, {}),
        ("max_deadline_s", 900.0, 899.9, KEYGEN, {}),
        ("times", (NEVER, ALWAYS), (NEVER,), SIGN, {}),
        ("signed", True, False, SIGN, {"signed": True}),
        ("signed", False, True, SIGN, {}),
    ],
)
def test_each_condition(condition: str, holds: Any, fails: Any, request_: Request, more: dict[str, Any]) -> None:
    asked = facts(request_, **more)
    assert policy(allow(**{condition: holds})).permit(asked).rule == "yes"
    error = refused(policy(allow(**{condition: fails})), asked)
    static = condition in ("clients", "operations")
    assert error.reason.endswith("any sign" if static else f"but for {condition}")
    assert refused(policy(deny(**{condition: holds}), allow()), asked).rule == "no"
    assert policy(deny(**{condition: fails}), allow()).permit(asked).rule == "yes"


@pytest.mark.parametrize("owners", [("*",), ("{client}",), ("",)])
def test_a_wallet_that_nobody_is_known_to_own_has_no_owner(owners: tuple[str, ...]) -> None:
    assert refused(policy(allow(owners=owners)), facts(owner=None)).reason.endswith("but for owners")


def test_what_an_operation_does_not_have_never_holds() -> None:
    stated: dict[str, Any] = {"networks": ("*",), "paths": (parse_path("**"),), "owners": ("*",), "nodes": ("*",)}
    for name, value in stated.items():
        assert refused(policy(allow(**{name: value})), facts(KEYGEN, owner="alice")).reason.endswith(f"but for {name}")
        assert policy(deny(**{name: value}), allow()).permit(facts(KEYGEN, owner="alice")).rule == "yes"
    assert inapplicable(Conditions(networks=("*",), wallets=("*",)), Operation.KEYGEN) == ("networks",)


def test_the_owner_is_asked_for_only_where_a_rule_or_limit_wants_it() -> None:
    by = policy(allow(clients=("alice",), owners=("*",)), allow(clients=("bob",)))
    assert by.asks_owner("alice", Operation.SIGN)
    assert not by.asks_owner("bob", Operation.SIGN)
    assert policy(deny(unless=Conditions(owners=("*",)))).asks_owner("bob", Operation.SIGN)
    limit = Limit(id="l", when=Conditions(owners=("*",)), most=1, period_s=60)
    assert policy(limits=(limit,)).asks_owner("bob", Operation.SIGN)


@pytest.mark.parametrize(
    ("per", "bucket"),
    [({"client"}, "c-alice"), ({"wallet"}, "w-w1"), ({"client", "wallet"}, "c-alice.w-w1"), (set(), "all")],
)
def test_limits_count_by_what_they_say(per: set[str], bucket: str) -> None:
    limit = Limit(id="daily", when=Conditions(wallets=("w*",)), per=frozenset(per), most=5, period_s=86_400)
    other = Limit(id="other", when=Conditions(wallets=("x*",)), most=5, period_s=60)
    grant = policy(allow(), limits=(limit, other)).permit(facts())
    assert grant.counts == (Count("daily", bucket, 5, 86_400),)


def test_every_limit_that_holds_counts_whichever_rule_allowed() -> None:
    limits = tuple(Limit(id=f"l{n}", when=Conditions(), most=n + 1, period_s=1) for n in range(3))
    assert [count.limit for count in policy(allow(), limits=limits).permit(facts()).counts] == ["l0", "l1", "l2"]


def test_without_a_file_nothing_is_restricted() -> None:
    for request in (KEYGEN, SIGN, RESHARE):
        assert unrestricted().permit(facts(request)).rule == "no-policy-file"


def test_strangers_names_do_not_fill_the_memory() -> None:
    by = policy(allow(clients=("nobody",)))
    for number in range(10_000):
        refused(by, facts(client=f"c{number}"))
    assert len(by._views) <= 4096


# --- properties


def conditions() -> st.SearchStrategy[Conditions]:
    texts = st.none() | st.sampled_from([("*",), ("w1",), ("a*", "x"), ("{client}",)])
    return st.builds(
        Conditions,
        clients=st.none() | st.sampled_from([("*",), ("alice",), ("bob",)]),
        operations=st.none() | st.frozensets(st.sampled_from(Operation), min_size=1),
        wallets=texts,
        owners=texts,
        key_types=st.none() | st.frozensets(st.sampled_from(KeyType), min_size=1),
        signed=st.none() | st.booleans(),
        max_deadline_s=st.none() | st.sampled_from([1.0, 900.0]),
    )


def rules() -> st.SearchStrategy[list[Rule]]:
    unless = st.none() | conditions().filter(lambda found: bool(found.stated))
    one = st.tuples(st.booleans(), conditions(), unless)
    made = st.lists(one, max_size=6)
    return made.map(lambda all_: [Rule(id=f"r{n}", allows=a, when=w, unless=u) for n, (a, w, u) in enumerate(all_)])


def asked() -> st.SearchStrategy[Facts]:
    return st.builds(
        Facts,
        client=st.sampled_from(["alice", "bob", "carol"]),
        request=st.sampled_from([KEYGEN, SIGN, RESHARE]),
        at=st.just(0.0),
        deadline_s=st.sampled_from([0.5, 900.0, 901.0]),
        signed=st.booleans(),
        owner=st.none() | st.sampled_from(["alice", "bob", "w1"]),
    )


def outcome(by: Policy, of: Facts) -> str | None:
    try:
        return by.permit(of).rule
    except PolicyError:
        return None


@given(rules(), asked(), conditions())
def test_a_further_deny_rule_allows_nothing_and_a_further_allow_rule_denies_nothing(
    some: list[Rule], of: Facts, when: Conditions
) -> None:
    before = outcome(policy(*some), of)
    after_deny = outcome(policy(*some, Rule(id="more", allows=False, when=when)), of)
    after_allow = outcome(policy(*some, Rule(id="more", allows=True, when=when)), of)
    assert after_deny in (before, None)
    assert after_allow == before if before else after_allow in (None, "more")


@given(rules(), asked())
def test_the_answer_is_what_the_words_say(some: list[Rule], of: Facts) -> None:
    """Held against the definition, spelled out without any of the preparation."""
    holding = [rule for rule in some if all(_plain(rule.when, of)) and not _taken(rule, of)]
    expected = None
    if all(rule.allows for rule in holding):
        expected = next((rule.id for rule in holding), None)
    assert outcome(policy(*some), of) == expected
    considered = {one.rule.id for one in policy(*some).consider(of) if one.applies}
    assert considered == {rule.id for rule in holding}


def _taken(rule: Rule, of: Facts) -> bool:
    return rule.unless is not None and all(_plain(rule.unless, of))


def _plain(when: Conditions, of: Facts) -> Iterator[bool]:
    def any_of(patterns: tuple[str, ...], text: str | None) -> bool:
        if text is None:
            return False
        plain = [pattern.replace("{client}", of.client) for pattern in patterns]
        return any(text.startswith(one[:-1]) if one.endswith("*") else text == one for one in plain)

    keygen = isinstance(of.request, KeygenRequest)
    if when.clients is not None:
        yield any_of(when.clients, of.client)
    if when.operations is not None:
        yield of.request.operation in when.operations
    if when.wallets is not None:
        yield any_of(when.wallets, of.request.wallet_id)
    if when.owners is not None:
        yield not keygen and any_of(when.owners, of.owner)
    if when.key_types is not None:
        yield not keygen and getattr(of.request, "key_type", None) in when.key_types
    if when.signed is not None:
        yield of.signed == when.signed
    if when.max_deadline_s is not None:
        yield of.deadline_s <= when.max_deadline_s
