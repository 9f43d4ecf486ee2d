"""What a request must pass before it may claim its id: policy, decode, validate; no back end is asked.

One room for the handler and for whoever rehearses it: what passes here is refused later only by what the record says.
"""

from __future__ import annotations

import contextlib

from initiator.config.schema import Settings
from initiator.core import codec, message, policy, validate
from initiator.core.model import ContentType, Operation, Request
from initiator.errors import RejectError
from initiator.flow.clients import Clients


class Intake:
    """The checks of one configuration."""

    def __init__(self, settings: Settings, clients: Clients) -> None:
        self._clients = clients
        limits = settings.limits
        self._rules = validate.Rules(
            max_tx_bytes=limits.max_tx_bytes,
            tx_id_form=settings.mpcium.tx_id_form,
            max_expiry_s=limits.max_expiry_s,
            max_labels=limits.max_labels,
            must_expire=settings.streams.final_max_age_s is not None,
        )

    def permit(self, client: str, operation: Operation) -> None:
        """Raises RejectError where the rules do not let `client` ask for this now."""
        policy.check(self._clients.permitted, client, operation)

    def read(self, client: str, operation: Operation, encoding: ContentType, data: bytes, now: float) -> Request:
        """A payload as a request of `client`.

        Args:
            now: Unix seconds.

        Raises:
            RejectError: it is refused, with the code, the field and the reason that its sender is told.
        """
        self.permit(client, operation)
        request = validate.parse_request(operation, codec.decode(encoding, data), encoding, self._rules, now)
        # keygen-as-sign: a signed wallet_id must not read as another message
        message.check_unambiguous(request)
        return request

    def reread(self, operation: Operation, encoding: ContentType, data: bytes) -> Request | None:
        """A payload by the widest bounds that any configuration may have had; None if it is no request by any."""
        with contextlib.suppress(RejectError):
            return validate.parse_by_any(operation, codec.decode(encoding, data), encoding)
        return None
