"""All of straggler in one process, without a Redis."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from producer.batch import Batch
from protocol.settings import Settings
from straggler import FailureResult, SuccessResult, TimeoutResult, embedded
from tests.conftest import until_running
from tests.jobs import fail, hang, nap, square


async def test_a_batch_runs_in_this_very_process() -> None:
    async with embedded(Settings()) as producer:
        batch = await producer.submit(square.map(range(2000)))
        assert await batch.gather() == [n * n for n in range(2000)]
        assert (await batch.status()).complete


async def test_results_are_the_same_as_from_afar() -> None:
    async with embedded(Settings()) as producer:
        batch: Batch[Any] = await producer.submit([nap.spec(0.0), hang.spec(timeout=0.1), fail.spec("no")])
        found = {type(result) async for result in batch.as_completed(10)}
    assert {kind.__name__.partition("[")[0] for kind in found} == {
        kind.__name__ for kind in (SuccessResult, TimeoutResult, FailureResult)
    }


async def test_leaving_ends_what_still_runs_at_once() -> None:
    async with asyncio.timeout(3), embedded(Settings()) as producer:
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
