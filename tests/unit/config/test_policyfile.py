"""A policy file: what it says, and what is wrong with it, each with the rule that it stands in."""

from __future__ import annotations

import hashlib
from pathlib import Path
from textwrap import dedent

import nkeys
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from initiator.config.policyfile import load_policy
from initiator.core.model import KeyType, Operation, SignRequest
from initiator.core.policy.conditions import Facts
from initiator.core.requester import key_text, parse_key
from initiator.core.spki import p256_public_key
from initiator.errors import Code, HaltError

WHOLE = """
version: 1
rules:
  - id: pay
    description: what the payment service is for
    effect: allow
    clients: [payments]
    operations: [sign]
    key_types: [secp256k1]
    networks: ["eip155:*"]
    wallets: ["{client}-*"]
    owners: ["{client}"]
    paths: [m, "44/60/0/0/*"]
    max_tx_bytes: 32
    max_deadline_s: 900
    signed: true
    times: [{days: [mon-fri], from: 08:00, until: 18:00, zone: Europe/Berlin}]
  - {id: move, effect: allow, operations: [reshare], nodes: ["node?"], min_threshold: 2}
  - {id: no-tests, effect: deny, wallets: ["test-*"], unless: {clients: [tests]}}
limits:
  - {id: daily, clients: [payments], per: [client, wallet], most: 100, period: day}
"""


def written(folder: Path, text: str) -> str:
    path = folder / "policy.yaml"
    path.write_text(dedent(text))
    return str(path)


def refused(folder: Path, text: str) -> str:
    with pytest.raises(HaltError) as caught:
        load_policy(written(folder, text))
    assert (caught.value.code, caught.value.field) == (Code.POLICY_INVALID, "policy.file")
    assert caught.value.hint
    return caught.value.reason


def test_a_whole_file(tmp_path: Path) -> None:
    found = load_policy(written(tmp_path, WHOLE))
    assert [rule.id for rule in found.rules] == ["pay", "move", "no-tests"]
    assert found.rules[0].when.stated == (
        "clients", "operations", "key_types", "networks", "wallets", "owners", "paths", "max_tx_bytes",
        "max_deadline_s", "times", "signed",
    )  # fmt: skip
    request = SignRequest(
        key_type=KeyType.SECP256K1, wallet_id="payments-1", network_internal_code="eip155:1", tx_id="t", tx=bytes(32)
    )
    thursday_ten = 1795687200.0  # 2026-11-26T10:00:00Z
    facts = Facts(client="payments", request=request, at=thursday_ten, deadline_s=900, signed=True, owner="payments")
    grant = found.permit(facts)
    assert (grant.rule, grant.version) == ("pay", hashlib.sha256(WHOLE.encode()).hexdigest()[:16])
    assert [(count.limit, count.bucket) for count in grant.counts] == [("daily", "c-payments.w-payments-1")]
    assert found.limits[0].period_s == 86_400


def test_the_version_is_the_files_own_digest(tmp_path: Path) -> None:
    first = load_policy(written(tmp_path, WHOLE)).version
    assert load_policy(written(tmp_path, WHOLE + "# a remark\n")).version != first
    assert load_policy(written(tmp_path, WHOLE)).version == first


def test_an_empty_policy_allows_nothing(tmp_path: Path) -> None:
    assert load_policy(written(tmp_path, "version: 1")).rules == ()


def test_keys_of_clients_in_all_their_forms(tmp_path: Path) -> None:
    edwards = ed25519.Ed25519PrivateKey.generate()
    nkey = nkeys.encode_seed(edwards.private_bytes_raw(), nkeys.PREFIX_BYTE_USER)
    user = nkeys.from_seed(nkey).public_key.decode()
    p256 = p256_public_key(ec.generate_private_key(ec.SECP256R1()).public_key())
    raw = edwards.public_key().public_bytes_raw().hex()
    keys = [user, p256.hex, key_text(p256), raw]
    found = load_policy(written(tmp_path, f"version: 1\nclients: {{payments: {{keys: {keys}}}}}\n"))
    assert [key_text(key) for key in found.keys["payments"]] == [user, key_text(p256), key_text(p256), user]
    assert parse_key(user) == parse_key(raw)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "version: field required"),
        ("version: 2", "version: expected 1"),
        ("- a", "expected a map at the top"),
        ("version: 1\nrules: [", "at line 2"),
        ("version: 1\nrule: []", "rule: no such key"),
        ("version: 1\nrules: [{effect: allow}]", "rules.0.id: field required"),
        ("version: 1\nrules: [{id: a}]", "rules.0 (a).effect: field required"),
        (
            "version: 1\nrules: [{id: a, effect: permit}]",
            "rules.0 (a).effect: expected 'allow' or 'deny', got 'permit'",
        ),
        ("version: 1\nrules: [{id: a b, effect: allow}]", "rules.0 (a b).id: "),
        ("version: 1\nrules: [{id: default, effect: allow}]", "rules: `default` names the answer"),
        ("version: 1\nrules: [{id: a, effect: allow}, {id: a, effect: deny}]", "rules: a stands there twice"),
        ("version: 1\nrules: [{id: a, effect: allow, wallet: [x]}]", "rules.0 (a).wallet: no such key"),
        ("version: 1\nrules: [{id: a, effect: allow, wallets: []}]", "rules.0 (a).wallets: "),
        ("version: 1\nrules: [{id: a, effect: allow, wallets: x}]", "rules.0 (a).wallets: "),
        ("version: 1\nrules: [{id: a, effect: allow, networks: [1]}]", "rules.0 (a).networks.0: "),
        (
            "version: 1\nrules: [{id: a, effect: allow, wallets: ['{x}']}]",
            "rules.0 (a).wallets.0: expected only {client}",
        ),
        ("version: 1\nrules: [{id: a, effect: allow, operations: [mint]}]", "rules.0 (a).operations.0: "),
        ('version: 1\nrules: [{id: a, effect: allow, paths: ["44\'"]}]', "rules.0 (a): expected levels"),
        ("version: 1\nrules: [{id: a, effect: allow, signed: 'yes'}]", "rules.0 (a).signed: "),
        ("version: 1\nrules: [{id: a, effect: allow, max_tx_bytes: 0}]", "rules.0 (a).max_tx_bytes: "),
        ("version: 1\nrules: [{id: a, effect: allow, max_deadline_s: -1}]", "rules.0 (a).max_deadline_s: "),
        ("version: 1\nrules: [{id: a, effect: allow, unless: {}}]", "rules.0 (a): unless: expected at least one"),
        ("version: 1\nrules: [{id: a, effect: allow, operations: [keygen], networks: [x]}]", "would never apply"),
        ("version: 1\nrules: [{id: a, effect: allow, nodes: [n], paths: [m]}]", "would never apply"),
        (
            "version: 1\nrules: [{id: a, effect: allow, times: [{days: [someday]}]}]",
            "rules.0 (a).times.0: expected days",
        ),
        ("version: 1\nrules: [{id: a, effect: allow, times: [{from: '25:00'}]}]", "expected a time of day"),
        (
            "version: 1\nrules: [{id: a, effect: allow, times: [{from: '08:00', until: '08:00'}]}]",
            "before 24:00",
        ),
        ("version: 1\nrules: [{id: a, effect: allow, times: [{zone: Mars/Base}]}]", "expected a name such as"),
        ("version: 1\nrules: [{id: a, effect: allow, times: [{zone: ../../etc/passwd}]}]", "expected a name such as"),
        ("version: 1\nrules: [{id: a, effect: allow, times: [{from: 20}]}]", "expected a time of day"),
        ("version: 1\nrules: [{id: a, effect: allow, times: [{from: '24:00', until: '08:00'}]}]", "before 24:00"),
        ("version: 1\nlimits: [{id: l, most: 0, period: day}]", "limits.0 (l).most: "),
        ("version: 1\nlimits: [{id: l, most: 5, period: week}]", "limits.0 (l).period: "),
        ("version: 1\nlimits: [{id: l, most: 5, period: day, per: [node]}]", "limits.0 (l).per.0: "),
        (
            "version: 1\nlimits: [{id: l, most: 5, period: day}, {id: l, most: 5, period: day}]",
            "limits: l stands there",
        ),
        ("version: 1\nclients: {a: {keys: [nonsense]}}", "clients.a.keys.0: expected P-256 Subject"),
        ("version: 1\nclients: {a b: {}}", "clients.a b: "),
        ("version: 1\nversion: 1", "stands there twice"),
        ("version: 1\nrules: &x []\nlimits: *x", "aliases are not allowed"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, reason: str) -> None:
    assert reason in refused(tmp_path, text)


def test_a_seed_in_the_place_of_a_key_is_not_repeated(tmp_path: Path) -> None:
    seed = nkeys.encode_seed(ed25519.Ed25519PrivateKey.generate().private_bytes_raw(), nkeys.PREFIX_BYTE_USER).decode()
    reason = refused(tmp_path, f"version: 1\nclients: {{a: {{keys: [{seed}]}}}}")
    assert "expected a public key, got an NKey seed" in reason
    assert seed not in reason


def test_all_errors_are_told_at_once(tmp_path: Path) -> None:
    reason = refused(
        tmp_path, "version: 1\nrules: [{id: a, effect: no}, {id: b, effect: allow, wallet: 1}]\nlimits: [{}]"
    )
    assert reason.count(";") >= 3


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(HaltError, match="No such file"):
        load_policy(str(tmp_path / "none"))
    with pytest.raises(HaltError, match="POLICY_INVALID"):
        load_policy("\0")


def test_a_file_of_any_size_is_not_read(tmp_path: Path) -> None:
    assert "larger than" in refused(tmp_path, "version: 1\n" + "#" * 1_048_576)


@pytest.mark.parametrize("operation", list(Operation))
def test_a_rule_about_nothing_in_particular_is_about_all(tmp_path: Path, operation: Operation) -> None:
    found = load_policy(written(tmp_path, "version: 1\nrules: [{id: all, effect: allow}]"))
    assert not found.asks_owner("anybody", operation)
    assert found.rules[0].when.stated == ()
