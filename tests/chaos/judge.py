"""The judge: reads what a run left behind and counts. Shares no code with the product.

How it counts finals (the design's first point): a request that the queue acknowledged ends in exactly one first final
event. `rejected` is told by the request's own sequence; `completed` and `failed` by the record of its id, if that
record was claimed for the same payload of the same client. After `failed` one `completed` may follow that names what
it supersedes; after `completed` nothing.
"""

from __future__ import annotations

import base64
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import msgpack
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, utils
from cryptography.hazmat.primitives.serialization import load_der_public_key

Line = Mapping[str, Any]
Key = tuple[str, str]
Request = tuple[str, int]  # its client, and its sequence in that client's queue
ZEROS = ("lost", "twice", "invalid", "stuck", "conflicts_signed")
_PREFIXES = {"mpc.keygen_request.": "keygen", "mpc.signing_request.": "sign"}
_SIGNED_FIELDS = {
    "sign": ("key_type", "wallet_id", "network_internal_code", "tx_id", "tx"),
    "reshare": ("session_id", "node_ids", "new_threshold", "key_type", "wallet_id"),
}
_BYTES = ("ecdsa_pub_key", "eddsa_pub_key", "pub_key", "r", "s", "signature")
_ID_FIELDS = {"keygen": "wallet_id", "sign": "tx_id", "reshare": "session_id"}


@dataclass(frozen=True)
class Event:
    """One event of the record."""

    client: str
    op: str
    id: str
    state: str
    body: Line
    time: float


@dataclass(frozen=True)
class Publication:
    """One signed event at the nodes; `token` names its attempt, where it has one."""

    op: str
    id: str
    token: str
    body: Line


@dataclass
class Evidence:
    """All that a run left behind."""

    submissions: list[Line]
    events: list[Event]
    rejections: dict[Request, list[Line]]
    queued: set[Request]
    publications: list[Publication]
    keys: dict[str, Line]
    faults: list[Line] = field(default_factory=list)
    left: dict[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> Evidence:
        stored = [_message(line) for line in _lines(folder / "INITIATOR_EVENTS.jsonl")]
        rejections: dict[Request, list[Line]] = defaultdict(list)
        for subject, body, _ in stored:
            if subject.startswith("initiator.reject."):
                _, _, client, _, sequence, _ = subject.split(".")
                rejections[client, int(sequence)].append(body)
        at_nodes = [line for name in ("mpc-keygen", "mpc-signing") for line in _lines(folder / f"{name}.jsonl")]
        slots = ("INITIATOR_SLOTS_KEYGEN", "INITIATOR_SLOTS_SIGN", "INITIATOR_SLOTS_RESHARE", "mpc")
        return cls(
            submissions=_lines(folder / "submissions.jsonl"),
            events=[_event(*one) for one in stored if one[0].startswith("initiator.event.")],
            rejections=rejections,
            queued={
                (line["subject"].split(".")[2], int(line["seq"]))
                for queue in folder.glob("INITIATOR_REQUESTS_*.jsonl")
                for line in _lines(queue)
            },
            publications=[_publication(line) for line in at_nodes]
            + [Publication("reshare", line["session_id"], "", line) for line in _lines(folder / "reshares.jsonl")],
            keys=_keys(_lines(folder / "answers.jsonl")),
            faults=_lines(folder / "faults.jsonl"),
            left={name: len(_lines(folder / f"{name}.jsonl")) for name in slots},
        )


def _lines(path: Path) -> list[Line]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def _message(line: Line) -> tuple[str, Line, float]:
    headers = base64.b64decode(line.get("hdrs", "")).decode("utf-8", "replace")
    data = base64.b64decode(line.get("data", ""))
    body = json.loads(data) if "application/json" in headers else msgpack.unpackb(data)
    return line["subject"], body, datetime.fromisoformat(line["time"][:26].rstrip("Z") + "+00:00").timestamp()


def _event(subject: str, body: Line, time: float) -> Event:
    _, _, client, op, operation_id, state, *_ = subject.split(".")
    return Event(client, op, operation_id, state, body, time)


def _publication(line: Line) -> Publication:
    subject = line["subject"]
    prefix = next(prefix for prefix in _PREFIXES if subject.startswith(prefix))
    body = json.loads(base64.b64decode(line["data"]))
    op = _PREFIXES[prefix]
    return Publication(op, str(body[_ID_FIELDS[op]]), subject.removeprefix(prefix), body)


def _keys(answers: Iterable[Line]) -> dict[str, Line]:
    """The public keys that the nodes truly made, by wallet."""
    return {line["id"]: line["keys"] for line in answers if line["op"] == "keygen" and line["success"]}


class Judge:
    """Counts what must not be, and says why.

    Args:
        pinned: the SPKI DER of the key that every event must be signed with.
    """

    def __init__(self, evidence: Evidence, pinned: bytes) -> None:
        self._seen = evidence
        key = load_der_public_key(pinned)
        assert isinstance(key, ec.EllipticCurvePublicKey)
        self._pinned = key
        self.findings: dict[str, list[str]] = {name: [] for name in ZEROS}
        self._events: dict[Key, list[Event]] = defaultdict(list)
        for event in evidence.events:
            self._events[event.op, event.id].append(event)
        self._published: dict[Key, list[Publication]] = defaultdict(list)
        for publication in evidence.publications:
            self._published[publication.op, publication.id].append(publication)
        self._by_number = {str(line["n"]): line for line in evidence.submissions}

    def verdict(self) -> dict[str, Any]:
        """The counts of a run."""
        ends: Counter[str] = Counter()
        acked = [line for line in self._seen.submissions if line["sequence"] is not None]
        for line in acked:
            ends[self._end_of(line)] += 1
        for key in {*self._events, *self._published}:
            self._look_at(key)
        valid = {(line["op"], line["id"]) for line in acked if line["valid"]}
        completed = {key for key, events in self._events.items() if any(e.state == "completed" for e in events)}
        return {
            "requests": len(acked),
            **{name: ends[name] for name in ("completed", "failed", "rejected")},
            **{name: len(found) for name, found in self.findings.items()},
            "completed_share": round(len(valid & completed) / max(1, len(valid)), 3),
            "recovery_p99_s": self._recovery_p99(acked),
            "left": {name: count for name, count in self._seen.left.items() if count},
        }

    def _find(self, what: str, why: str) -> str:
        self.findings[what].append(why)
        return what

    # --- requests

    def _end_of(self, line: Line) -> str:
        """How one acknowledged request ended."""
        request, key = _request(line), (line["op"], line["id"])
        rejections = self._seen.rejections.get(request, [])
        if len(rejections) > 1:
            self._find("twice", f"request {request} was rejected {len(rejections)} times")
        own = self._owns(line)
        if rejections:
            if own and self._finals(key) and rejections[0]["code"] == "CONFLICT":
                self._find("twice", f"request {request} was rejected, and its operation {key} ended")
            return "rejected"
        if not own or not self._finals(key):
            what = "stuck" if request in self._seen.queued else "lost"
            return self._find(what, f"request {request} {key}: no final event")
        return self._finals(key)[0].state

    def _owns(self, line: Line) -> bool:
        """Whether the record of its id was claimed for this payload."""
        claim = self._claim((line["op"], line["id"]))
        return claim is not None and (claim["client"], claim["meaning"]) == (line["client"], line["meaning"])

    def _claim(self, key: Key) -> Line | None:
        """The submission that an id was claimed for."""
        events = self._events.get(key, [])
        number = events[0].body.get("labels", {}).get("n") if events else None
        return self._by_number.get(str(number))

    def _finals(self, key: Key) -> list[Event]:
        return [event for event in self._events.get(key, []) if event.state in ("completed", "failed")]

    # --- operations

    def _look_at(self, key: Key) -> None:
        claim, events = self._claim(key), self._events.get(key, [])
        if claim is None:
            self._find("invalid", f"{key}: nobody asked for this")
            return
        self._count_finals(key, events)
        self._count_publications(key, events)
        payloads = {json.dumps(_meaning(one), sort_keys=True) for one in self._published[key]}
        if len(payloads) > 1:
            self._find("conflicts_signed", f"{key}: {len(payloads)} payloads reached the nodes")
        for publication in self._published[key]:
            if _meaning(publication) != {k: v for k, v in claim["meaning"].items() if v is not None}:
                self._find("conflicts_signed", f"{key}: the nodes got another payload than was claimed")
            if not self._is_signed(publication):
                self._find("invalid", f"{key}: the event's signature does not verify")
        for event in events:
            if event.state == "completed" and not self._is_true(event, claim["meaning"]):
                self._find("invalid", f"{key}: completed with a result that does not verify")
        finals = self._finals(key)
        if finals and finals[-1].body.get("outcome") == "none" and self._published[key]:
            self._find("invalid", f"{key}: outcome none, and the nodes have it")
        # a reshare passes by on core NATS: who was reconnecting just then has not heard it
        unheard = key[0] != "reshare" and not self._published[key]
        if unheard and any(event.state == "completed" for event in finals):
            self._find("invalid", f"{key}: completed, and never published")

    def _count_finals(self, key: Key, events: list[Event]) -> None:
        states = [event.state for event in events]
        if states.count("accepted") != 1 or states.count("signed") > 1:
            self._find("twice", f"{key}: {states}")
        first = next((i for i, state in enumerate(states) if state in ("completed", "failed")), len(states))
        after = events[first + 1 :]
        superseded = states[first : first + 1] == ["failed"] and len(after) == 1 and after[0].state == "completed"
        if after and not (superseded and "supersedes" in after[0].body):
            self._find("twice", f"{key}: {states}")

    def _count_publications(self, key: Key, events: list[Event]) -> None:
        published = self._published[key]
        again = [token for token, count in Counter(one.token for one in published).items() if count > 1]
        if key[0] == "reshare":
            attempts = sum(event.state == "publishing" for event in events)
        else:
            attempts = 1 + sum(event.state == "retrying" for event in events)
            if again:
                self._find("twice", f"{key}: attempt {again} was published more than once")
        if len(published) > attempts:
            self._find("twice", f"{key}: {len(published)} publications in {attempts} attempts")

    def _is_signed(self, publication: Publication) -> bool:
        body = publication.body
        if publication.op == "keygen":
            message = str(body["wallet_id"]).encode()
        else:
            fields = {name: body[name] for name in _SIGNED_FIELDS[publication.op]}
            message = json.dumps(fields, separators=(",", ":")).encode()
        try:
            self._pinned.verify(base64.b64decode(body["signature"]), message, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            return False
        return True

    def _is_true(self, event: Event, asked: Line) -> bool:
        result = {name: _bytes(value) for name, value in event.body["result"].items() if name in _BYTES}
        if event.op == "keygen":
            return {name: value.hex() for name, value in result.items()} == self._seen.keys.get(event.id)
        keys = self._seen.keys.get(asked["wallet_id"], {})
        if event.op == "reshare":
            return bool(result["pub_key"].hex() == keys.get("eddsa_pub_key"))
        tx = base64.b64decode(asked["tx"])
        try:
            if asked["key_type"] == "ed25519":
                public = ed25519.Ed25519PublicKey.from_public_bytes(bytes.fromhex(keys["eddsa_pub_key"]))
                public.verify(result["signature"], tx)
            else:
                point = b"\x04" + bytes.fromhex(keys["ecdsa_pub_key"])
                r, s = (int.from_bytes(result[name]) for name in ("r", "s"))
                curve = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256K1(), point)
                curve.verify(utils.encode_dss_signature(r, s), tx, ec.ECDSA(utils.Prehashed(hashes.SHA256())))
        except (InvalidSignature, KeyError, ValueError):
            return False
        return True

    # --- recovery

    def _recovery_p99(self, acked: list[Line]) -> float:
        """How long after a fault's end a request that was under way in it got its final event; seconds."""
        waits = []
        for line in acked:
            finals = self._finals((line["op"], line["id"]))
            if not finals or _request(line) in self._seen.rejections:
                continue
            ended = [f["ended"] for f in self._seen.faults if line["sent_at"] < f["ended"] < finals[0].time]
            if ended:
                waits.append(finals[0].time - max(ended))
        waits.sort()
        return round(waits[int(len(waits) * 0.99)], 2) if waits else 0.0


def _request(line: Line) -> Request:
    return line["client"], line["sequence"]


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else base64.b64decode(value)


def _meaning(publication: Publication) -> dict[str, Any]:
    """What a published event asks the nodes to do, in the request's own terms."""
    left_out = ("signature", "authorizer_signatures")
    return {name: value for name, value in publication.body.items() if name not in left_out and value is not None}
