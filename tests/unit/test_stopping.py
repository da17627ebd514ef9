"""A worker's main task waits for nothing any longer once it was told to stop."""

from __future__ import annotations

import asyncio

import pytest

from workers.vitals.stopping import Stopping


async def give(value: int) -> int:
    await asyncio.sleep(0)
    return value


async def test_what_comes_in_time_is_returned() -> None:
    stopping = Stopping()
    assert await stopping.unless_set(give(3)) == 3
    assert not stopping.is_set


async def test_nothing_is_waited_for_after_the_stop() -> None:
    stopping = Stopping()
    stopping.set()
    assert await stopping.unless_set(give(3)) is None
    assert stopping.is_set


async def test_a_wait_ends_with_the_stop_and_its_task_goes_on() -> None:
    stopping, ended = Stopping(), asyncio.Event()

    async def hang() -> bool:
        try:
            return await asyncio.Event().wait()
        finally:
            ended.set()

    async def work() -> int:
        assert await stopping.unless_set(hang()) is None
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        return await give(4)

    working = asyncio.create_task(work())
    await asyncio.sleep(0)
    stopping.set()
    stopping.set()
    assert await working == 4
    assert ended.is_set()


async def test_a_cancel_from_elsewhere_is_none_of_its_business() -> None:
    stopping = Stopping()
    working = asyncio.create_task(stopping.unless_set(asyncio.Event().wait()))
    await asyncio.sleep(0)
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working


async def test_both_at_once_are_a_cancel() -> None:
    stopping = Stopping()
    working = asyncio.create_task(stopping.unless_set(asyncio.Event().wait()))
    await asyncio.sleep(0)
    stopping.set()
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working


async def test_work_that_ends_by_itself_ends_the_wait() -> None:
    stopping = Stopping()
    done: list[int] = []

    async def work() -> None:
        done.append(await give(5))

    await stopping.until_set(work(), 60)
    assert done == [5]


async def test_work_has_a_moment_after_the_stop() -> None:
    stopping = Stopping()
    done: list[int] = []

    async def work() -> None:
        await asyncio.sleep(0.01)
        done.append(6)

    stopping.set()
    await stopping.until_set(work(), 60)
    assert done == [6]
    await stopping.until_set(asyncio.sleep(60), 0.01)


async def test_an_error_of_the_work_comes_out() -> None:
    async def fail() -> None:
        raise ValueError("of the work")

    with pytest.raises(ValueError, match="of the work"):
        await Stopping().until_set(fail(), 60)
