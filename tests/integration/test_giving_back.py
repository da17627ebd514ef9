"""What a worker holds and cannot start goes back into the queue, where it stood, for whoever can."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from producer.batch import Batch
from producer.producer import Producer
from protocol import keys
from protocol.chunks import decode_chunk
from protocol.jobs import JobSpec
from straggler import CancelledResult, SuccessResult, TimeoutResult
from tests.conftest import StartWorker, until
from tests.hand import Hand, streamed
from tests.jobs import fail, square, wait_for_file
from tests.rough_jobs import hold_loop
from workers.claims import Claimed
from workers.crashes import Crash
from workers.leases import Leases
from workers.starting.slots import Slots
from workers.starting.unstarted import Unstarted
from workers.worker import StragglerWorker

Hoarder = tuple[StragglerWorker, Batch[Any]]


@pytest.fixture
def hoard(producer: Producer, worker: StartWorker, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Start a worker with two slots, which has claimed all jobs of a batch, expecting them to be short."""

    @asynccontextmanager
    async def start(
        some: Iterable[JobSpec[Any]], piece: int = 30, lease: float = 10.0, **options: Any
    ) -> AsyncIterator[Hoarder]:
        jobs = list(some)
        batch: Batch[Any] = await producer.submit(jobs, batch_id="b", **options)
        with monkeypatch.context() as patch:
            patch.setattr(Slots, "soon_over", property(lambda _: len(jobs)))
            patch.setattr(Slots, "piece", piece)
            async with worker(concurrency=2, lease=lease) as one:
                await until(lambda: one.crew.slots.waiting >= len(jobs) - 3 and not one.crew.slots.free)
                patch.undo()
                yield one, batch

    return start


def jobs_of(redis: Any, chunk_id: str) -> int:
    first = chunk_id.rpartition(":")[2]
    return len(decode_chunk(0, redis.hget(keys.chunks("b"), first), ""))


async def test_jobs_that_cannot_start_here_start_on_another_worker(
    hoard: Any, worker: StartWorker, redis: Any, door: Path
) -> None:
    async with hoard(wait_for_file.map([door] * 30)) as (one, batch), worker(concurrency=40) as two:
        await until(lambda: two.crew.slots.used == 28)
        assert one.crew.slots.waiting == 0
        assert jobs_of(redis, "b:0") == 2
        door.touch()
        results = await batch.results()
        assert [type(result) for result in results] == [SuccessResult] * 30
        assert {result.attempt for result in results} == {1}
        assert len({result.enqueued_at for result in results}) == 1
        status = await batch.status()
        assert (status.queued, status.running) == (0, 0)
        await until(lambda: not redis.keys("arq:job:*"))
        assert not redis.hlen(keys.chunks("b")), "all that has succeeded is forgotten"


async def test_a_lone_worker_keeps_them(hoard: Any, redis: Any, door: Path) -> None:
    async with hoard(wait_for_file.map([door] * 30)) as (one, batch):
        await until(lambda: one.crew.giving_back._pause > 0.2 and one.crew.slots.waiting == 28)
        assert jobs_of(redis, "b:0") == 30
        door.touch()
        assert len(await batch.gather()) == 30


async def test_a_chunk_of_which_nothing_has_started_goes_back_whole(
    hoard: Any, worker: StartWorker, redis: Any, door: Path
) -> None:
    async with hoard(wait_for_file.map([door] * 30), piece=10) as (one, batch):
        assert set(one.crew.chunks) == {"b:0", "b:10", "b:20"}
        async with worker(concurrency=40) as two:
            await until(lambda: two.crew.slots.used == 28)
            await until(lambda: "b:20" not in one.crew.chunks)  # b:0 may have both slots, and b:10 be gone, too
            assert redis.get(keys.ARQ_IN_PROGRESS + "b:20") == two.crew.worker_id.encode()
            assert not redis.exists(keys.crashes("b"))
            door.touch()
            assert len(await batch.gather()) == 30


async def test_what_is_given_back_stands_in_front_of_what_came_later(
    hoard: Any, producer: Producer, redis: Any, door: Path
) -> None:
    async with hoard(wait_for_file.map([door] * 30)) as (one, batch):
        later = await producer.submit(square.map(range(3)), batch_id="later")
        redis.zadd(keys.workers("default"), {"another": time.time()})
        await until(lambda: redis.zrange(keys.queue("default"), 0, 1) == [b"b:2", b"later:0"])
        assert not one.crew.slots.waiting
        status = await batch.status()
        assert (status.queued, status.running) == (28, 2), "what waits in the queue is not with a worker"
        door.touch()
        assert len(await batch.gather()) == 30
        assert len(await later.gather()) == 3


class Gate:
    """Holds a call.

    Attributes:
        before: Whether it is held before it is made, not after.
        is_there: Set once it is held.
        opened: To let it go.
    """

    before = True

    def __init__(self) -> None:
        self.is_there, self.opened = asyncio.Event(), asyncio.Event()
        self.replies: list[int] = []

    async def through(self, call: Callable[[], Awaitable[int]]) -> int:
        if self.before:
            await self._wait()
        reply = await call()
        if not self.before and reply > 0:
            await self._wait()
        return reply

    async def _wait(self) -> None:
        self.is_there.set()
        await self.opened.wait()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    """Hold the next give-back, before it is sent or before its reply comes."""
    gate = Gate()
    give_back = Leases.give_back

    async def held(leases: Leases, claimed: Claimed, kept: int, known: bytes) -> int:
        reply = await gate.through(lambda: give_back(leases, claimed, kept, known))
        gate.replies.append(reply)
        return reply

    monkeypatch.setattr(Leases, "give_back", held)
    return gate


@pytest.mark.parametrize("before", [True, False], ids=["before Redis has it", "before it is known"])
@pytest.mark.parametrize("indexes", [[1, 5, 29], None], ids=["some", "all"])
async def test_a_cancel_while_jobs_are_given_back_reaches_each(
    hoard: Any, worker: StartWorker, gate: Gate, door: Path, before: bool, indexes: list[int] | None
) -> None:
    gate.before = before
    async with hoard(wait_for_file.map([door] * 30), grace=0.1) as (one, batch), worker(concurrency=1):
        await gate.is_there.wait()
        cancelling = asyncio.create_task(batch.cancel(indexes, reason="no more"))
        if before:
            await until(lambda: any(chunk.orders for chunk in one.crew.chunks.values()))
        else:
            await cancelling
        gate.opened.set()
        await cancelling
        door.touch()
        results = await batch.results()
    cancelled = [result.index for result in results if isinstance(result, CancelledResult)]
    if indexes is None:
        assert len(cancelled) >= 27, "all but those that had ended by then"
    else:
        assert cancelled == indexes
    status = await batch.status()
    assert (status.done, status.queued, status.running) == (30, 0, 0)


async def test_something_decided_of_which_the_worker_has_not_heard_keeps_them(
    hoard: Any, worker: StartWorker, gate: Gate, redis: Any, door: Path
) -> None:
    async with hoard(wait_for_file.map([door] * 30)) as (_, batch), worker(concurrency=1):
        await gate.is_there.wait()
        redis.hset(keys.batch("b"), "control", 1)
        gate.opened.set()
        await until(lambda: gate.replies)
        assert gate.replies[0] == 0
        door.touch()
        assert len(await batch.gather()) == 30


async def test_clocks_of_what_is_given_back_go_on(hoard: Any, worker: StartWorker, door: Path) -> None:
    async with hoard(wait_for_file.map([door] * 30), queue_timeout=1.0) as (one, batch), worker(concurrency=1):
        await until(lambda: not one.crew.slots.waiting)
        await asyncio.sleep(1.0)  # the clock is what is tested
        door.touch()
        results = await batch.results()
    late = [result for result in results if isinstance(result, TimeoutResult)]
    assert len(late) >= 27
    assert {(result.phase, result.limit, result.stopped) for result in late} == {("queued", 1.0, "not started")}


async def test_a_job_of_a_chunk_that_was_cut_behind_it_runs_again(
    hoard: Any, worker: StartWorker, door: Path, redis: Any
) -> None:
    jobs = [fail.spec("no"), *wait_for_file.map([door] * 29)]
    async with hoard(jobs, retries=1, backoff=1.0) as (_, batch), worker(concurrency=40) as two:
        await until(lambda: two.crew.slots.used >= 27)
        assert redis.zscore(keys.queue("default"), "b:0+0")
        door.touch()
        results = await batch.results()
    assert (results[0].status, results[0].attempt) == ("failure", 2)
    assert {result.status for result in results[1:]} == {"success"}


async def test_a_chunk_is_not_cut_in_front_of_a_job_that_has_left_it_to_run_again(
    producer: Producer, hands: tuple[Hand, Hand]
) -> None:
    one, other = hands
    await other.leases.beat()  # alone, it would give nothing back
    await producer.submit(streamed(square.map(range(30))), batch_id="b", retries=1)
    [claimed] = await one.claim()
    await one.retry(claimed, 20, delay=3_600_000)
    assert await one.leases.give_back(claimed, 12, b"") == 0, "job 20 is found by where its chunk begins"
    assert await one.leases.give_back(claimed, 21, b"") == 1
    await one.retry(claimed, 12)
    [_, own] = await other.claim()
    assert own.chunk_id == keys.retry_id("b", 0, 12)
    [spec] = own.read()[1]
    assert spec.kwargs == {"number": 12}


async def test_a_chunk_under_which_a_worker_has_died_is_not_cut(
    producer: Producer, hands: tuple[Hand, Hand], redis: Any
) -> None:
    one, other = hands
    await other.leases.beat()
    await producer.submit(streamed(square.map(range(30))), batch_id="b")
    [claimed] = await one.claim()
    crash = Crash(worker="a", start=0, stop=25, ending="signal SIGSEGV", ended_at=5.0).model_dump_json()
    await one.leases.release(claimed, crash)
    [again] = await one.claim()
    assert await one.leases.give_back(again, 20, b"") == 0
    assert jobs_of(redis, "b:0") == 30


async def test_who_hears_that_a_chunk_is_others_does_not_spoil_the_status(
    producer: Producer, hands: tuple[Hand, Hand], redis: Any
) -> None:
    one, other = hands
    await other.leases.beat()
    await one.leases.beat()
    batch = await producer.submit(streamed(square.map(range(30))), batch_id="b")
    [claimed] = await one.claim()
    redis.delete(f"{keys.ARQ_IN_PROGRESS}b:0")
    redis.zadd(keys.queue("default"), {"b:0": 1})
    redis.hset(keys.holders("b"), "b:0", "?a")  # missed for long enough
    [taken] = await other.claim()
    redis.hdel(keys.crashes("b"), "b:0")  # as if its worker had said that it lives
    assert await one.leases.give_back(claimed, 12, b"") == -1
    assert await other.leases.give_back(taken, 3, b"") == 1
    await other.leases.release(taken.cut(3), "again")
    assert {chunk.chunk_id: chunk.payload.count for chunk in await one.claim()} == {"b:0": 3, "b:3": 27}
    status = await batch.status()
    assert (status.queued, status.running) == (0, 30)
    # Its first run of b:0, which still thinks of 30 jobs, lets go of what came again meanwhile.
    await one.leases.release(claimed, "again")
    status = await batch.status()
    assert (status.queued, status.running) == (3, 27)


async def test_a_redrive_finds_jobs_that_were_given_back(hoard: Any, worker: StartWorker, door: Path) -> None:
    jobs = [*wait_for_file.map([door] * 10), *fail.map("abcdefghij")]
    async with hoard(jobs) as (one, batch), worker(concurrency=40):
        await until(lambda: not one.crew.slots.waiting)
        door.touch()
        results = await batch.results()
        assert [result.status for result in results] == ["success"] * 10 + ["failure"] * 10
        again = await batch.retry("failure")
        assert [getattr(result, "message", None) for result in await again.results()] == list("abcdefghij")


async def test_a_worker_that_is_told_to_stop_meanwhile_hands_back_what_it_has(
    hoard: Any, worker: StartWorker, gate: Gate, door: Path, redis: Any
) -> None:
    async with hoard(wait_for_file.map([door] * 30)) as (one, batch), worker(concurrency=40) as two:
        await gate.is_there.wait()
        one.stop()
        gate.opened.set()
        await until(lambda: two.crew.slots.used == 30)
        door.touch()
        results = await batch.results()
    assert {(result.status, result.attempt) for result in results} == {("success", 1)}
    assert not redis.exists(keys.crashes("b"))


async def test_whoever_has_taken_the_chunk_since_keeps_it(
    hoard: Any, worker: StartWorker, gate: Gate, door: Path, redis: Any
) -> None:
    async with hoard(wait_for_file.map([door] * 30), lease=1.0) as (_, batch), worker(concurrency=1):
        await gate.is_there.wait()
        redis.set(keys.ARQ_IN_PROGRESS + "b:0", "another", px=300)
        gate.opened.set()
        await until(lambda: gate.replies)
        assert gate.replies[0] == -1
        assert jobs_of(redis, "b:0") == 30
        door.touch()
        assert len(await batch.gather()) == 30


async def test_jobs_that_hold_the_loop_are_shared_with_a_worker_that_has_none(
    producer: Producer, worker: StartWorker, redis: Any
) -> None:
    async with worker(concurrency=100) as one, worker(concurrency=100) as two:
        await until(lambda: redis.zcard(keys.workers("default")) == 2)
        results = await (await producer.submit(hold_loop.map([0.06] * 20))).results()
    assert {result.worker for result in results} == {one.crew.worker_id, two.crew.worker_id}
    assert {(type(result), result.attempt) for result in results} == {(SuccessResult, 1)}


def test_of_a_chunk_whose_jobs_have_started_meanwhile_nothing_is_given_back() -> None:
    unstarted = Unstarted([0], 0, [square.spec(1)], Slots(1), Slots(1))
    assert unstarted.pop() == 0
    assert unstarted.withhold(0) is None
