"""`Batch.wait` beside `asyncio.wait`: the same jobs, the same durations, and the same of them done and pending.

All rows of a test run at a time, so it takes as long as its longest row. Whatever happens in a row is 0.7 s away from
whatever else happens there, which a busy machine needs.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import Any, NamedTuple

import pytest

from producer.batch import Batch
from producer.producer import Producer
from straggler import ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION, job
from tests.conftest import StartWorker, until

NEVER = 3600.0
EARLY, LATE = 0.7, 2.1
MODES: list[Any] = [FIRST_COMPLETED, FIRST_EXCEPTION, ALL_COMPLETED]
TIMEOUTS = {"no time": 0.0, "some time": 1.4, "all the time": None}


start: dict[str, asyncio.Event] = {}


@job
async def end_after(seconds: float, *, well: bool = True) -> float:
    await start["now"].wait()
    await asyncio.sleep(seconds)
    if not well:
        raise ValueError("not well")
    return seconds


# Of each job: when it ends, and whether it succeeds.
SCENARIOS: dict[str, list[tuple[float, bool]]] = {
    "one job": [(EARLY, True)],
    "one job that fails": [(EARLY, False)],
    "all succeed": [(LATE, True), (EARLY, True)],
    "the first fails": [(LATE, True), (EARLY, False)],
    "the last fails": [(EARLY, True), (LATE, False)],
    "all fail": [(EARLY, False), (LATE, False)],
    "two at a time": [(EARLY, True), (EARLY, True), (LATE, True)],
    "a straggler": [(EARLY, True), (NEVER, True)],
    "a failure before a straggler": [(EARLY, False), (NEVER, True)],
    "nothing ends": [(NEVER, True), (NEVER, True)],
}


class Row(NamedTuple):
    """What is waited for, and when the wait begins: with the jobs, or when some or all of them have ended."""

    scenario: str
    begin: str
    mode: Any
    timeout: str

    @property
    def jobs(self) -> list[tuple[float, bool]]:
        return SCENARIOS[self.scenario]

    @property
    def delay(self) -> float:
        return {"with the jobs": 0.0, "after the first": 1.4, "after all": 2.8}[self.begin]

    @property
    def has_an_end(self) -> bool:
        """Whether asyncio.wait would return at all."""
        if self.timeout != "all the time" or all(ends < NEVER for ends, _ in self.jobs):
            return True
        if self.mode == FIRST_EXCEPTION:
            return any(not well for _, well in self.jobs)
        return self.mode == FIRST_COMPLETED and any(ends < NEVER for ends, _ in self.jobs)


BEGINS = ("with the jobs", "after the first", "after all")
ROWS = [row for row in itertools.starmap(Row, itertools.product(SCENARIOS, BEGINS, MODES, TIMEOUTS)) if row.has_an_end]

Waits = list[tuple[set[int], set[int]]]
"""Of each wait of a row the jobs that are done, and those that are pending."""


async def by_asyncio(row: Row) -> Waits:
    tasks = [asyncio.create_task(end_after(ends, well=well)) for ends, well in row.jobs]
    number = {task: at for at, task in enumerate(tasks)}
    waits: Waits = []

    async def wait(among: Any) -> set[asyncio.Task[float]]:
        done, pending = await asyncio.wait(among, timeout=TIMEOUTS[row.timeout], return_when=row.mode)
        waits.append(({number[task] for task in done}, {number[task] for task in pending}))
        return pending

    await asyncio.sleep(row.delay)
    left = await wait(tasks)
    await wait(tasks)
    if left and row.has_an_end and row.timeout != "all the time":
        await wait(left)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return waits


async def by_batch(row: Row, batch: Batch[Any]) -> Waits:
    waits: Waits = []

    async def wait(among: list[int] | None = None) -> list[int]:
        done, pending = await batch.wait(TIMEOUTS[row.timeout], row.mode, among=among)
        waits.append(({result.index for result in done}, set(pending)))
        assert len(done) + len(pending) == len(row.jobs if among is None else among)
        return pending

    await asyncio.sleep(row.delay)
    left = await wait()
    await wait()
    if left and row.has_an_end and row.timeout != "all the time":
        await wait(left)
    return waits


@pytest.mark.alone
@pytest.mark.parametrize("begin", BEGINS)
async def test_each_row_has_the_same_done_and_pending_as_with_asyncio_wait(
    producer: Producer, worker: StartWorker, begin: str
) -> None:
    rows = [row for row in ROWS if row.begin == begin]
    assert len(rows) > 70
    different = await differences(producer, worker, rows)
    for _ in range(3):  # a busy machine may be late by more than these 0.7 s, but not for the same rows each time
        if different:
            different = await differences(producer, worker, list(different))
    assert not different, "\n".join(f"{row}: {mine}, asyncio.wait: {their}" for row, (mine, their) in different.items())


async def differences(
    producer: Producer, worker: StartWorker, rows: list[Row]
) -> dict[Row, tuple[Waits | BaseException, Waits]]:
    """Run rows, all at a time; returns those that differ, with what `Batch.wait` told and what `asyncio.wait`."""
    start["now"] = asyncio.Event()
    async with worker(concurrency=2000) as started:
        batches = [
            await producer.submit([end_after.spec(ends, well=well) for ends, well in row.jobs], timeout=2 * NEVER)
            for row in rows
        ]
        await until(lambda: started.crew.slots.used == sum(len(row.jobs) for row in rows))
        start["now"].set()
        ours, theirs = await asyncio.gather(
            asyncio.gather(*map(by_batch, rows, batches), return_exceptions=True),
            asyncio.gather(*map(by_asyncio, rows)),
        )
        await asyncio.gather(*(batch.cancel() for batch in batches))
    return {row: (mine, their) for row, mine, their in zip(rows, ours, theirs, strict=True) if mine != their}
