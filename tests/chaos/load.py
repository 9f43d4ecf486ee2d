"""Requesters that repeat, reorder and conflict. What they sent and what the queue said is written down."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import secrets
import time
from collections.abc import Sequence
from typing import IO, Any

import msgpack
from nats.aio.client import Client
from nats.errors import Error as NatsError

from tests.chaos.files import write_line
from tests.chaos.patience import connect
from tests.chaos.profile import CLIENTS, Profile

_TRIES = 5
_ID_FIELD = {"keygen": "wallet_id", "sign": "tx_id", "reshare": "session_id"}
Fields = dict[str, Any]


class Load:
    """All requesters of a run."""

    def __init__(self, profile: Profile, urls: Sequence[str], passwords: dict[str, str], log: IO[bytes]) -> None:
        self._profile = profile
        self._urls = urls
        self._passwords = passwords
        self._log = log
        self._random = random.Random(profile.seed)
        self._clients: dict[str, Client] = {}
        self._number = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self.wallets: list[str] = []
        self.sent = 0

    async def connect(self) -> None:
        for name in CLIENTS:
            login = {"user": name, "password": self._passwords[name]}
            self._clients[name] = await connect(self._urls, login, inbox_prefix=f"_INBOX_{name}")

    async def close(self) -> None:
        for client in self._clients.values():
            await client.close()

    async def make_wallets(self) -> None:
        """Before the first fault: wallets to sign with."""
        for number in range(self._profile.wallets):
            wallet = f"wallet{number}"
            async with asyncio.timeout(60):  # on a busy machine the first daemon is slow to make the queues
                while not await self._submit("alice", "keygen", {"wallet_id": wallet}):
                    pass
            await self._completed("alice", "keygen", wallet)
            self.wallets.append(wallet)

    async def _completed(self, client: str, op: str, operation_id: str) -> None:
        question = json.dumps({"op": op, "id": operation_id}).encode()
        async with asyncio.timeout(30):
            while True:
                try:
                    answer = await self._clients[client].request(
                        f"initiator.query.{client}.status", question, timeout=2
                    )
                    if (json.loads(answer.data).get("event") or {}).get("state") == "completed":
                        return
                except NatsError:
                    pass
                await asyncio.sleep(0.1)

    async def run(self, until: float) -> None:
        """Send at the profile's rate until a time of the monotonic clock."""
        gap_s = 1 / self._profile.rate
        due = time.monotonic()
        while (now := time.monotonic()) < until:
            if now < due:
                await asyncio.sleep(due - now)
            due = max(due + gap_s * self._schedule_one(), now - 1)
        await asyncio.gather(*self._tasks)

    def _schedule_one(self) -> int:
        """One request and what goes with it, each a while later than the one before or not; returns how many."""
        draw, client = self._random, self._random.choice(CLIENTS)
        op, fields = self._request()
        plan = [(client, fields)]
        if draw.random() < 0.12:
            plan += [(client, fields)] * draw.randint(1, 3)  # the same again, perhaps much later
        if draw.random() < 0.06:
            other, changed = self._conflict(client, op, fields)
            plan.append((other, changed))
        draw.shuffle(plan)
        for number, (who, what) in enumerate(plan):
            wait_s = 0.0 if number == 0 else draw.choice((0.0, draw.uniform(0, 0.2), draw.uniform(0, 8)))
            task = asyncio.create_task(self._later(wait_s, who, op, what))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return len(plan)

    def _request(self) -> tuple[str, Fields]:
        self._number += 1
        number, draw = self._number, self._random.random()
        if draw < 0.15:
            return "keygen", {"wallet_id": f"k{number}"}
        if draw < 0.17:
            fields = {"session_id": f"r{number}", "node_ids": ["node0", "node1", "node2"], "new_threshold": 1}
            return "reshare", fields | {"key_type": "ed25519", "wallet_id": self._random.choice(self.wallets)}
        key_type = self._random.choice(("ed25519", "secp256k1"))
        fields = {
            "key_type": key_type,
            "wallet_id": self._random.choice(self.wallets),
            "network_internal_code": "net",
            "tx_id": f"t{number}",
            "tx": b"\x01" + self._random.randbytes(31),
            "derivation_path": None,
        }
        if draw < 0.20:
            fields["tx"] = "not bytes"  # refused before anything is claimed
        return "sign", fields

    def _conflict(self, client: str, op: str, fields: Fields) -> tuple[str, Fields]:
        """The same id for something else: of another client, or with another payload."""
        if op == "keygen" or self._random.random() < 0.3:
            return self._random.choice([name for name in CLIENTS if name != client]), fields
        changed = {"tx": b"\x02" + self._random.randbytes(31)} if op == "sign" else {"new_threshold": 2}
        return client, fields | changed

    async def _later(self, wait_s: float, client: str, op: str, fields: Fields) -> None:
        await asyncio.sleep(wait_s)
        await self._submit(client, op, fields)

    async def _submit(self, client: str, op: str, fields: Fields) -> bool:
        """Publish until the queue says yes, as a careful client does; each try is a submission of its own.

        Returns:
            Whether it said yes.
        """
        encoding = self._random.choice(("json", "msgpack"))
        for attempt in range(_TRIES):
            self.sent += 1
            line = {
                "n": self.sent,
                "client": client,
                "op": op,
                "id": fields[_ID_FIELD[op]],
                "meaning": _plain(fields),
                "valid": not isinstance(fields.get("tx"), str),
                "sent_at": time.time(),
            }
            sequence = await self._publish(client, op, fields | {"labels": {"n": str(self.sent)}}, encoding)
            write_line(self._log, line | {"sequence": sequence, "answered_at": time.time()})
            if sequence is not None:
                return True
            await asyncio.sleep(0.3 * 2**attempt)
        return False

    async def _publish(self, client: str, op: str, fields: Fields, encoding: str) -> int | None:
        data = json.dumps(_plain(fields)).encode() if encoding == "json" else msgpack.packb(fields)
        headers = {"Content-Type": f"application/{encoding}", "Nats-Msg-Id": secrets.token_hex(8)}
        try:
            answer = await self._clients[client].request(
                f"initiator.request.{client}.{op}", data, timeout=2, headers=headers
            )
        except NatsError:
            return None
        sequence: int | None = json.loads(answer.data).get("seq")
        return sequence


def _plain(fields: Fields) -> Fields:
    return {name: base64.b64encode(v).decode() if isinstance(v, bytes) else v for name, v in fields.items()}
