"""Names of KMS keys: which Region they name, and what they are called elsewhere."""

from __future__ import annotations

import pytest

from initiator.core import keynames

MRK = "arn:aws:kms:eu-central-1:111122223333:key/mrk-1234abcd"
MRK_WEST = "arn:aws:kms:eu-west-1:111122223333:key/mrk-1234abcd"
KEY = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd"


@pytest.mark.parametrize(
    ("key_id", "name"),
    [
        ("mrk-1234abcd", "mrk-1234abcd"),
        (MRK, MRK_WEST),
        (MRK_WEST, MRK_WEST),
        ("arn:aws-cn:kms:cn-north-1:1:key/mrk-1", "arn:aws-cn:kms:eu-west-1:1:key/mrk-1"),
        (KEY, None),
        ("1234abcd", None),
        ("alias/mrk-initiator", None),
        ("arn:aws:kms:eu-central-1:111122223333:alias/mrk-initiator", None),
    ],
)
def test_only_a_multi_region_key_has_a_name_elsewhere(key_id: str, name: str | None) -> None:
    assert keynames.name_in(key_id, "eu-west-1") == name


def test_an_arn_names_its_region_and_nothing_else_does() -> None:
    assert [keynames.region_of(name) for name in (MRK, KEY, "mrk-1", "alias/a")] == [*["eu-central-1"] * 2, None, None]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (MRK, MRK, True),
        (MRK, MRK_WEST, True),
        (MRK, MRK_WEST.replace("1111", "2222"), False),
        (MRK, MRK_WEST.replace("abcd", "abce"), False),
        (KEY, KEY.replace("central", "west"), False),
        (KEY, "1234abcd", True),
        (KEY, "", False),
    ],
)
def test_replicas_are_one_key_and_others_are_not(one: str, other: str, same: bool) -> None:
    assert keynames.same_key(one, other) is same
