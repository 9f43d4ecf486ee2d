"""The only room that speaks NATS: connection, JetStream calls, pulls, streams and the nodes' gateway.

Everything above sees our own types and errors; `bus` only carries and decides nothing about requests.
"""
