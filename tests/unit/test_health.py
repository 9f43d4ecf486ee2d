"""Health by parts: ready only when all are well and the start is complete."""

from __future__ import annotations

from initiator.errors import Code
from initiator.health import Health, Part


def test_nothing_is_ready_before_its_start_is_complete() -> None:
    health = Health(("nats", "signer"))
    assert not health.ready
    for part in ("nats", "signer"):
        health.set(part, True)
    assert (health.ready, health.started) == (False, False)
    health.mark_started()
    assert (health.ready, health.started) == (True, True)


def test_one_part_that_is_away_is_named_with_its_code_and_comes_back() -> None:
    health = Health(("nats", "signer"))
    health.mark_started()
    health.set("nats", True)
    health.set("signer", False, "disabled", Code.KMS_KEY_UNUSABLE)
    assert not health.ready
    assert health.snapshot() == (Part("nats", True), Part("signer", False, "disabled", Code.KMS_KEY_UNUSABLE))
    health.set("signer", True, "left over", Code.KMS_KEY_UNUSABLE)
    assert health.ready
    assert health.snapshot()[1] == Part("signer", True)


def test_what_is_amiss_with_a_part_that_is_well_enough_is_a_note() -> None:
    health = Health(("signer",))
    health.mark_started()
    health.set("signer", True, note="one Region is out")
    assert health.ready
    assert health.snapshot() == (Part("signer", True, note="one Region is out"),)
    health.set("signer", False, "all are out", Code.KMS_UNAVAILABLE, note="left over")
    assert health.snapshot() == (Part("signer", False, "all are out", Code.KMS_UNAVAILABLE),)


def test_a_part_says_that_it_was_not_started() -> None:
    assert Health(("nats",)).snapshot() == (Part("nats", False, "not started"),)


def test_whoever_listens_hears_of_every_part_from_the_beginning() -> None:
    heard: list[tuple[str, bool]] = []
    health = Health(("nats", "signer"), lambda part: heard.append((part.name, part.ok)))
    health.set("signer", True)
    health.set("signer", False, "all are out", Code.KMS_UNAVAILABLE)
    health.set("policy", True)
    assert heard == [("nats", False), ("signer", False), ("signer", True), ("signer", False), ("policy", True)]
