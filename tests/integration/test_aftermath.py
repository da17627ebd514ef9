"""What a dead worker leaves: its current job judged once, its chunks handed back, whatever stands in Redis."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from producer.batch import Batch
from producer.producer import Producer
from protocol import keys
from protocol.connection import Scripts, connect
from protocol.jobs import JobSpec
from straggler import LostResult, TimeoutResult
from tests.conftest import StartWorker
from tests.jobs import square
from workers.crashes import MOST_CRASHES
from workers.vitals.aftermath import Aftermath, Death
from workers.vitals.pulse import CURRENT, LAST_MOMENT, LIMIT, SINCE, STARTED, Current, Pulse, job_number

DEAD = "host-1-dead"
# Longer than any test: what runs again has not waited for a lease to lapse.
LEASE_MS = 600_000


@dataclass
class DeadWorker:
    """A worker's memory after its death, and its leases in Redis."""

    pulse: Pulse
    redis: Any
    aftermath: Aftermath

    def hold(self, chunk_id: str, index: int | None = None, worker_id: str = DEAD) -> None:
        """Die with a chunk, one job of which held the loop."""
        self.lease(chunk_id, worker_id)
        row = self.pulse.hold(chunk_id)
        now = time.monotonic()
        for place, value in ((LAST_MOMENT, now), (STARTED, now - 2), (LIMIT, 1.5), (SINCE, now - 1)):
            self.pulse.cells[place] = value
        if index is not None:
            self.pulse.cells[CURRENT] = job_number(row, index)

    def lease(self, chunk_id: str, worker_id: str) -> None:
        """Let a worker hold a chunk, as `claim` does."""
        holders = keys.holders(chunk_id.partition(":")[0])
        self.redis.set(keys.ARQ_IN_PROGRESS + chunk_id, worker_id, px=LEASE_MS)
        self.redis.hset(holders, chunk_id, worker_id)
        self.redis.pexpire(holders, LEASE_MS)
        self.redis.zadd(keys.queue("default"), {chunk_id: time.time() * 1000 + LEASE_MS})

    def hold_chunk_of(self, batch: Batch[Any], index: int) -> str:
        """Die with the chunk of a job, the job at work; returns the chunk's id."""
        first = max(first for first in map(int, self.redis.hkeys(keys.chunks(batch.id))) if first <= index)
        self.hold(chunk_id := keys.chunk_id(batch.id, first), index)
        return chunk_id

    async def settle(self, *, killed: bool = False) -> None:
        await self.aftermath.settle(self.pulse, Death("signal SIGSEGV", self.pulse.current(), killed=killed))


@pytest.fixture
async def death(redis_url: str, redis: Any, tmp_path: Path) -> AsyncIterator[DeadWorker]:
    connection = connect(redis_url)
    pulse = Pulse.create(tmp_path / "pulse", 20)
    pulse.worker_id = DEAD
    yield DeadWorker(pulse, redis, Aftermath(Scripts(connection), "default"))
    pulse.close()
    await connection.aclose(close_connection_pool=True)


async def submit(producer: Producer, count: int = 3) -> Batch[int]:
    return await producer.submit(square.map(range(count)))


async def test_the_job_that_a_process_was_killed_for_has_timed_out_and_the_others_run_at_once(
    producer: Producer, worker: StartWorker, death: DeadWorker
) -> None:
    batch = await submit(producer, 100)
    death.hold_chunk_of(batch, 51)
    await death.settle(killed=True)
    async with worker():
        results = await batch.results()
    killed = results.pop(51)
    assert isinstance(killed, TimeoutResult)
    assert (killed.stopped, killed.phase, killed.limit, killed.attempt, killed.worker) == (
        "killed", "running", 1.5, 1, DEAD,
    )  # fmt: skip
    assert killed.duration == pytest.approx(2, abs=1)
    assert [(result.status, result.attempt) for result in results] == [("success", 1)] * 99


async def test_one_death_counts_once_however_often_it_is_told(
    producer: Producer, worker: StartWorker, death: DeadWorker
) -> None:
    batch = await submit(producer)
    death.hold_chunk_of(batch, 1)
    for _ in range(MOST_CRASHES + 1):
        await death.settle()
    async with worker():
        assert {result.status for result in await batch.results()} == {"success"}


async def test_a_death_under_no_known_job_is_noted_for_all_that_had_started(
    producer: Producer, worker: StartWorker, death: DeadWorker
) -> None:
    async def stream() -> AsyncIterator[JobSpec[int]]:  # travels as one chunk
        for number in range(3):
            yield square.spec(number)

    batch = await producer.submit(stream())
    death.hold(f"{batch.id}:0")
    death.pulse.begun[-1] = 2
    await death.settle()
    async with worker():
        assert [result.attempt for result in await batch.results()] == [2, 2, 1]


async def test_a_worker_that_left_in_order_has_died_under_nobody(
    producer: Producer, worker: StartWorker, death: DeadWorker
) -> None:
    batch = await submit(producer)
    death.hold(f"{batch.id}:0")
    death.pulse.begun[-1] = 1
    await death.aftermath.settle(death.pulse, Death("exit code 0", in_order=True))
    async with worker():
        assert [result.attempt for result in await batch.results()] == [1, 1, 1]


async def test_a_killed_job_runs_again_where_timeouts_are_retried(
    producer: Producer, worker: StartWorker, death: DeadWorker
) -> None:
    batch = await producer.submit(square.map(range(3)), retries=1, retry_on=("timeout",), backoff=0.01)
    death.hold_chunk_of(batch, 1)
    await death.settle(killed=True)
    async with worker():
        results = await batch.results()
    assert [(result.status, result.attempt) for result in results] == [("success", 1), ("success", 2), ("success", 1)]


async def test_neighbours_of_a_job_that_had_its_worker_killed_keep_that_among_their_attempts_and_it_does_not_count(
    producer: Producer, worker: StartWorker, death: DeadWorker, redis: Any
) -> None:
    async def stream() -> AsyncIterator[JobSpec[int]]:  # travels as one chunk
        for number in range(4):
            yield square.spec(number)

    batch = await producer.submit(stream(), retries=1, retry_on=("timeout",), backoff=0.01)
    death.hold(f"{batch.id}:0", 1)
    death.pulse.begun[-1] = 3
    for _ in range(2):
        await death.settle(killed=True)
    assert not redis.exists(keys.crashes(batch.id)), "it makes none of them suspicious"
    async with worker():
        assert [result.attempt for result in await batch.results()] == [1, 2, 1, 1]
    found = [await batch.attempts(index) for index in range(4)]
    assert [[(attempt.status, attempt.doubtful) for attempt in attempts] for attempts in found] == [
        [("died", True)], [("timeout", False)], [("died", True)], [],
    ]  # fmt: skip
    assert found[0][0].ending == "killed, as another job held its loop"
    assert found[1][0].stopped == "killed"


async def test_the_third_death_under_a_job_loses_it(producer: Producer, worker: StartWorker, death: DeadWorker) -> None:
    batch = await submit(producer)
    chunk_id = death.hold_chunk_of(batch, 1)
    for number in range(MOST_CRASHES):
        death.pulse.worker_id = f"{DEAD}-{number}"
        death.lease(chunk_id, death.pulse.worker_id)
        await death.settle()
    async with worker():
        results = await batch.results()
    assert [result.status for result in results] == ["success", "lost", "success"]
    lost = results[1]
    assert isinstance(lost, LostResult)
    assert (lost.attempt, lost.reason) == (3, "its worker process ended under it 3 times, last by signal SIGSEGV")


async def test_what_a_process_had_claimed_and_not_yet_written_down_runs_at_once(
    producer: Producer, worker: StartWorker, death: DeadWorker
) -> None:
    batch = await submit(producer)
    death.pulse.drop(death.hold_chunk_of(batch, 1))
    await death.settle()
    async with worker():
        assert [(result.status, result.attempt) for result in await batch.results()] == [("success", 1)] * 3


async def test_chunks_that_others_hold_by_now_are_left_to_them(producer: Producer, death: DeadWorker) -> None:
    batch = await submit(producer)
    death.hold(f"{batch.id}:0", worker_id="host-2-alive")
    await death.settle()
    assert death.redis.get(f"{keys.ARQ_IN_PROGRESS}{batch.id}:0") == b"host-2-alive"


@pytest.mark.parametrize("payload", [b"\x00 not ours", b"", None])
async def test_a_chunk_whose_payload_cannot_be_read_keeps_no_other_from_running(
    producer: Producer, worker: StartWorker, death: DeadWorker, payload: bytes | None
) -> None:
    batch = await submit(producer)
    death.hold("foreign:0")
    death.hold(f"{batch.id}:0")
    if payload is not None:
        death.redis.set(f"{keys.ARQ_JOB}foreign:0", payload, ex=60)
    await death.settle()
    async with worker():
        assert await batch.gather() == [0, 1, 4]
    death.redis.zrem(keys.queue("default"), "foreign:0")


@pytest.mark.parametrize("index", [3, 400])
@pytest.mark.parametrize("killed", [False, True])
async def test_a_job_that_its_chunk_does_not_have_is_nobodys_result(
    producer: Producer, worker: StartWorker, death: DeadWorker, index: int, killed: bool
) -> None:
    batch = await submit(producer)
    death.hold(f"{batch.id}:0", index)
    for number in range(MOST_CRASHES):
        death.pulse.worker_id = f"{DEAD}-{number}"
        await death.settle(killed=killed)
    death.redis.delete(f"{keys.ARQ_IN_PROGRESS}{batch.id}:0")
    death.redis.zadd(keys.queue("default"), {f"{batch.id}:0": 0})
    async with worker():
        assert await batch.gather() == [0, 1, 4]


async def test_a_spoilt_result_stream_keeps_no_chunk_from_its_next_worker(
    producer: Producer, death: DeadWorker
) -> None:
    batch = await submit(producer)
    chunk_id = death.hold_chunk_of(batch, 1)
    death.redis.set(keys.results(batch.id), "spoilt", ex=60)
    await death.settle(killed=True)
    assert not death.redis.exists(keys.ARQ_IN_PROGRESS + chunk_id)
    assert death.redis.zscore(keys.queue("default"), chunk_id) < (time.time() + 1) * 1000


async def test_a_spoilt_queue_is_given_up(producer: Producer, death: DeadWorker) -> None:
    batch = await submit(producer)
    death.hold_chunk_of(batch, 1)
    death.redis.delete(keys.queue("default"))
    death.redis.set(keys.queue("default"), "spoilt", ex=60)
    await death.settle(killed=True)


async def test_a_batch_that_is_gone_leaves_nothing_to_settle(producer: Producer, death: DeadWorker, redis: Any) -> None:
    batch = await submit(producer)
    death.hold(f"{batch.id}:0", 1)
    redis.flushall()
    for number in range(MOST_CRASHES):
        death.pulse.worker_id = f"{DEAD}-{number}"
        await death.settle()
    assert not redis.exists(keys.results(batch.id), keys.done(batch.id), keys.batch(batch.id))


async def test_a_process_that_died_before_it_took_anything_leaves_nothing(death: DeadWorker) -> None:
    death.pulse.worker_id = ""
    await death.settle()
    unnamed = Current("", -1, 0.0, 0.0, 1.0, 0.0)
    await death.aftermath.settle(death.pulse, Death("signal SIGKILL", unnamed, killed=True))
    assert death.redis.dbsize() == 0
