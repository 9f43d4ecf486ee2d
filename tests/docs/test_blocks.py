"""Every block of the documentation is run by a test, held against a model, or says that it is nothing to run."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key

from initiator.config.context import ClientContext
from initiator.config.load import load_settings, section_from
from initiator.config.policyfile import load_policy
from initiator.dev import servers
from initiator.errors import HaltError
from initiator.testing import run_stack
from tests.support.environment import environment
from tests.support.pages import ROOT, Block, blocks, commands

# `python` of one page is one program; `py` is a program or a file of its own, found by its heading
PYTHON_PAGE = "docs/clients.md"
PY = {(PYTHON_PAGE, "Only the signer"), (PYTHON_PAGE, "In your own tests")}


@pytest.mark.parametrize("block", [block for block in blocks() if not block.is_directive], ids=str)
def test_every_block_is_known_to_a_test(block: Block) -> None:
    match block.language:
        case "console" | "sh":
            assert commands(block)
        case "python":
            assert block.page == PYTHON_PAGE, "no test runs the Python blocks of this page: add it, or use `py`"
        case "py":
            assert (block.page, block.heading) in PY, "no test runs it: write one, and name it in PY"
        case "yaml" | "json":
            pass  # all are held against their models below
        case "text":  # output, a diagram or a form
            told = re.findall(
                r"^ *(?:\$ |(?:\S*/)?(?:initiator|nats|python|pip|make|curl) ).*", block.text, re.MULTILINE
            )
            assert told == [], "commands belong into a `console` or `sh` block, where they are run"
        case _:
            pytest.fail("a new block must be run: see tests/docs for the languages that are")


def run(command: list[str], folder: Path, **variables: str) -> str:
    env = {name: value for name, value in environment().items() if not name.startswith("AWS_")} | variables
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100, check=False, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_python_of_the_clients_page_runs_as_it_stands(tmp_path: Path) -> None:
    connecting, *others = [block.text for block in blocks("python", page=PYTHON_PAGE)]
    body = "\n".join(f"    {line}" if line else "" for line in "\n".join(others).splitlines())
    with run_stack() as stack:
        given = f"url, password, chain_code = {stack.nats_url!r}, {stack.password('alice')!r}, {stack.chain_code!r}"
        whole = f"import asyncio\n{given}\n{connecting}\n{body}"
        lines = "\n".join(f"    {line}" if line else "" for line in whole.splitlines())
        script = f"async def main():\n{lines}\n\nimport asyncio\nasyncio.run(main())\n"
        shown = run([sys.executable, "-c", script], tmp_path)
    assert "keygen w-2 completed" in shown


def py(heading: str) -> str:
    [block] = [block for block in blocks("py", page=PYTHON_PAGE) if block.heading == heading]
    return block.text


async def test_the_signer_alone_signs_with_kms(tmp_path: Path) -> None:
    script = py("Only the signer") + "print(signature.hex())\n"
    async with servers.moto_server(tmp_path) as url:
        arn = await asyncio.to_thread(servers.create_kms_key, url, "eu-central-1")
        account = {
            "AWS_ENDPOINT_URL_KMS": url, "AWS_ACCESS_KEY_ID": "dev", "AWS_SECRET_ACCESS_KEY": "dev",
            "AWS_EC2_METADATA_DISABLED": "true",
        }  # fmt: skip
        await asyncio.to_thread(name_key, arn, account, tmp_path)
        shown = await asyncio.to_thread(run, [sys.executable, "-c", script], tmp_path, **account)
    public, signature = shown.splitlines()[-2:]  # the signer's own log may come before
    key = load_der_public_key(bytes.fromhex(public))
    assert isinstance(key, ec.EllipticCurvePublicKey)
    key.verify(bytes.fromhex(signature), b"a message", ec.ECDSA(hashes.SHA256()))


def name_key(arn: str, account: dict[str, str], folder: Path) -> None:
    """The page's alias for a key that is there."""
    alias = re.findall(r'"(alias/[^"]+)"', py("Only the signer"))
    call = f"boto3.client('kms', region_name='eu-central-1').create_alias(AliasName={alias[0]!r}, TargetKeyId={arn!r})"
    run([sys.executable, "-c", f"import boto3; {call}"], folder, **account)


def test_a_users_own_tests_run_on_the_whole_system(tmp_path: Path) -> None:
    _, *parts = re.split(r"^# (\w+\.py)\n", py("In your own tests"), flags=re.MULTILINE)
    files = dict(zip(parts[::2], parts[1::2], strict=True))
    assert files.keys() == {"conftest.py", "test_payments.py"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    shown = run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)], tmp_path)
    assert f"{files['test_payments.py'].count('def test_')} passed" in shown


def hold_yaml(text: str, folder: Path) -> None:
    """Raises HaltError where it is neither a client's login nor a part of the daemon's settings."""
    content = yaml.safe_load(text)
    if "client" in content:
        section_from(ClientContext, content, "login")
        return
    path = folder / "initiator.yaml"
    path.write_text(text)
    load_settings(str(path), {}, {})


@pytest.mark.parametrize("block", [block for block in blocks("yaml") if not block.note], ids=str)
def test_every_configuration_is_one(block: Block, tmp_path: Path) -> None:
    hold_yaml(block.text, tmp_path)


@pytest.mark.parametrize("block", [block for block in blocks("yaml") if block.note], ids=str)
def test_every_policy_is_one_and_every_case_comes_out_as_it_says(block: Block, tmp_path: Path) -> None:
    """The word after `yaml`: `policy`, or `cases` of the first policy of the page."""
    first = next(one for one in blocks("yaml", page=block.page) if one.note == "policy")
    policy, cases = tmp_path / "policy.yaml", tmp_path / "cases.yaml"
    policy.write_text(block.text if block.note == "policy" else first.text)
    load_policy(str(policy))
    if block.note == "cases":
        cases.write_text(block.text)
        shown = run([sys.executable, "-m", "initiator", "policy", "test", str(cases), "--file", str(policy)], tmp_path)
        assert shown == f"{block.text.count('- name:')} of {block.text.count('- name:')} as expected\n"
    assert block.note in ("policy", "cases")


@pytest.mark.parametrize("text", ["client: a\nserver: x\n", "signer: {kms: {regoin: x}}\n"])
def test_a_wrong_configuration_would_be_seen(text: str, tmp_path: Path) -> None:
    with pytest.raises(HaltError):
        hold_yaml(text, tmp_path)


@pytest.mark.parametrize("block", blocks("json"), ids=str)
def test_every_message_is_one(block: Block) -> None:
    """The word after `json` names its schema in docs/contract."""
    schema = json.loads((ROOT / "docs" / "contract" / f"{block.note}.json").read_text())
    checker = jsonschema.FormatChecker()
    jsonschema.Draft202012Validator(schema, format_checker=checker).validate(json.loads(block.text))


def test_there_are_blocks_to_hold() -> None:
    assert blocks("yaml")
    assert blocks("json")
    assert {(block.page, block.heading) for block in blocks("py")} == PY
