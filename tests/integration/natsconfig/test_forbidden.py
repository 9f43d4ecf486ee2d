"""Each forbidden action, tried against the real server in every form; without accounts the same attempts work."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.forbidden import ACTIONS, SYSTEM, Action, table
from tests.support.pages import ROOT

from .world import World, world

pytestmark = pytest.mark.asyncio(loop_scope="module")
FORMS = ("plain-nkey", "jwt", "accounts alone")


def name(action: Action) -> str:
    return f"{action.who}: {action.what}"


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=FORMS)
async def held(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with world(tmp_path_factory.mktemp("world"), request.param) as one:
        yield one


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def unheld(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with world(tmp_path_factory.mktemp("world"), "one account") as one:
        yield one


@pytest.mark.parametrize("action", ACTIONS, ids=name)
async def test_it_is_refused(held: World, action: Action) -> None:
    if action.inside and held.form == "accounts alone":
        pytest.skip("only permissions stand against it, and this form has none: the table says so")
    effects, against = await held.attempt(action)
    assert not effects, (effects, against)
    if action.inside:
        assert any("violation" in text for text in against), against


@pytest.mark.parametrize("action", ACTIONS, ids=name)
async def test_the_attempt_is_a_real_one(unheld: World, action: Action) -> None:
    """With everybody in one account and no permissions it has an effect: else its refusal would show nothing."""
    effects, _ = await unheld.attempt(action)
    assert effects


@pytest.mark.parametrize("who", SYSTEM)
async def test_nobody_reaches_the_system_account(held: World, who: str) -> None:
    call = Action(who=who, what="", verb="call", subject="$SYS.REQ.SERVER.PING")
    effects, _ = await held.attempt(call)
    assert not effects.answered


async def test_the_table_of_the_documentation_is_this_one() -> None:
    page = (ROOT / "docs" / "nats.md").read_text()
    assert table() in page, table()


async def test_there_are_enough() -> None:
    assert len(ACTIONS) >= 25
    assert len({name(action) for action in ACTIONS}) == len(ACTIONS)
