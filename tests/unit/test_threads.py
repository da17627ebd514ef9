"""Threads for plain functions: left behind at the timeout, counted, and forgotten when they end at last."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Any

import pytest

from tests.conftest import PATIENCE, until
from workers.calling.calls import in_thread
from workers.calling.threads import Threads
from workers.ending.failures import DescribedError
from workers.registry import Job

name: ContextVar[str] = ContextVar("name")


class Pool(Threads):
    """Threads, with what they leave behind at hand."""

    def __init__(self, limit: int) -> None:
        self.left: set[Any] = set()
        super().__init__(limit, self.left)


@pytest.fixture
async def threads() -> AsyncIterator[Pool]:
    pool = Pool(2)
    yield pool
    pool.close()


async def test_it_returns_what_the_function_returns_and_raises_what_it_raises(threads: Pool) -> None:
    assert await threads.run(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await threads.run(divmod, 7, 0)
    assert not threads.left


async def test_a_job_that_raises_stop_iteration_has_failed(threads: Pool) -> None:
    def stop() -> None:
        raise StopIteration("x")

    with pytest.raises(DescribedError, match="x") as raised:
        await threads.run(in_thread, Job(stop, "stop"), (), {}, 100)
    assert raised.value.described["error_type"] == "StopIteration"


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
async def test_what_is_no_exception_is_raised_here_too(threads: Pool, error: BaseException) -> None:
    def leave() -> None:
        raise error

    async def call() -> BaseException | None:
        try:
            await threads.run(leave)
        except BaseException as raised:  # noqa: BLE001  # what it is about
            return raised
        return None

    assert await call() is error


async def test_the_function_runs_in_the_context_of_its_job(threads: Pool) -> None:
    name.set("job 7")
    assert await threads.run(name.get) == "job 7"


async def test_a_thread_whose_job_is_over_is_counted_until_it_ends(threads: Pool) -> None:
    running, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        running.set()
        go_on.wait(PATIENCE)

    call = asyncio.create_task(threads.run(hold))
    await until(running.is_set)
    call.cancel()
    await asyncio.wait({call})
    assert call.cancelled()
    assert len(threads.left) == 1
    go_on.set()
    await until(lambda: not threads.left)


async def test_a_call_that_is_cancelled_before_a_thread_takes_it_never_runs(threads: Pool) -> None:
    go_on = threading.Event()
    holding = [asyncio.create_task(threads.run(go_on.wait, PATIENCE)) for _ in range(2)]
    ran: list[int] = []
    waiting = asyncio.create_task(threads.run(ran.append, 1))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait({waiting})
    assert not threads.left
    go_on.set()
    await asyncio.gather(*holding)
    assert not ran


async def test_a_thread_that_outlives_the_loop_ends_quietly() -> None:
    running, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def hold() -> None:
        running.set()
        go_on.wait(PATIENCE)
        ended.set()

    async def leave_one() -> None:
        threads = Pool(1)
        call = asyncio.create_task(threads.run(hold))
        await until(running.is_set)
        call.cancel()
        await asyncio.wait({call})
        threads.close()

    other = threading.Thread(target=asyncio.run, args=(leave_one(),))
    other.start()
    await asyncio.to_thread(other.join)
    go_on.set()
    assert await asyncio.to_thread(ended.wait, PATIENCE)
