"""The chaos harness: the whole system under faults drawn from a seed, and a judge that trusts nobody.

`make chaos DURATION=120 SEED=1 [REPLICAS=2] [NATS=1|3]`. Real processes, a real nats-server (or three), real sockets.
The judge shares no code with the product.
"""
