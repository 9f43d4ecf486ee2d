"""The contract with clients, written from the code: JSON Schemas of all messages, and an AsyncAPI document.

`python -m initiator.contract docs/contract` writes them; a test compares them with what is checked in, and real traffic
with them. They describe the JSON encoding; msgpack has the same fields, with bytes where JSON has base64.

Rules of compatibility: a request's unknown fields are refused, so a new one is for newer daemons only. An event's or an
answer's unknown fields must be ignored: new ones may come at any time; what is there keeps its name and meaning.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from initiator import __version__
from initiator.config.schema import LimitSettings
from initiator.core import result, validate
from initiator.core.events import SEALED, Outcome, State
from initiator.core.lifecycle import REOPEN
from initiator.core.model import ContentType, KeyType, Operation
from initiator.core.wallet import Status
from initiator.errors import Code
from initiator.record import REPEATED

Schema = dict[str, Any]
DIALECT = "https://json-schema.org/draft/2020-12/schema"
_LIMITS = LimitSettings()

# --- parts

ID: Schema = {"type": "string", "pattern": f"^{validate.ID.pattern}$"}
TIME: Schema = {"type": "string", "format": "date-time"}
BASE64: Schema = {"type": "string", "contentEncoding": "base64"}
TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0}
SEQUENCE: Schema = {"type": "integer", "minimum": 1}
OPERATION: Schema = {"enum": [operation.value for operation in Operation]}
KEY_TYPE: Schema = {"enum": [key_type.value for key_type in KeyType]}
CODE: Schema = {"type": "string", "description": f"one of {', '.join(Code)}, or a newer one"}
LABELS: Schema = {
    "type": "object",
    "maxProperties": _LIMITS.max_labels,
    "propertyNames": {"minLength": 1, "maxLength": validate.MAX_LABEL_CHARS},
    "additionalProperties": {"type": "string", "maxLength": validate.MAX_LABEL_CHARS},
}


def _request(title: str, description: str, **fields: Schema) -> Schema:
    common: dict[str, Schema] = {
        "expires_at": {"anyOf": [TIME, {"type": "null"}], "description": "the daemon gives up after this"},
        "labels": {"anyOf": [LABELS, {"type": "null"}], "description": "kept with the operation's record"},
    }
    required = [name for name in fields if name not in validate.OPTIONAL]
    return {
        "title": title,
        "description": description,
        "type": "object",
        "properties": fields | common,
        "required": required,
        "additionalProperties": False,
    }


def _open(
    title: str, description: str, required: dict[str, Schema], optional: dict[str, Schema] | None = None
) -> Schema:
    """What we say: more fields may come."""
    return {
        "title": title,
        "description": description,
        "type": "object",
        "properties": required | (optional or {}),
        "required": list(required),
    }


# --- requests


def requests() -> dict[str, Schema]:
    """The payloads of `initiator.request.<client>.<op>`."""
    tx_id = ID | {"description": f"a UUID, or without hyphens (mpcium.tx_id_form); at most {64} characters"}
    tx = BASE64 | {"description": f"secp256k1: the 32-byte hash; ed25519: 1 to {_LIMITS.max_tx_bytes} bytes"}
    level = {"type": "integer", "minimum": 0, "exclusiveMaximum": 2**31}
    path = {"anyOf": [{"type": "array", "items": level, "maxItems": validate.MAX_PATH_LEVELS}, {"type": "null"}]}
    nodes = {"type": "array", "items": ID, "minItems": 2, "maxItems": validate.MAX_NODES, "uniqueItems": True}
    return {
        "keygen": _request("Keygen request", "A new wallet: one secp256k1 and one Ed25519 key.", wallet_id=ID),
        "sign": _request(
            "Sign request", "A signature of a wallet's key, or of its child key at `derivation_path`.",
            key_type=KEY_TYPE, wallet_id=ID,
            network_internal_code={"type": "string", "maxLength": validate.MAX_CODE_CHARS},
            tx_id=tx_id, tx=tx, derivation_path=path,
        ),
        "reshare": _request(
            "Reshare request", "A key's shares moved to other nodes, or to another threshold.",
            session_id=ID, node_ids=nodes, new_threshold={"type": "integer", "minimum": 1}, key_type=KEY_TYPE,
            wallet_id=ID,
        ),
    }  # fmt: skip


# --- events


def _event(state: State, description: str, required: dict[str, Schema], optional: dict[str, Schema]) -> Schema:
    common: dict[str, Schema] = {
        "op": OPERATION,
        "id": ID,
        "client": ID,
        "state": {"const": state.value},
        "attempt": SEQUENCE | {"description": "which publication to the nodes it belongs to"},
        "time": TIME,
        "request_seq": SEQUENCE | {"description": "of the request, in its client's queue"},
        "expires_at": TIME,
        "event_id": TEXT | {"description": "unique to this event"},
    }
    shown: dict[str, Schema] = {
        "request_digest": TEXT | {"description": "what was asked; the same for the same request"},
        "sequence": SEQUENCE | {"description": "its place in the record; in answers to queries"},
    }
    return _open(f"Event: {state.value}", description, common | required, shown | optional)


def _results() -> Schema:
    wallet = {"wallet_id": TEXT}
    key = BASE64 | {"description": "secp256k1: X‖Y, 64 bytes; ed25519: 32 bytes"}
    ecdsa = wallet | {"r": BASE64, "s": BASE64, "signature_recovery": COUNT | {"maximum": result.MAX_RECOVERY}}
    reshared = wallet | {"key_type": KEY_TYPE, "pub_key": key, "new_threshold": COUNT}
    return {
        "anyOf": [
            _open("New wallet", "keygen", wallet | {"ecdsa_pub_key": key, "eddsa_pub_key": key}),
            _open("ECDSA signature", "sign with secp256k1; s is the low one", ecdsa),
            _open("EdDSA signature", "sign with ed25519", wallet | {"signature": BASE64}),
            _open("Reshared key", "reshare; the public key is the wallet's", reshared),
        ]
    }


def events() -> dict[str, Schema]:
    """What clients hear on `initiator.out.<client>.>`, and read in answers to queries."""
    why = {"code": CODE, "reason": TEXT}
    node = {"node_code": TEXT | {"description": "mpcium's own code, where the nodes answered"}}
    superseded = _open("Superseded", "the failure that a late success corrects", {"event_id": TEXT, "outcome": TEXT})
    provisional = {"provisional_code": TEXT, "provisional_reason": TEXT}
    outcome = {"enum": [one.value for one in Outcome], "description": "none: surely nothing was or will be signed"}
    verification = {"enum": [Status.VERIFIED.value, Status.UNVERIFIED.value]}
    return {
        "accepted": _event(
            State.ACCEPTED, "The id is yours; it will come to an end.", {},
            {"labels": LABELS, "reopens": TEXT | {"description": "the event_id of the failure that it goes on after"}},
        ),
        "authorizing": _event(
            State.AUTHORIZING, "Authorizers are asked to sign, too; shown in answers only, without bytes.", {},
            {"awaits": {"type": "array", "items": TEXT, "description": "whose answers are missing"}},
        ),
        "signed": _event(State.SIGNED, "Complete bytes are on record; shown in answers only, without them.", {}, {}),
        "publishing": _event(State.PUBLISHING, "A reshare is being sent, or was perhaps.", {}, {}),
        "published": _event(State.PUBLISHED, "The nodes have the signed event.", {"published_at": TIME}, provisional),
        "retrying": _event(
            State.RETRYING, "The nodes surely began nothing; another attempt follows.",
            why | {"not_before": TIME}, node | {"nodes_stream": {"description": "for the daemon itself"}},
        ),
        "completed": _event(
            State.COMPLETED, "The result.", {"result": _results(), "verification": verification},
            {"verification_reason": TEXT, "supersedes": superseded},
        ),
        "failed": _event(
            State.FAILED, "It ended without a result; a late success may still follow where the outcome is unknown.",
            why | {"outcome": outcome}, node,
        ),
        "rejected": _rejected(why),
    }  # fmt: skip


def _rejected(why: dict[str, Schema]) -> Schema:
    fields: dict[str, Schema] = {
        "op": OPERATION,
        "id": {"anyOf": [TEXT, {"type": "null"}], "description": "null where the request names none that could be one"},
        "client": ID,
        "state": {"const": State.REJECTED.value},
        "attempt": {"const": 0},
        "time": TIME,
        "request_seq": SEQUENCE,
        "field": {"anyOf": [TEXT, {"type": "null"}], "description": "the request's field that is wrong"},
    }
    return _open("Event: rejected", "The request is refused, and stays so.", fields | why, {"sequence": SEQUENCE})


# --- questions and answers


def questions() -> dict[str, Schema]:
    """The payloads of `initiator.query.<client>.*` and `initiator.cancel.<client>`."""
    one = {"op": OPERATION, "id": ID}

    def question(title: str, required: list[str], **fields: Schema) -> Schema:
        closed = {"type": "object", "properties": fields, "required": required, "additionalProperties": False}
        return {"title": title} | closed

    since = TEXT | {"description": "RFC 3339, or how long ago: 90s, 2h, 1d12h"}
    return {
        "status": question("What became of an operation", ["op"], **one, request_seq=COUNT),
        "history": question("All events of an operation", ["op", "id"], **one, after=COUNT),
        "events": question("All events of yours", [], after=COUNT, since=since),
        "cancel": question("End an operation that nothing was signed for yet", ["op", "id"], **one),
    }


def answers() -> dict[str, Schema]:
    """What the daemon answers to them; instead of each, an `error` may come."""
    any_event: Schema = {"anyOf": [{"$ref": f"event-{name}.json"} for name in events()]}
    rejection: Schema = {"anyOf": [{"$ref": "event-rejected.json"}, {"type": "null"}]}
    page = {
        "events": {"type": "array", "items": any_event},
        "next": COUNT | {"description": "`after` of the next page"},
    }
    failed: Schema = {"$ref": "event-failed.json"}
    settled = "with request_seq: nothing more comes of that request than this event"
    what = _open("What is wrong", "", {"code": CODE, "reason": TEXT, "field": {"anyOf": [TEXT, {"type": "null"}]}})
    return {
        "status": _open(
            "The last event", "null: nothing is on record", {"event": {"anyOf": [any_event, {"type": "null"}]}},
            {"rejection": rejection, "settled": {"type": "boolean", "description": settled}},
        ),
        "history": _open("One page", "", page),
        "events": _open("One page", "", page),
        "cancel": _open("Cancelled", "", {"cancelled": {"const": True}, "event": failed}),
        "error": _open("Error", "the question was not answered", {"error": what}),
        "receipt": {
            "title": "Receipt",
            "description": "JetStream's: the request is stored and will be handled, or why it is not",
            "type": "object",
            "properties": {"stream": TEXT, "seq": SEQUENCE, "error": {"type": "object"}},
            "anyOf": [{"required": ["stream", "seq"]}, {"required": ["error"]}],
        },
    }  # fmt: skip


def schemas() -> dict[str, Schema]:
    """Every schema by the name of its file."""
    groups = {"request": requests(), "event": events(), "query": questions(), "answer": answers()}
    return {
        f"{kind}-{name}.json": {"$schema": DIALECT} | schema
        for kind, group in groups.items()
        for name, schema in group.items()
    }


# --- AsyncAPI


def asyncapi() -> Schema:
    """An AsyncAPI 3 document, from the point of view of the daemon."""
    channels: Schema = {}
    operations: Schema = {}
    client = {"client": {"description": "your name in the daemon's configuration; NATS decides who may speak as it"}}
    for operation in Operation:
        _add(
            channels, operations, f"request_{operation}", f"initiator.request.{{client}}.{operation}", client,
            f"request-{operation}.json", "answer-receipt.json",
        )  # fmt: skip
    for kind in ("status", "history", "events"):
        _add(
            channels, operations, f"query_{kind}", f"initiator.query.{{client}}.{kind}", client,
            f"query-{kind}.json", f"answer-{kind}.json",
        )  # fmt: skip
    _add(channels, operations, "cancel", "initiator.cancel.{client}", client, "query-cancel.json", "answer-cancel.json")
    place = client | {
        "op": {"enum": [operation.value for operation in Operation]},
        "id": {"description": "the operation's id; of a refusal the request's sequence"},
    }
    for state in events():
        if state in SEALED:
            continue  # never published
        channels[f"event_{state}"] = {
            "address": f"initiator.out.{{client}}.{{op}}.{{id}}.{state}",
            "parameters": place,
            "messages": {"event": _message(f"event-{state}.json", _TELLING)},
        }
        operations[f"tell_{state}"] = {"action": "send", "channel": {"$ref": f"#/channels/event_{state}"}}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "initiator",
            "version": __version__,
            "description": "Keygen, sign and reshare requests for an mpcium MPC wallet cluster, over NATS. "
            "Unknown fields of requests are refused; unknown fields of events and answers must be ignored.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
    }


def _add(
    channels: Schema, operations: Schema, name: str, address: str, parameters: Schema, asked: str, answered: str
) -> None:
    """A channel with its replies, on the subject that the asker names."""
    headers = _ASKING if name.startswith("request_") else None
    question = _message(asked, headers)
    channels[name] = {"address": address, "parameters": parameters, "messages": {"question": question}}
    channels[f"{name}_reply"] = {
        "address": None,
        "messages": {"answer": _message(answered), "error": _message("answer-error.json")},
    }
    operations[name] = {
        "action": "receive",
        "channel": {"$ref": f"#/channels/{name}"},
        "reply": {
            "address": {"location": "$message.header#/reply", "description": "NATS' reply subject"},
            "channel": {"$ref": f"#/channels/{name}_reply"},
        },
    }


_ENCODING: Schema = {
    "Content-Type": {"enum": [kind.value for kind in ContentType], "description": "of this message"},
}
_ASKING: Schema = _ENCODING | {
    REOPEN: TEXT | {"description": "event_id of the failure, with outcome none, that this request goes on after"},
}
_TELLING: Schema = _ENCODING | {
    REPEATED: {"const": "true", "description": "told again, to whoever has asked again; it may be old"},
    "Nats-Sequence": TEXT | {"description": "its place in the record"},
}


def _message(file: str, headers: Schema | None = None) -> Schema:
    told = {"headers": {"type": "object", "properties": headers}} if headers else {}
    return {"contentType": "application/json", "payload": {"$ref": f"./{file}"}} | told


def documents() -> dict[str, str]:
    """Every file of the contract: its name and its text."""
    every = schemas() | {"asyncapi.json": asyncapi()}
    return {name: json.dumps(content, indent=2, ensure_ascii=False) + "\n" for name, content in every.items()}


def main(folder: str) -> None:
    """Write all files into a folder."""
    for name, text in documents().items():
        (Path(folder) / name).write_text(text)


if __name__ == "__main__":
    main(*sys.argv[1:])
