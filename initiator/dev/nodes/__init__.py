"""Simulated mpcium peer nodes: on the wire they do what mpcium's nodes do, MPC itself left out.

They share no code with the daemon. Their keys and signatures are real, but kept in one place: never for money.
"""

from __future__ import annotations

from initiator.dev.nodes.behaviour import Answer, Behaviour, Publish
from initiator.dev.nodes.cluster import SimulatedCluster
from initiator.dev.nodes.config import AuthorizerKey, NodesConfig, Timing

__all__ = ["Answer", "AuthorizerKey", "Behaviour", "NodesConfig", "Publish", "SimulatedCluster", "Timing"]
