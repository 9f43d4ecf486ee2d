"""The commands of clients, as a shell runs them: what they print, and what they exit with."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import pty
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import nats
import pytest
import pytest_asyncio
from nats.js.errors import NotFoundError

from initiator.dev import accounts
from initiator.dev.cli import context_of
from initiator.dev.stack import Stack, StackOptions, running_stack
from tests.support import command
from tests.support.environment import environment

pytestmark = pytest.mark.asyncio(loop_scope="module")
NOWHERE = "nats://127.0.0.1:1"
DIGEST = hashlib.sha256(b"pay").hexdigest()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with running_stack(StackOptions(kms="local", forward_wait_s=0.3)) as running:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
            patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
            with context_of(running):  # as `initiator dev` leaves it
                yield running


def new_id(prefix: str) -> str:
    return f"{prefix}{secrets.token_hex(5)}"


def run(
    *arguments: str, stdin: bytes | None = None, variables: dict[str, str] | None = None
) -> tuple[int, list[dict[str, Any]], str]:
    """Exit code, JSON lines and stderr."""
    done = command.run(*arguments, env=environment() | (variables or {}), given=stdin or b"")
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def on_terminal(*arguments: str) -> tuple[int, str]:
    """Exit code, and what a person at a terminal sees."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "initiator", *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=environment()
    )
    os.close(theirs)
    seen = b""
    while True:
        try:
            seen += os.read(ours, 4096)
        except OSError:  # the terminal is closed: it has ended
            break
    os.close(ours)
    return child.wait(60), seen.decode().replace("\r\n", "\n")


def wallet() -> str:
    name = new_id("w")
    code, _, errors = run("request", "keygen", "--wallet-id", name, "--wait")
    assert (code, errors) == (0, "")
    return name


async def test_a_wallet_with_one_command_and_asked_for_afterwards(stack: Stack) -> None:
    name = new_id("w")
    code, (made,), errors = run("request", "keygen", "--wallet-id", name, "--wait", "--json")
    assert (code, errors) == (0, "")
    assert (made["op"], made["id"], made["state"]) == ("keygen", name, "completed")
    assert len(bytes.fromhex(made["secp256k1"]["hex"])) == 33
    assert made["ed25519"]["pem"].startswith("-----BEGIN PUBLIC KEY-----")
    await stack.stop_daemon()
    await stack.start_daemon()
    code, (known,), _ = run("status", "keygen", name, "--json")
    assert (code, known["state"], known["verification"]) == (0, "completed", "verified")
    assert known["result"]["eddsa_pub_key"] == made["ed25519"]["hex"]
    code, (keys,), _ = run("wallet", name)
    assert (code, keys["secp256k1"]) == (0, made["secp256k1"])


async def test_a_tx_in_every_form_is_the_same_request(stack: Stack) -> None:
    name, tx_id, tx = wallet(), new_id("t"), b"\x01hello"
    first = ["request", "sign", "--wallet-id", name, "--key-type", "ed25519", "--tx-id", tx_id, "--wait"]
    forms = [
        run(*first, "--tx", tx.hex()),
        run(*first, "--tx", f"0x{tx.hex()}"),
        run(*first, "--tx-base64", base64.b64encode(tx).decode()),
        run(*first, "--tx-file", "-", stdin=tx),
    ]
    assert [code for code, _, _ in forms] == [0] * 4
    assert len({lines[0]["signature"] for _, lines, _ in forms}) == 1
    assert forms[0][1][0]["verified_by"] == "client"
    code, lines, _ = run("status", "sign", tx_id, "--history")
    assert (code, [line["state"] for line in lines]) == (0, ["accepted", "signed", "published", "completed"])


async def test_a_person_sees_how_it_goes(stack: Stack) -> None:
    name = wallet()
    code, seen = on_terminal(
        "request", "sign", "--wallet-id", name, "--key-type", "secp256k1", "--tx", DIGEST, "--path", "m/44/60/0",
        "--wait",
    )  # fmt: skip
    assert code == 0
    assert "completed" in seen
    assert "(verified by the client)" in seen
    code, seen = on_terminal("wallet", name, "--path", "44/60/0")
    assert (code, seen.splitlines()[0]) == (0, f"wallet {name} at 44/60/0")
    code, seen = on_terminal("request", "keygen", "--wallet-id", name)
    ask = seen.splitlines()[1].removeprefix("ask with: initiator ")
    assert (code, ask.rpartition(" ")[0]) == (0, f"status keygen {name} --request")
    assert run(*ask.split())[1][0]["id"] == name


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["sign", "--wallet-id", "w", "--key-type", "secp256k1", "--tx", "00"], 3, {"field": "tx"}),
        (["sign", "--wallet-id", "w", "--key-type", "ed25519", "--tx", "01", "--tx-id", "a b"], 3, {"field": "tx_id"}),
        (["sign", "--wallet-id", "nobody", "--key-type", "ed25519", "--tx", "01"], 4, {"outcome": "unknown"}),
        (["keygen", "--wallet-id", "w", "--expires", "2020-01-01T00:00:00Z"], 3, {"code": "EXPIRED"}),
        (["keygen", "--wallet-id", "w", "--server", NOWHERE, "--client", "x"], 7, {"state": "unavailable"}),
        (["keygen", "--wallet-id", "w", "--client", "mallory"], 2, {"code": "BUS_DENIED"}),
    ],
)  # fmt: skip
async def test_each_end_has_its_exit_code(stack: Stack, arguments: list[str], code: int, said: dict[str, str]) -> None:
    found, (line,), _ = run("request", *arguments, "--wait")
    assert found == code
    assert said.items() <= line.items()


async def test_what_goes_on_is_picked_up_again(stack: Stack) -> None:
    child = stack.daemon
    assert child
    name = new_id("w")
    child.send_signal(signal.SIGSTOP)
    try:
        code, (line,), _ = run("request", "keygen", "--wallet-id", name, "--wait", "--timeout", "1.5")
        assert (code, line["state"], line["id"]) == (5, "running", name)
    finally:
        child.send_signal(signal.SIGCONT)
    code, (line,), _ = run("request", "keygen", "--wallet-id", name, "--wait")
    assert (code, line["state"]) == (0, "completed")


async def test_what_was_refused_is_found_by_its_request(stack: Stack) -> None:
    name, tx_id, digest = wallet(), new_id("t"), DIGEST
    first = ["request", "sign", "--wallet-id", name, "--key-type", "secp256k1", "--tx-id", tx_id, "--tx"]
    assert run(*first, digest, "--wait")[0] == 0
    code, (queued,), _ = run(*first, "aa" * 32)  # another payload
    assert (code, queued["id"]) == (0, tx_id)
    code, (refused,), _ = run("status", "sign", tx_id, "--request", str(queued["request_seq"]))
    assert (code, refused["state"], refused["code"], refused["id"]) == (3, "rejected", "CONFLICT", tx_id)
    assert run("status", "sign", tx_id)[0] == 0


async def test_an_output_that_takes_nothing_is_no_answer_of_ours(stack: Stack) -> None:
    name = wallet()
    command = [sys.executable, "-m", "initiator", "status", "keygen", name, "--json"]
    with open("/dev/full", "w") as full:  # noqa: ASYNC230 - nothing waits here
        done = await asyncio.create_subprocess_exec(*command, stdout=full, stderr=subprocess.PIPE, env=environment())
        _, errors = await asyncio.wait_for(done.communicate(), 60)
    assert (done.returncode, "Traceback" in errors.decode()) == (74, False)


async def test_a_pipe_that_is_closed_is_no_word_about_the_operation(stack: Stack) -> None:
    name = wallet()
    command = f"{sys.executable} -m initiator events --json | head -1; echo ${{PIPESTATUS[0]}}"
    done = await asyncio.create_subprocess_exec(
        "bash", "-c", command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    )
    output, errors = await asyncio.wait_for(done.communicate(), 60)
    assert output.splitlines()[-1] in (b"0", b"141"), name
    assert b"Traceback" not in errors


async def test_cancelling_is_for_good_or_too_late(stack: Stack) -> None:
    name = wallet()
    code, (late,), _ = run("cancel", "keygen", name)
    assert (code, late["state"], late["code"], late["id"]) == (4, "too_late", "TOO_LATE", name)
    code, (unknown,), _ = run("cancel", "keygen", "nobody")
    assert (code, unknown["state"]) == (1, "unknown")
    # to be cancelled in time: one whose deadline passes while KMS cannot be asked is over by itself
    past = ["--expires", "2020-01-01T00:00:00Z"]
    code, (refused,), _ = run("request", "keygen", "--wallet-id", new_id("w"), "--wait", *past)
    assert (code, refused["code"]) == (3, "EXPIRED")


async def queued(stack: Stack, name: str) -> None:
    """Wait until the request that names this id lies in the queue, and its sender knows it."""
    login = {"user": accounts.DAEMON, "password": stack.password(accounts.DAEMON)}
    async with await nats.connect(stack.nats_url, **login, inbox_prefix=b"_INBOX_initiator") as nc:
        js, lies = nc.jetstream(), b""
        async with asyncio.timeout(30):
            while name.encode() not in lies:
                await asyncio.sleep(0.05)
                with contextlib.suppress(NotFoundError):
                    found = await js.get_last_msg("INITIATOR_REQUESTS_alice", "initiator.request.alice.keygen")
                    lies = found.data or b""
    await asyncio.sleep(1)


async def test_whoever_is_interrupted_is_told_how_to_go_on(stack: Stack) -> None:
    name = new_id("w")
    child = stack.daemon
    assert child is not None
    child.send_signal(signal.SIGSTOP)
    try:
        asking = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "initiator", "request", "keygen", "--wallet-id", name, "--wait",
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(),
        )  # fmt: skip
        await queued(stack, name)
        asking.send_signal(signal.SIGINT)
        _, errors = await asyncio.wait_for(asking.communicate(), 20)
    finally:
        child.send_signal(signal.SIGCONT)
    assert (asking.returncode, "Traceback" in errors.decode()) == (130, False)
    assert f"initiator status keygen {name}" in errors.decode()


async def test_every_end_names_its_operation_and_what_to_do(stack: Stack) -> None:
    code, (ended,), _ = run("request", "sign", "--wallet-id", "nobody", "--key-type", "ed25519", "--tx", "01", "--wait")
    assert (code, ended["op"], ended["outcome"]) == (4, "sign", "unknown")
    assert f"initiator status sign {ended['id']}" in ended["hint"]
    code, seen = on_terminal(
        "request", "sign", "--wallet-id", "nobody", "--key-type", "ed25519", "--tx", "01", "--tx-id", "t1x", "--wait"
    )
    assert code == 4
    assert seen.splitlines()[0] == "sign t1x"
    assert "sign t1x: failed, outcome unknown: NODES_ERROR" in seen
    assert "hint: never ask again under another id; a late success may come: initiator status sign t1x" in seen


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["request", "sign", "--wallet-id", "w", "--key-type", "ed25519"], "exactly one of --tx"),
        (
            ["request", "sign", "--wallet-id", "w", "--key-type", "ed25519", "--tx", "abc"],
            "expected pairs of hex digits, got 3 characters",
        ),
        (["request", "sign", "--wallet-id", "w", "--key-type", "ed25519", "--tx-base64", "?"], "expected padded"),
        (["request", "sign", "--wallet-id", "w", "--key-type", "rsa", "--tx", "01"], "'rsa' is not one of"),
        (["request", "sign", "--wallet-id", "w", "--key-type", "ed25519", "--tx", "01", "--path", "44'/0"], "hardened"),
        (
            ["request", "sign", "--wallet-id", "w", "--key-type", "ed25519", "--tx", "01", "--path", "44//60"],
            "hardened",
        ),
        (["request", "sign", "--wallet-id", "w", "--key-type", "ed25519", "--tx", "01", "--path", "4_4"], "hardened"),
        (["request", "keygen", "--wallet-id", "w", "--label", "a=b", "--label", "a=c"], "each key once"),
        (["requst", "keygen"], "Did you mean 'request'?"),
        (["request", "keygen", "--wallet-id", "w", "--expires", "soon"], "expected RFC 3339"),
        (["request", "keygen", "--wallet-id", "w", "--label", "x"], "expected KEY=VALUE"),
        (["events", "--since", "yesterday"], "expected RFC 3339"),
        (["request", "keygen", "--wallet-id", "w", "--expires", "9999-12-31T23:59:59.999999Z"], "the year 9999"),
        (["request", "keygen", "--wallet-id", "w", "--wait", "--timeout", "nan"], "expected seconds, got nan"),
        (["request", "keygen", "--wallet-id", "w", "--wait", "--timeout", "0"], "0"),
        (
            ["request", "reshare", "--wallet-id", "w", "--key-type", "ed25519", "--node", "n", "--threshold", "9" * 30],
            "9",
        ),
        (["top", "--interval", "nan"], "expected seconds, got nan"),
        (["status", "burn", "w"], "'burn' is not one of"),
        (["wallet", "w", "--context", "/nowhere"], "--context: /nowhere: no such file"),
    ],
)
async def test_wrong_usage_says_what_was_expected(stack: Stack, arguments: list[str], says: str) -> None:
    code, lines, errors = run(*arguments)
    assert (code, lines) == (2, [])
    assert says in errors


async def test_without_any_login_it_says_where_to_put_one(tmp_path: Path) -> None:
    nowhere = {"XDG_STATE_HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    code, _, errors = run("status", "keygen", "w", variables=nowhere)
    assert code == 2
    assert f"{tmp_path}/initiator/client.yaml" in errors


async def test_nothing_known_is_no_error_but_no_success_either(stack: Stack) -> None:
    assert run("status", "sign", "nobody")[0] == 1
    assert run("wallet", "nobody")[0] == 1
    _, seen = on_terminal("wallet", "nobody")
    assert seen == "you have made no wallet nobody, or not yet\n"


def follow() -> str:
    """A wallet whose keygen a follower has seen."""
    command = [sys.executable, "-m", "initiator", "events", "--follow", "--since", "1m"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment(), text=True) as following:
        assert following.stdout
        time.sleep(1.0)
        name = wallet()
        seen: list[tuple[str, str]] = []
        while seen[-1:] != [(name, "completed")]:
            event = json.loads(following.stdout.readline())
            seen.append((event["id"], event["state"]))
        following.send_signal(signal.SIGINT)
        assert following.wait(10) == 130
    return name


async def test_events_are_listed_and_followed(stack: Stack) -> None:
    name = follow()
    code, listed, _ = run("events", "--since", "1h")
    assert code == 0
    assert [event["state"] for event in listed if event["id"] == name] == [
        "accepted", "signed", "published", "completed"
    ]  # fmt: skip
    later = run("events", "--after", str(listed[-2]["sequence"]))[1]
    assert later[0] == listed[-1]


def completed(shell: str) -> tuple[str, str]:
    """A shell's script, and what is offered for `initiator sta`."""
    command = [str(Path(sys.executable).parent / "initiator")]
    word = "sta" if shell == "fish" else "1"
    words = {"COMP_WORDS": "initiator sta", "COMP_CWORD": word, "_INITIATOR_COMPLETE": f"{shell}_complete"}
    script = subprocess.run([*command, "completion", shell], capture_output=True, text=True, timeout=30, check=True)
    offered = subprocess.run(
        command, capture_output=True, text=True, timeout=30, check=False, env=environment() | words
    )  # fmt: skip
    return script.stdout, offered.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
async def test_a_shell_can_complete(shell: str) -> None:
    script, offered = completed(shell)
    assert "_INITIATOR_COMPLETE" in script
    assert "status" in offered
