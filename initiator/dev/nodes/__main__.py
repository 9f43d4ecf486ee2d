"""`python -m initiator.dev.nodes`: a cluster of simulated nodes as a process.

Writes one JSON object per line on stdout for everything that its nodes do, `cluster.started` once all of them serve.
Ends on SIGTERM or SIGINT with status 0.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import ssl
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from nats.errors import Error as NatsError

from initiator.dev.nodes.cluster import SimulatedCluster
from initiator.dev.nodes.config import Algorithm, AuthorizerKey, NodesConfig, Timing
from initiator.dev.nodes.jetstream import ApiError

PASSWORD_VARIABLE = "NODES_PASSWORD"  # noqa: S105 - the name of a variable


def parser() -> argparse.ArgumentParser:
    """The options; each default is mpcium's own where it has one."""
    cli = argparse.ArgumentParser(
        prog="python -m initiator.dev.nodes", description="Simulated mpcium peer nodes. Their keys guard nothing."
    )
    add = cli.add_argument
    add("--servers", default="nats://127.0.0.1:4222", help="NATS URLs, separated by commas (default: %(default)s)")
    add("--user", help="NATS user name")
    add("--password-file", type=Path, help=f"file that holds the password (or the variable {PASSWORD_VARIABLE})")
    add("--ca-file", help="CA certificate (PEM) of the server: log in over TLS")
    add("--cert-file", help="client certificate (PEM), where the server wants one")
    add("--key-file", help="its key (PEM)")
    add("--nodes", type=int, default=3, help="how many (default: %(default)s)")
    add("--pubkey", required=True, help="event_initiator_pubkey: hex or base64")
    add("--algorithm", choices=("p256", "ed25519"), default="p256", help="event_initiator_algorithm")
    add("--authorizer", action="append", default=[], metavar="ID:ALGORITHM:HEX", help="a required authorizer's key")
    add("--routing", choices=("scoped", "unscoped"), default="scoped", help="unscoped: as v0.3.5 publishes results")
    add("--chain-code", default="00" * 32, help="64 hex digits (default: zeros)")
    add("--threshold", type=int, default=1, help="mpc_threshold (default: %(default)s)")
    add("--delay-s", type=float, default=0.0, help="how long an answer takes (default: %(default)s)")
    add("--not-ready-for-s", type=float, default=0.0, help="answer `not ready` for so long (default: %(default)s)")
    add("--forward-wait-s", type=float, default=Timing().forward_wait_s, help="wait for a reply before redelivery")
    add("--store", type=Path, help="JSON file that keeps the wallets over a restart; holds private keys")
    return cli


def read_config(options: argparse.Namespace) -> NodesConfig:
    """The config of the options.

    Raises:
        ValueError: a number, key or chain code that makes no sense.
        OSError: the password file cannot be read.
    """
    password = os.environ.get(PASSWORD_VARIABLE)
    if options.password_file:
        password = options.password_file.read_text("utf-8").strip()
    authorizers = dict(map(_authorizer, options.authorizer))
    return NodesConfig(
        servers=tuple(options.servers.split(",")),
        user=options.user,
        password=password,
        tls=_tls(options.ca_file, options.cert_file, options.key_file),
        pubkey=options.pubkey,
        algorithm=options.algorithm,
        nodes=options.nodes,
        routing=options.routing,
        chain_code=options.chain_code,
        threshold=options.threshold,
        authorizers=authorizers,
        required_authorizers=tuple(authorizers),
        delay_s=options.delay_s,
        not_ready_for_s=options.not_ready_for_s,
        store=options.store,
        timing=Timing(forward_wait_s=options.forward_wait_s),
    )


def _tls(ca_file: str | None, cert_file: str | None, key_file: str | None) -> ssl.SSLContext | None:
    if ca_file is None:
        return None
    context = ssl.create_default_context(cafile=ca_file)
    if cert_file:
        context.load_cert_chain(cert_file, key_file)
    return context


def _authorizer(text: str) -> tuple[str, AuthorizerKey]:
    name, _, rest = text.partition(":")
    algorithm, _, key = rest.partition(":")
    if algorithm not in ("p256", "ed25519"):
        raise ValueError("authorizer: expected ID:ALGORITHM:HEX with p256 or ed25519")
    return name, AuthorizerKey(public_key=key, algorithm=cast("Algorithm", algorithm))


def emit(event: str, fields: dict[str, Any]) -> None:
    """One line on stdout."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    print(json.dumps({"time": now, "event": event} | fields), flush=True)


async def serve(config: NodesConfig) -> None:
    """Serve until a signal comes."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with SimulatedCluster(config, emit=emit) as cluster:
        emit("cluster.started", {"nodes": list(cluster.config.node_ids), "pubkey": config.pubkey})
        await stop.wait()
    emit("cluster.stopped", {})


def main() -> int:
    """Parse and serve; 2 where the options make no sense, 1 where the cluster cannot start."""
    try:
        config = read_config(parser().parse_args())
        SimulatedCluster(config)  # reads the keys and the store
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    try:
        asyncio.run(serve(config))
    except TimeoutError:
        print(f"error: no server at {', '.join(config.servers)} lets the nodes in", file=sys.stderr)
        return 1
    except (ApiError, NatsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
