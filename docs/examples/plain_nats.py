"""A wallet and a signature over plain nats-py: a client's own subjects, nothing of this package.

Reads NATS_URL, ALICE_USER and ALICE_PASSWORD, as `initiator dev --env-file` writes them.
"""

import asyncio
import base64
import json
import os
import secrets
from typing import Any

import nats
from nats.aio.client import Client
from nats.aio.subscription import Subscription

CLIENT = os.environ["ALICE_USER"]


async def ask(connection: Client, events: Subscription, op: str, operation_id: str, **fields: object) -> dict[str, Any]:
    """Submit one request and follow it to its result."""
    headers = {"Content-Type": "application/json"}
    answer = await connection.request(f"initiator.request.{CLIENT}.{op}", json.dumps(fields).encode(), headers=headers)
    stored = json.loads(answer.data)
    if "error" in stored:
        raise SystemExit(f"{op} {operation_id} was not taken: {stored['error']['description']}")
    print(f"{op} {operation_id}:", end=" ", flush=True)
    while True:
        event = json.loads((await events.next_msg(timeout=60)).data)
        if event["state"] == "rejected" and event["request_seq"] == stored["seq"]:
            raise SystemExit(f"rejected, {event['code']}: {event['field']}: {event['reason']}")
        if (event["op"], event["id"]) != (op, operation_id):
            continue
        print(event["state"], end=" ", flush=True)
        if event["state"] == "failed":
            raise SystemExit(f"{event['code']}: {event['reason']} (outcome: {event['outcome']})")
        if event["state"] == "completed":
            print()
            result: dict[str, Any] = event["result"]
            return result


async def main() -> None:
    connection = await nats.connect(
        os.environ["NATS_URL"], user=CLIENT, password=os.environ["ALICE_PASSWORD"], allow_reconnect=False
    )
    events = await connection.subscribe(f"initiator.out.{CLIENT}.>")

    wallet = f"w_{secrets.token_hex(3)}"
    keys = await ask(connection, events, "keygen", wallet, wallet_id=wallet)
    print("  ed25519 public key", base64.b64decode(keys["eddsa_pub_key"]).hex())

    tx_id = f"tx_{secrets.token_hex(3)}"
    result = await ask(
        connection,
        events,
        "sign",
        tx_id,
        key_type="ed25519",
        wallet_id=wallet,
        network_internal_code="solana",
        tx_id=tx_id,
        tx=base64.b64encode(b"pay 5 to Bob").decode(),
    )
    print("  signature", base64.b64decode(result["signature"]).hex())
    await connection.close()


if __name__ == "__main__":
    asyncio.run(main())
