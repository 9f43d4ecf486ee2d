"""Names of KMS keys: key ids, key ARNs, and what tells two replicas of one multi-Region key from two keys.

A multi-Region key has one id that begins with `mrk-` in every Region; its ARNs differ in the Region alone (AWS KMS
Developer Guide, "Multi-Region keys").
"""

from __future__ import annotations

_ARN_PARTS = 6  # arn:partition:kms:region:account:resource


def region_of(key_id: str) -> str | None:
    """The Region that an ARN names; None for ids and aliases, which name none."""
    parts = key_id.split(":")
    return parts[3] if len(parts) == _ARN_PARTS else None


def name_in(key_id: str, region: str) -> str | None:
    """The name of the same key in another Region; None where that is no multi-Region key's id or ARN."""
    if key_id.startswith("mrk-"):
        return key_id
    parts = key_id.split(":")
    if len(parts) != _ARN_PARTS or not parts[5].startswith("key/mrk-"):
        return None
    return ":".join([*parts[:3], region, *parts[4:]])


def same_key(pinned: str, answered: str) -> bool:
    """Whether two key names are one key: equal, or replicas of one multi-Region key, which differ in Region only."""
    if pinned == answered:
        return True
    a, b = pinned.split(":"), answered.split(":")
    if len(a) == len(b) == _ARN_PARTS:
        return a[5].startswith("key/mrk-") and [*a[:3], *a[4:]] == [*b[:3], *b[4:]]
    # an emulator that names keys by ARN in one call and by bare id in another
    return bool(answered) and (pinned.rpartition("/")[2] == answered.rpartition("/")[2]) and 1 in (len(a), len(b))
