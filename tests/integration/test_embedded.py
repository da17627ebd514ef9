"""All of straggler in one process, without a Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from producer.batch import Batch
from producer.producer import Producer
from protocol import keys
from protocol.settings import Settings
from straggler import (
    CancelledResult,
    FailureResult,
    SuccessResult,
    TimeoutResult,
    current_job,
    embedded,
    job,
)
from tests.conftest import PATIENCE, until_running
from tests.jobs import fail, hang, nap, plain_square, plain_tell, square, tell

ONE_SLOT = Settings(concurrency=1)


@asynccontextmanager
async def slots_held(door: Path, function: Any, settings: Settings) -> AsyncIterator[Producer]:
    """Give a producer while a job holds what others wait for; at the end it must hold it still."""
    async with asyncio.timeout(PATIENCE), embedded(settings) as producer:
        held = await producer.submit([function.spec(door)])
        await until_running(held, 1)
        yield producer
        assert (await held.status()).done == 0
        door.touch()
        assert (await held.gather()) == [None]


async def test_a_batch_runs_in_this_very_process() -> None:
    async with embedded(Settings()) as producer:
        batch = await producer.submit(square.map(range(2000)))
        assert await batch.gather() == [n * n for n in range(2000)]
        assert (await batch.status()).complete


async def test_results_are_the_same_as_from_afar() -> None:
    async with embedded(Settings()) as producer:
        batch: Batch[Any] = await producer.submit([nap.spec(0.0), hang.spec(timeout=0.1), fail.spec("no")])
        found = {type(result) async for result in batch.as_completed()}
    assert {kind.__name__.partition("[")[0] for kind in found} == {
        kind.__name__ for kind in (SuccessResult, TimeoutResult, FailureResult)
    }


async def test_leaving_ends_what_still_runs_at_once() -> None:
    async with asyncio.timeout(PATIENCE), embedded(Settings()) as producer:
        batch = await producer.submit([hang.spec()])
        await until_running(batch, 1)


async def test_an_error_inside_comes_out_and_leaves_nothing_running() -> None:
    async def work() -> None:
        async with embedded(Settings()) as producer:
            await producer.submit([hang.spec()])
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        await work()


async def test_two_at_a_time_are_apart() -> None:
    async with embedded(Settings()) as one, embedded(Settings()) as two:
        await one.submit(square.map([1]), batch_id="same")
        assert await two.batches() == []
        assert await (await two.submit(square.map([3]), batch_id="same")).gather() == [9]


async def test_a_batch_travels_in_chunks_of_a_thousand_jobs() -> None:
    async with embedded(ONE_SLOT) as producer:
        held = await producer.submit([hang.spec()])
        await until_running(held, 1)
        batch = await producer.submit(square.map(range(2500)))
        firsts = await producer.redis.hkeys(keys.chunks(batch.id))  # type: ignore[misc]  # typed for both clients
        assert sorted(map(int, firsts)) == [0, 1000, 2000]


@pytest.mark.parametrize(
    ("options", "own", "phase"),
    [
        ({"queue_timeout": 0.2}, {}, "queued"),
        ({}, {"queue_timeout": 0.2}, "queued"),
        ({"deadline": 0.2}, {}, "batch"),
        ({}, {"deadline": 0.2}, "deadline"),
    ],
)
@pytest.mark.parametrize("function", [square, plain_square])
async def test_jobs_that_wait_for_a_slot_here_end_by_their_clocks_while_it_is_held(
    function: Any, options: dict[str, Any], own: dict[str, Any], phase: str, tmp_path: Path
) -> None:
    async with slots_held(tmp_path / "door", tell, ONE_SLOT) as producer:
        batch: Batch[Any] = await producer.submit([function.spec(number, **own) for number in range(3)], **options)
        for result in await batch.results():
            assert isinstance(result, TimeoutResult)
            assert (result.phase, result.limit, result.stopped) == (phase, 0.2, "not started")


async def test_jobs_that_wait_for_a_process_here_end_by_their_clocks_too(tmp_path: Path) -> None:
    async with slots_held(tmp_path / "door", plain_tell, Settings(concurrency=10, job_processes=1)) as producer:
        batch = await producer.submit(plain_square.map(range(3)), queue_timeout=0.2)
        found: list[Any] = await batch.results()
        assert [(result.phase, result.stopped) for result in found] == [("queued", "not started")] * 3


async def test_a_deadline_that_is_given_later_ends_jobs_that_wait_here(tmp_path: Path) -> None:
    async with slots_held(tmp_path / "door", tell, ONE_SLOT) as producer:
        batch = await producer.submit(square.map(range(3)))
        await until_running(batch, 3)
        await batch.extend(deadline=0.2)
        found: list[Any] = await batch.results()
        assert [(result.phase, result.stopped) for result in found] == [("batch", "not started")] * 3


async def test_a_cancel_ends_jobs_that_wait_here(tmp_path: Path) -> None:
    async with slots_held(tmp_path / "door", tell, ONE_SLOT) as producer:
        batch = await producer.submit(square.map(range(3)))
        await until_running(batch, 3)
        await batch.cancel([1], reason="no longer needed")
        [one] = (await batch.wait(return_when="FIRST_COMPLETED"))[0]
        assert isinstance(one, CancelledResult)
        assert (one.index, one.reason) == (1, "no longer needed")
        await batch.cancel()
        assert {result.status for result in await batch.results()} == {"cancelled"}


async def test_a_cancel_ends_the_last_jobs_of_a_large_chunk_that_waits(tmp_path: Path) -> None:
    async with slots_held(tmp_path / "door", tell, ONE_SLOT) as producer:
        batch = await producer.submit(square.map(range(2000)))
        await batch.cancel([999, 1990])
        done, _ = await batch.wait(timeout=0)
        assert sorted(result.index for result in done) == [999, 1990]


async def test_a_later_batch_passes_by_long_jobs_that_leave_it_a_slot() -> None:
    async with asyncio.timeout(PATIENCE), embedded(Settings(concurrency=2)) as producer:
        long = await producer.submit([hang.spec()])
        await until_running(long, 1)
        for _ in range(2):
            batch = await producer.submit(square.map(range(1500)))
            assert await batch.gather() == [n * n for n in range(1500)]
        assert (await long.status()).done == 0


async def test_never_more_jobs_run_at_a_time_than_there_are_slots_and_the_first_start_first() -> None:
    running, most, order = 0, 0, []

    @job
    async def note() -> None:
        nonlocal running, most
        order.append(current_job().index)
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1

    async with embedded(Settings(concurrency=7)) as producer:
        batch = await producer.submit([note.spec() for _ in range(1200)])
        assert len(await batch.gather()) == 1200
    assert most == 7
    assert order[:400] == list(range(400)), "later ones take turns with the next thousand"
    assert sorted(order) == list(range(1200))
