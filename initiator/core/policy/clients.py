"""Which operations the settings open to a client at all. Fails closed: no entry for a client means no."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from initiator.core.model import Operation
from initiator.errors import Code, RejectError


def check_operation(permitted: Mapping[str, Collection[Operation]], client: str, operation: Operation) -> None:
    """Refuse what the settings do not grant.

    Args:
        permitted: the operations of each known client.

    Raises:
        RejectError: `POLICY_DENIED`, with the rule that said no.
    """
    operations = permitted.get(client)
    if operations is None:
        raise RejectError(Code.POLICY_DENIED, f"clients.{client} is not configured", field="client")
    if operation not in operations:
        raise RejectError(
            Code.POLICY_DENIED, f"{operation} is not among clients.{client}.operations", field="operation"
        )
