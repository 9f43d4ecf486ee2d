"""Who may ask for what, and whose turns weigh what: as the configuration says now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from initiator.config.policyfile import load_policy
from initiator.config.schema import ClientSettings, Settings
from initiator.core.model import Operation
from initiator.core.policy.rules import Policy, unrestricted


class Clients:
    """The configured clients and the policy; a reload replaces all of either at once.

    Attributes:
        policy: what holds now; whoever decides twice may find two.
    """

    def __init__(self, clients: Mapping[str, ClientSettings], policy: Policy | None = None) -> None:
        self.policy = policy or unrestricted()
        self.replace(clients)

    @classmethod
    def configured(cls, settings: Settings) -> Self:
        """As the settings and the policy file that they name say. Raises HaltError."""
        policy = load_policy(settings.policy.file) if settings.policy.file else None
        return cls(settings.clients, policy)

    def replace(self, clients: Mapping[str, ClientSettings]) -> None:
        """From now on these; requests that are under way go on to their ends."""
        self._weights = {name: client.weight for name, client in clients.items()}
        self.permitted: Mapping[str, frozenset[Operation]] = {
            name: frozenset(client.operations) for name, client in clients.items()
        }

    def set_policy(self, policy: Policy) -> None:
        """From now on this one."""
        self.policy = policy

    def weight_of(self, client: str) -> int:
        """A client's share of turns; 1 for one that left and still has requests waiting."""
        return self._weights.get(client, 1)
