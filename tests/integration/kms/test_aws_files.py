"""deploy/aws: the policies let the daemon sign and nobody else, and the alarm hears of everybody else."""

from __future__ import annotations

import ast
import asyncio
import json
import re
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from pydantic import SecretStr

from initiator.config.signers import KmsSettings
from initiator.dev import servers
from initiator.errors import InitiatorError
from initiator.kms import KmsSigner
from tests.support.aws_rules import decides, matches

ROOT = Path(__file__).parents[3]
AWS = ROOT / "deploy" / "aws"
REGION, ACCOUNT = "eu-central-1", "111122223333"
VALUES = {
    "REGION": REGION, "ACCOUNT_ID": ACCOUNT, "KEY_ID": "1234abcd-12ab-34cd-56ef-1234567890ab",
    "INITIATOR_ROLE": "initiator", "KEY_ADMIN_ROLE": "key-admin", "VPC_ENDPOINT_ID": "vpce-0a1b2c3d",
}  # fmt: skip
KEY = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/{VALUES['KEY_ID']}"
DAEMON, ADMIN, OTHER = (f"arn:aws:iam::{ACCOUNT}:role/{name}" for name in ("initiator", "key-admin", "payments"))
ROOT_USER = f"arn:aws:iam::{ACCOUNT}:root"
SIGN = {"kms:SigningAlgorithm": "ECDSA_SHA_256", "kms:MessageType": "RAW"}
POLICIES = sorted(path.name for path in AWS.glob("*.json"))


def policy(name: str) -> dict[str, Any]:
    text = re.sub("|".join(VALUES), lambda found: VALUES[found[0]], (AWS / name).read_text())
    filled: dict[str, Any] = json.loads(text)
    return filled


def called() -> set[str]:
    """What our code asks KMS for."""
    tree = ast.parse((ROOT / "initiator" / "kms" / "region.py").read_text())
    methods = {
        node.func.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Attribute)
        and node.func.value.attr == "_client"
    }
    return {f"kms:{''.join(word.title() for word in method.split('_'))}" for method in methods - {"close"}}


def actions(name: str, principal: str = "*") -> set[str]:
    found: set[str] = set()
    for statement in policy(name)["Statement"]:
        named = statement.get("Principal", "*")
        if statement["Effect"] == "Allow" and (named == "*" or named["AWS"] == principal):
            found |= {statement["Action"]} if isinstance(statement["Action"], str) else set(statement["Action"])
    return found


def test_the_daemon_may_do_what_its_code_calls_and_no_more() -> None:
    assert called() == {"kms:Sign", "kms:GetPublicKey"}
    assert actions("iam-policy.json") == called()
    assert actions("vpc-endpoint-policy.json") == called()
    for name in ("key-policy.json", "key-policy-with-endpoint.json"):
        assert actions(name, DAEMON) == called()


@pytest.mark.parametrize("name", POLICIES)
def test_every_placeholder_is_known_and_filled(name: str) -> None:
    left = re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", json.dumps(policy(name)))
    assert set(left) <= {"ECDSA_SHA"}
    assert policy(name)["Version"] == "2012-10-17"


def allowed(principal: str, action: str, key_policy: str = "key-policy.json", **context: str) -> bool:
    """As AWS decides within one account where the key policy does not hand over to IAM: it must allow by itself."""
    about = SIGN | {"aws:PrincipalArn": principal} | {k.replace("__", ":"): v for k, v in context.items()}
    if action != "kms:Sign":
        about.pop("kms:SigningAlgorithm")
    return decides(policy(key_policy), principal, action, about, KEY) == "Allow"


def test_who_may_use_the_key() -> None:
    assert allowed(DAEMON, "kms:Sign")
    assert allowed(DAEMON, "kms:GetPublicKey")
    assert allowed(DAEMON, "kms:Sign", kms__MessageType="DIGEST")
    assert not allowed(DAEMON, "kms:Sign", kms__SigningAlgorithm="ECDSA_SHA_384")
    for action in ("kms:CreateGrant", "kms:DisableKey", "kms:PutKeyPolicy", "kms:ScheduleKeyDeletion"):
        assert not allowed(DAEMON, action)
    for principal in (ADMIN, OTHER, ROOT_USER):
        assert not allowed(principal, "kms:Sign")
        assert not allowed(principal, "kms:CreateGrant")
    assert allowed(ADMIN, "kms:DisableKey")
    assert not allowed(OTHER, "kms:DisableKey")


def test_a_grant_or_a_policy_of_somebody_elses_does_not_help() -> None:
    """The Deny speaks first, whatever else allows it."""
    context = SIGN | {"aws:PrincipalArn": OTHER}
    assert decides(policy("key-policy.json"), OTHER, "kms:Sign", context, KEY) == "Deny"


def test_with_an_endpoint_the_key_signs_through_it_alone() -> None:
    name = "key-policy-with-endpoint.json"
    assert allowed(DAEMON, "kms:Sign", name, aws__SourceVpce="vpce-0a1b2c3d")
    assert not allowed(DAEMON, "kms:Sign", name, aws__SourceVpce="vpce-other")
    assert not allowed(DAEMON, "kms:Sign", name)
    both, one = policy(name)["Statement"], policy("key-policy.json")["Statement"]
    assert both[:-1] == one


def test_the_endpoint_is_of_no_use_to_others_or_for_other_keys() -> None:
    there = policy("vpc-endpoint-policy.json")
    assert decides(there, DAEMON, "kms:Sign", {"aws:PrincipalArn": DAEMON}, KEY) == "Allow"
    assert decides(there, OTHER, "kms:Sign", {"aws:PrincipalArn": OTHER}, KEY) is None
    assert decides(there, DAEMON, "kms:Sign", {"aws:PrincipalArn": DAEMON}, f"{KEY}0") is None
    assert decides(there, DAEMON, "kms:Decrypt", {"aws:PrincipalArn": DAEMON}, KEY) is None


# --- against moto, which knows actions, but neither resources, conditions nor key policies


def for_moto(name: str) -> str:
    statements = [
        {"Sid": one["Sid"], "Effect": one["Effect"], "Action": one["Action"], "Resource": "*"}
        for one in policy(name)["Statement"]
    ]
    return json.dumps({"Version": "2012-10-17", "Statement": statements})


def user(url: str, name: str, document: str) -> dict[str, Any]:
    iam = boto3.client("iam", region_name=REGION, endpoint_url=url, aws_access_key_id="x", aws_secret_access_key="x")
    iam.create_user(UserName=name)
    iam.put_user_policy(UserName=name, PolicyName="one", PolicyDocument=document)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return {"access_key_id": SecretStr(key["AccessKeyId"]), "secret_access_key": SecretStr(key["SecretAccessKey"])}


async def test_the_signer_signs_with_the_shipped_policy_and_with_no_lesser_one(tmp_path: Path) -> None:
    public_only = json.dumps({
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": "kms:GetPublicKey", "Resource": "*"}],
    })  # fmt: skip
    nothing = public_only.replace("kms:GetPublicKey", "s3:GetObject")
    async with servers.moto_server(tmp_path) as url:
        arn = await asyncio.to_thread(servers.create_kms_key, url, REGION)
        documents = {"initiator": for_moto("iam-policy.json"), "reader": public_only, "stranger": nothing}
        logins = {name: await asyncio.to_thread(user, url, name, text) for name, text in documents.items()}
        await asyncio.to_thread(check_logins_from_now_on, url)

        async def connect(name: str) -> KmsSigner:
            return await KmsSigner.connect(KmsSettings(region=REGION, key_id=arn, endpoint_url=url, **logins[name]))

        soon = asyncio.get_running_loop().time() + 10
        signer = await connect("initiator")
        assert await signer.sign(b"a message", deadline=soon)
        await signer.close()
        reader = await connect("reader")
        with pytest.raises(InitiatorError) as denied:
            await reader.sign(b"a message", deadline=soon)
        assert re.fullmatch("kms:Sign on [0-9a-f-]+: 403", denied.value.reason)  # moto denies in XML, without a code
        await reader.close()
        with pytest.raises(InitiatorError) as stranger:
            await connect("stranger")
        assert re.fullmatch("kms:GetPublicKey on .*: 403", stranger.value.reason)


def check_logins_from_now_on(url: str) -> None:
    headers = {"Content-Type": "text/plain"}
    request = urllib.request.Request(f"{url}/moto-api/reset-auth", b"0", headers, method="POST")  # noqa: S310 - our own
    with urllib.request.urlopen(request, timeout=5):  # noqa: S310
        pass


# --- the alarm


class _Template(yaml.SafeLoader):
    """CloudFormation's short forms, filled with the parameters' values."""


PARAMETERS = {"KeyArn": KEY, "KeyId": VALUES["KEY_ID"], "AliasName": "alias/initiator", "RoleArn": DAEMON}


def _fill(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> Any:
    assert isinstance(node, yaml.ScalarNode)
    text = str(loader.construct_scalar(node))
    if suffix == "Ref":
        return PARAMETERS.get(text, text)
    return re.sub(r"\$\{(\w+)\}", lambda found: PARAMETERS[found[1]], text)


_Template.add_multi_constructor("!", _fill)


def template() -> dict[str, Any]:
    content: dict[str, Any] = yaml.load((AWS / "cloudtrail-alarm.yaml").read_text(), _Template)  # noqa: S506 - safe
    return content


def rings(event: dict[str, Any]) -> list[str]:
    rules = {name: one for name, one in template()["Resources"].items() if one["Type"] == "AWS::Events::Rule"}
    return [name for name, one in rules.items() if matches(one["Properties"]["EventPattern"], event)]


def record(name: str, identity: dict[str, Any], parameters: dict[str, Any], refused: bool = False) -> dict[str, Any]:
    """An event as CloudTrail tells it: of a refused call without the key that it meant."""
    resources = [{"accountId": ACCOUNT, "type": "AWS::KMS::Key", "ARN": KEY}]
    detail = {
        "eventSource": "kms.amazonaws.com", "eventName": name, "userIdentity": identity, "readOnly": name == "Sign",
        "requestParameters": parameters, "resources": None if refused else resources,
    } | ({"errorCode": "AccessDenied"} if refused else {})  # fmt: skip
    return {"source": "aws.kms", "detail-type": "AWS API Call via CloudTrail", "detail": detail}


def role(arn: str) -> dict[str, Any]:
    name = arn.rpartition("/")[2]
    session = {"sessionIssuer": {"type": "Role", "arn": arn, "userName": name}}
    assumed = f"arn:aws:sts::{ACCOUNT}:assumed-role/{name}/i-0a1b"
    return {"type": "AssumedRole", "arn": assumed, "sessionContext": session}


USER = {"type": "IAMUser", "arn": f"arn:aws:iam::{ACCOUNT}:user/eve", "userName": "eve"}
CONSOLE_ROOT = {"type": "Root", "arn": ROOT_USER, "sessionContext": {"attributes": {}}}
BY_ARN = {"keyId": KEY, "signingAlgorithm": "ECDSA_SHA_256", "messageType": "RAW"}


def test_the_daemons_own_use_rings_nothing() -> None:
    assert rings(record("Sign", role(DAEMON), BY_ARN)) == []
    assert rings(record("GetPublicKey", role(DAEMON), {"keyId": KEY})) == []


@pytest.mark.parametrize("identity", [role(ADMIN), role(OTHER), USER, CONSOLE_ROOT], ids=lambda one: str(one["arn"]))
@pytest.mark.parametrize("key", [KEY, VALUES["KEY_ID"], "alias/initiator", f"arn:aws:kms:{REGION}:1:alias/initiator"])
@pytest.mark.parametrize("refused", [False, True])
def test_anybody_elses_use_rings_even_where_it_was_refused(identity: dict[str, Any], key: str, refused: bool) -> None:
    assert rings(record("Sign", identity, BY_ARN | {"keyId": key}, refused)) == ["UsedByAnother"]


def test_another_keys_use_rings_nothing() -> None:
    event = record("Sign", USER, BY_ARN | {"keyId": "alias/other"}, refused=True)
    assert rings(event) == []
    event["detail"]["resources"] = [{"ARN": f"{KEY}0"}]
    assert rings(event) == []


@pytest.mark.parametrize("name", ["DisableKey", "ScheduleKeyDeletion", "PutKeyPolicy", "CreateGrant", "ReplicateKey"])
@pytest.mark.parametrize("identity", [role(ADMIN), role(DAEMON), USER], ids=lambda one: str(one["arn"]))
@pytest.mark.parametrize("refused", [False, True])
def test_a_change_of_the_key_rings_whoever_makes_it(name: str, identity: dict[str, Any], refused: bool) -> None:
    assert rings(record(name, identity, {"keyId": KEY}, refused)) == ["Changed"]


def test_an_alias_that_is_moved_away_rings() -> None:
    event = record("UpdateAlias", role(ADMIN), {"aliasName": "alias/initiator", "targetKeyId": "another"})
    event["detail"]["resources"] = [{"ARN": f"{KEY}0"}]
    assert rings(event) == ["Changed"]


def test_rules_hear_of_read_only_calls_as_sign_is_one() -> None:
    rules = [one for one in template()["Resources"].values() if one["Type"] == "AWS::Events::Rule"]
    assert {one["Properties"]["State"] for one in rules} == {"ENABLED_WITH_ALL_CLOUDTRAIL_MANAGEMENT_EVENTS"}
    assert len(rules) == 2


def test_the_template_is_one_to_cloudformation() -> None:
    """cfn-lint comes with moto."""
    tool = Path(sys.executable).parent / "cfn-lint"
    if not tool.exists():
        pytest.skip("no cfn-lint beside this Python")
    command = [str(tool), "--non-zero-exit-code", "informational", str(AWS / "cloudtrail-alarm.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout
