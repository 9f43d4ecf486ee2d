"""Which operations a client may ask for at all: only what the configuration grants in so many words."""

from __future__ import annotations

import pytest

from initiator.core.model import Operation
from initiator.core.policy.clients import check_operation
from initiator.errors import Code, RejectError

PERMITTED = {
    "alice": frozenset(Operation),
    "bob": frozenset({Operation.SIGN}),
    "carol": frozenset[Operation](),
}


@pytest.mark.parametrize(
    ("client", "operation"), [*(("alice", operation) for operation in Operation), ("bob", Operation.SIGN)]
)
def test_what_is_granted_passes(client: str, operation: Operation) -> None:
    check_operation(PERMITTED, client, operation)


@pytest.mark.parametrize(
    ("client", "operation", "field", "reason"),
    [
        ("bob", "keygen", "operation", "keygen is not among clients.bob.operations"),
        ("bob", "reshare", "operation", "reshare is not among clients.bob.operations"),
        ("carol", "sign", "operation", "sign is not among clients.carol.operations"),
        ("mallory", "sign", "client", "clients.mallory is not configured"),
        ("Alice", "sign", "client", "clients.Alice is not configured"),
        ("", "sign", "client", "clients. is not configured"),
        ("*", "sign", "client", "clients.* is not configured"),
    ],
)
def test_all_else_is_denied_with_the_rule_that_says_no(client: str, operation: str, field: str, reason: str) -> None:
    with pytest.raises(RejectError) as caught:
        check_operation(PERMITTED, client, Operation(operation))
    assert (caught.value.code, caught.value.field, caught.value.reason) == (Code.POLICY_DENIED, field, reason)


@pytest.mark.parametrize("operation", list(Operation))
def test_no_configuration_means_no(operation: Operation) -> None:
    with pytest.raises(RejectError) as caught:
        check_operation({}, "alice", operation)
    assert (caught.value.code, caught.value.field) == (Code.POLICY_DENIED, "client")
