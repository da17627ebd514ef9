"""What an ended job leaves in its worker goes at once: no circles, which wait for the garbage collector.

That holds the loop of all jobs for milliseconds, and until it comes a job that has failed, or was stopped, keeps all
that its frames knew, be it a page of 10 MB.
"""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from producer.producer import Producer
from straggler import current_job, embedded, job
from tests.conftest import PATIENCE
from tests.jobs import echo, fail, hang, nap

JOBS = 100


@job
async def gather(seconds: float) -> None:
    await asyncio.gather(asyncio.sleep(seconds), asyncio.sleep(seconds))


@job
async def in_a_group(seconds: float) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(seconds))
        group.create_task(asyncio.sleep(seconds))


@job
async def fail_later(seconds: float) -> None:
    await asyncio.sleep(seconds)
    raise ValueError(seconds)


@job
async def fail_and_then_return(number: int) -> int:
    if current_job().attempt == 1:
        raise ValueError(number)
    return number


@job(isolation="thread")
def in_a_thread(number: int) -> int:
    return number


async def run(producer: Producer, function: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> set[str]:
    """Run jobs to their ends, until the worker has let go of them; returns their statuses."""
    batch = await producer.submit([function.spec(*arguments)] * JOBS, **options)
    async with asyncio.timeout(PATIENCE):
        statuses: set[str] = {result.status async for result in batch.as_completed()}
        while any("straggler-chunk" in task.get_name() for task in asyncio.all_tasks()):  # noqa: ASYNC110  # nobody tells us
            await asyncio.sleep(0.01)
    return statuses


@pytest.mark.parametrize(
    ("function", "arguments", "options", "status"),
    [
        (echo, (1,), {}, "success"),
        (nap, (0.001,), {}, "success"),
        (gather, (0.001,), {}, "success"),
        (in_a_group, (0.001,), {}, "success"),
        (in_a_thread, (1,), {}, "success"),
        (fail, ("no",), {}, "failure"),
        (fail_later, (0.001,), {}, "failure"),
        (fail_and_then_return, (1,), {"retries": 1}, "success"),
        (hang, (), {"timeout": 0.05}, "timeout"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
async def test_nothing_is_left_to_the_garbage_collector(
    redis_url: str, function: Any, arguments: tuple[Any, ...], options: dict[str, Any], status: str
) -> None:
    async with embedded(url=redis_url) as producer:
        await run(producer, function, arguments, options)  # what is made once may leave something
        gc.collect()
        gc.disable()
        try:
            statuses = await run(producer, function, arguments, options)
            left = gc.collect()
        finally:
            gc.enable()
    assert statuses == {status}
    # A job that was in a circle left 13 objects and more. A chunk, or a connection, may still be one.
    assert left < JOBS
