"""What the jobs of a worker share."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import NoReturn

import pytest

from straggler import Settings, embedded, job
from tests.conftest import PATIENCE
from workers.calling import resources
from workers.calling.resources import Resources, shared

events: list[str] = []


@pytest.fixture(autouse=True)
def no_events() -> None:
    events.clear()


@asynccontextmanager
async def first() -> AsyncIterator[str]:
    events.append("first opens")
    await asyncio.sleep(0.01)
    yield "first"
    events.append("first closes")


@asynccontextmanager
async def second() -> AsyncIterator[str]:
    events.append("second opens")
    yield "second"
    events.append("second closes")


async def use(*several: Callable[[], AbstractAsyncContextManager[str]]) -> None:
    for make in several:
        async with shared(make) as made:
            assert made in ("first", "second")


async def test_jobs_of_one_worker_share_what_closes_with_it_in_reverse_order(redis_url: str) -> None:
    @job
    async def use_both() -> None:
        await use(first, second)

    async with embedded(Settings(), url=redis_url) as producer:
        await (await producer.submit(use_both.starmap([()] * 10))).gather()
        assert events == ["first opens", "second opens"]
    assert events[2:] == ["second closes", "first closes"]


async def test_outside_a_worker_each_call_has_its_own() -> None:
    await asyncio.gather(use(first), use(first))
    assert sorted(events) == ["first closes"] * 2 + ["first opens"] * 2


async def test_what_was_cut_off_while_it_opened_is_opened_again() -> None:
    mine = Resources()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.001):
            await mine.get(first)
    assert await mine.get(first) == "first"
    await mine.close()
    assert events == ["first opens", "first opens", "first closes"]


async def test_what_cannot_be_closed_is_logged_and_the_rest_is_closed(caplog: pytest.LogCaptureFixture) -> None:
    @asynccontextmanager
    async def broken() -> AsyncIterator[None]:
        yield
        raise OSError("cannot be closed")

    mine = Resources()
    await mine.get(second)
    await mine.get(broken)
    with caplog.at_level(logging.ERROR):
        await mine.close()
    assert [record.event for record in caplog.records] == ["worker.close_failed"]  # type: ignore[attr-defined]  # extra
    assert "cannot be closed" in caplog.text


async def test_what_never_closes_does_not_hold_the_worker(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    @asynccontextmanager
    async def endless() -> AsyncIterator[None]:
        yield
        await never()

    monkeypatch.setattr(resources, "_LONGEST_CLOSE", 0.01)
    mine = Resources()
    await mine.get(endless)
    async with asyncio.timeout(PATIENCE):
        await mine.close()
    assert "could not be closed" in caplog.text


async def never() -> NoReturn:
    await asyncio.Event().wait()
    raise AssertionError
