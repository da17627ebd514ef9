"""Redis is killed and restarted without its last writes: what it no longer knows runs again, and nothing else is lost.

An append-only file that is written once a second, or a snapshot, brings back a moment of the past, and who has gone on
from there knows more than Redis: of results, of jobs that run again, of chunks that were cut.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from producer.batch import Batch
from producer.producer import Producer
from protocol import keys
from straggler import BatchLostError, current_job, job
from tests.conftest import PATIENCE, StartProcess, StartWorker, until, until_running
from tests.forgetting import Forgetting
from tests.hand import Hand, streamed
from tests.integration.test_arq_cli import ARQ, READY
from tests.jobs import run_until_open, square
from tests.redis_server import RedisServer
from workers.claims import Claimed

pytestmark = pytest.mark.redis

COUNT = 10


@pytest.fixture
def redis_url(server: RedisServer) -> str:
    """Let producers and workers of a test work with its own server."""
    return server.url


# ---- what is lost between the claim of a chunk and its end


async def lose_cut(hand: Hand, batch: Batch[Any], claimed: Claimed) -> None:
    assert await hand.leases.give_back(claimed, 6, b"") == 1


async def lose_results(hand: Hand, batch: Batch[Any], claimed: Claimed) -> None:
    assert await hand.record(batch, 6, 7, 9) == 3


async def lose_retries(hand: Hand, batch: Batch[Any], claimed: Claimed) -> None:
    for index in (6, 8):
        await hand.retry(claimed, index)


async def let_go_with_results(hand: Hand, batch: Batch[Any], claimed: Claimed, outcome: str) -> None:
    await hand.record(batch, *range(6), over=[(claimed.chunk_id, 0, outcome)])


async def let_go_later(hand: Hand, batch: Batch[Any], claimed: Claimed, outcome: str) -> None:
    await hand.record(batch, *range(6))
    await hand.leases.release(claimed, outcome)


@pytest.mark.parametrize("let_go", [let_go_with_results, let_go_later])
@pytest.mark.parametrize(
    ("lose", "outcome"), [(lose_cut, "succeeded"), (lose_results, "succeeded"), (lose_retries, "ended")]
)
async def test_a_chunk_of_which_redis_knows_less_is_put_back_into_the_queue(
    producer: Producer,
    server: RedisServer,
    hands: tuple[Hand, Hand],
    redis: Any,
    lose: Callable[[Hand, Batch[Any], Claimed], Awaitable[None]],
    let_go: Callable[[Hand, Batch[Any], Claimed, str], Awaitable[None]],
    outcome: str,
) -> None:
    one, other = hands
    await other.leases.beat()  # alone, it would give nothing back
    batch = await producer.submit(streamed(square.map(range(COUNT))), batch_id="b", retries=1)
    [claimed] = await one.claim()
    server.remember()
    await lose(one, batch, claimed)
    await asyncio.to_thread(server.forget)
    await let_go(one, batch, claimed, outcome)
    place = round(claimed.payload.enqueued_at * 1000)
    assert redis.zrange(keys.queue("default"), 0, -1, withscores=True) == [(b"b:0", place)], "it stands where it stood"
    assert redis.llen(keys.wake("default")) == 1, "who is idle hears of it"
    status = await batch.status()
    assert (status.done, status.running, status.queued) == (6, 0, 4)
    [again] = await other.claim()
    assert again.open_jobs() == [6, 7, 8, 9]
    assert (again.attempt(6), again.failures, again.crashes) == (1, {}, [])
    await other.record(batch, 6, 7, 8, 9, over=[(again.chunk_id, 0, "ended")])
    assert (await batch.status()).complete
    assert not redis.exists(keys.queue("default"), keys.leases("default"), keys.ARQ_JOB + "b:0")


async def test_a_chunk_whose_cut_was_lost_is_handed_back_with_all_its_jobs(
    producer: Producer, server: RedisServer, hands: tuple[Hand, Hand]
) -> None:
    one, other = hands
    await other.leases.beat()
    batch = await producer.submit(streamed(square.map(range(COUNT))), batch_id="b")
    [claimed] = await one.claim()
    server.remember()
    await lose_cut(one, batch, claimed)
    await asyncio.to_thread(server.forget)
    await one.leases.release(claimed.cut(6), "again")
    assert (await batch.status()).running == 0
    assert [len(chunk.open_jobs()) for chunk in await other.claim()] == [COUNT]
    assert (await batch.status()).running == COUNT


async def test_a_job_that_runs_again_by_itself_is_put_back_where_its_result_was_lost(
    producer: Producer, server: RedisServer, hands: tuple[Hand, Hand], redis: Any
) -> None:
    one, other = hands
    batch = await producer.submit(streamed(square.map(range(2))), batch_id="b", retries=1)
    [claimed] = await one.claim()
    await one.retry(claimed, 1)
    await one.record(batch, 0, over=[(claimed.chunk_id, 0, "ended")])
    [own] = await one.claim()
    server.remember()
    await one.record(batch, 1)
    await asyncio.to_thread(server.forget)
    await one.leases.release(own, "ended")
    [again] = await other.claim()
    assert (again.chunk_id, again.open_jobs(), again.attempt(1)) == (own.chunk_id, [1], 2)
    await other.record(batch, 1, over=[(again.chunk_id, 0, "ended")])
    assert (await batch.status()).complete
    assert not redis.exists(keys.queue("default"))


async def test_jobs_that_have_left_to_run_again_do_not_hold_their_chunk(
    producer: Producer, hands: tuple[Hand, Hand], redis: Any
) -> None:
    one, _ = hands
    batch = await producer.submit(streamed(square.map(range(300))), batch_id="b", retries=1)
    claimed = await one.claim(1000)
    left = [7, 8, 255, 299]
    for index in left:
        await one.retry(claimed[index >= 256], index, delay=3_600_000)
    for chunk in claimed:
        first = chunk.payload.first
        indexes = [index for index in range(first, first + chunk.payload.count) if index not in left]
        await one.record(batch, *indexes, over=[(chunk.chunk_id, first, "ended")])
    names = [keys.retry_id("b", first, index).encode() for first, index in ((0, 7), (0, 8), (0, 255), (256, 299))]
    assert set(redis.zrange(keys.queue("default"), 0, -1)) == set(names)


@pytest.mark.parametrize("room", [6, 20])
async def test_a_claim_that_was_lost_is_made_again_and_nothing_of_it_is_forgotten(
    producer: Producer, server: RedisServer, hands: tuple[Hand, Hand], redis: Any, room: int
) -> None:
    one, other = hands
    batch = await producer.submit(streamed(square.map(range(COUNT))), batch_id="b")
    server.remember()
    [before] = [chunk for chunk in await one.claim(3) if chunk.chunk_id == "b:0"]
    assert before.payload.count == 3, "a claim cuts what it has no room for"
    await asyncio.to_thread(server.forget)
    [after] = await one.claim(room)
    assert after.payload.count == min(room, COUNT), "and cuts it elsewhere when it comes again"
    # What it goes on with from before; it knows of no more.
    await one.record(batch, 0, 1, 2, over=[("b:0", 0, "succeeded")], place=before.payload.place)
    again = await other.claim()
    assert sorted(index for chunk in again for index in chunk.open_jobs()) == list(range(3, COUNT))
    for chunk in again:
        over = (chunk.chunk_id, chunk.payload.first, "ended")
        await other.record(batch, *chunk.open_jobs(), over=[over])
    status = await batch.status()
    assert (status.complete, status.done) == (True, COUNT)
    assert not redis.exists(keys.queue("default"), keys.leases("default"))


async def test_a_failure_in_a_chunk_that_was_cut_elsewhere_meanwhile_is_not_told_of_it(
    producer: Producer, server: RedisServer, hands: tuple[Hand, Hand], redis: Any
) -> None:
    one, other = hands
    batch = await producer.submit(streamed(square.map(range(COUNT))), batch_id="b", retries=1)
    server.remember()
    [before] = await one.claim(8)
    await asyncio.to_thread(server.forget)
    [after] = await one.claim(4)
    await one.retry(before, 6)
    assert not redis.exists(keys.retries("b")), "somebody else has it"
    await one.retry(before, 3)
    await one.record(batch, 0, 1, 2, over=[(after.chunk_id, 0, "ended")])
    chunks = await other.claim()
    assert sorted(index for chunk in chunks for index in chunk.open_jobs()) == list(range(3, COUNT))
    assert sorted(len(chunk.read()[1]) for chunk in chunks) == [1, 6], "job 3 by itself, and what was never taken"


async def test_a_batch_that_was_deleted_has_nothing_to_put_back(
    producer: Producer, hands: tuple[Hand, Hand], redis: Any
) -> None:
    one, _ = hands
    batch = await producer.submit(streamed(square.map(range(COUNT))), batch_id="b")
    [claimed] = await one.claim()
    redis.delete(keys.batch("b"))  # as a deletion begins
    await one.record(batch, 0, 1, over=[(claimed.chunk_id, 0, "ended")])
    assert not redis.exists(keys.queue("default"), keys.ARQ_JOB + "b:0", keys.ARQ_IN_PROGRESS + "b:0")


async def test_a_chunk_whose_results_cannot_be_kept_does_not_run_for_ever(
    producer: Producer, hands: tuple[Hand, Hand], redis: Any
) -> None:
    one, _ = hands
    await producer.submit(streamed(square.map(range(COUNT))), batch_id="b")
    [claimed] = await one.claim()
    redis.set(keys.results("b"), "nonsense", ex=60)
    await one.leases.release(claimed, "ended")
    assert not redis.exists(keys.queue("default"), keys.ARQ_JOB + "b:0")


async def test_results_of_jobs_that_redis_no_longer_has_are_not_those_of_others(
    producer: Producer, server: RedisServer, hands: tuple[Hand, Hand], redis: Any
) -> None:
    one, _ = hands
    batch = await producer.open_batch(batch_id="b")
    await batch.add(square.map(range(5)))
    server.remember()
    await batch.add(square.map(range(100)))
    await one.claim(1000)
    await asyncio.to_thread(server.forget)
    assert await one.record(batch, *range(3, 105)) == 2, "of those that it has"
    assert await one.record(batch, *range(5, 105)) == 0
    assert (await batch.status()).done == 2
    assert await batch.add(square.map(range(3))) == [5, 6, 7]
    chunks = await one.claim(1000)
    assert sorted(index for chunk in chunks for index in chunk.open_jobs()) == [0, 1, 2, 5, 6, 7]


async def test_what_a_job_was_that_runs_again_is_kept_whatever_the_worker_says_that_lets_go_of_its_chunk(
    producer: Producer, hands: tuple[Hand, Hand]
) -> None:
    one, _ = hands
    batch = await producer.submit(streamed(square.map(range(3))), batch_id="b", retries=1)
    [claimed] = await one.claim()
    await one.retry(claimed, 1)  # as another did; so the one that lets go does not know
    await one.record(batch, 0, 2, over=[(claimed.chunk_id, 0, "succeeded")])
    [again] = await one.claim()
    assert [job.kwargs for job in again.read()[1]] == [{"number": 1}]


# ---- workers at their work


async def until_success(batch: Batch[Any]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not (await batch.status()).success:  # noqa: ASYNC110  # nobody tells us
            await asyncio.sleep(0.01)


@pytest.fixture
def jobs(door: Path, tmp_path: Path) -> list[Any]:
    """Make jobs of which the first has a door of its own."""
    doors = [tmp_path / "own door", *[door] * (COUNT - 1)]
    return [run_until_open.spec(tmp_path / "trace", door) for door in doors]


async def test_a_worker_that_goes_on_runs_again_what_redis_has_forgotten(
    producer: Producer, worker: StartWorker, server: RedisServer, jobs: list[Any], door: Path, tmp_path: Path
) -> None:
    async with worker(concurrency=COUNT):
        batch = await producer.submit(jobs, batch_id="b")
        await until_running(batch, COUNT)
        server.remember()
        (tmp_path / "own door").touch()
        await until_success(batch)
        await asyncio.to_thread(server.forget)
        door.touch()
        results = await batch.results()
    assert [(result.index, result.value_or(None)) for result in results] == [(n, 1) for n in range(COUNT)]
    assert Counter((tmp_path / "trace").read_text().split()) == {"0": 2, **{str(n): 1 for n in range(1, COUNT)}}


async def test_arqs_own_worker_does_not_take_a_chunk_for_done_that_was_put_back(
    producer: Producer, worker_process: StartProcess, redis: Any, jobs: list[Any], door: Path, tmp_path: Path
) -> None:
    worker_process(command=ARQ, ready=READY)
    batch = await producer.submit(jobs, batch_id="b")
    await until_running(batch, COUNT)
    (tmp_path / "own door").touch()
    await until_success(batch)
    # It ends with its Redis, so what Redis would have forgotten is taken away by hand.
    redis.setbit(keys.done("b"), 0, 0)
    redis.xtrim(keys.results("b"), maxlen=0)
    redis.hincrby(keys.batch("b"), "done", -1)
    redis.hincrby(keys.batch("b"), "success", -1)
    door.touch()
    results = await batch.results()
    assert [(result.index, result.value_or(None)) for result in results] == [(n, 1) for n in range(COUNT)]


async def test_results_are_those_of_each_job_once(
    producer: Producer, worker: StartWorker, server: RedisServer, jobs: list[Any], door: Path, tmp_path: Path
) -> None:
    async with worker(concurrency=COUNT):
        batch = await producer.submit(jobs, batch_id="b")
        await until_running(batch, COUNT)
        server.remember()
        collecting = asyncio.create_task(batch.results())
        completed = batch.as_completed()
        (tmp_path / "own door").touch()
        assert (await anext(completed)).index == 0
        await asyncio.to_thread(server.forget)
        door.touch()
        assert [result.index for result in await collecting] == list(range(COUNT))
        assert sorted([result.index async for result in completed]) == list(range(COUNT)), (
            "whoever goes on gets it again"
        )


async def test_a_cancel_after_one_that_was_lost_reaches_the_worker(
    producer: Producer, worker: StartWorker, server: RedisServer, jobs: list[Any], door: Path, tmp_path: Path
) -> None:
    async with worker(concurrency=COUNT) as one:
        batch = await producer.submit(jobs, batch_id="b")
        await until_running(batch, COUNT)
        server.remember()
        await batch.cancel([1])
        await asyncio.to_thread(server.forget)
        await batch.cancel([2])
        await until(lambda: sum(len(chunk.job_tasks) for chunk in one.crew.chunks.values()) == COUNT - 2)
        for path in (door, tmp_path / "own door"):
            path.touch()
        results = await batch.results()
    assert [result.index for result in results if result.status == "cancelled" and result.index != 1] == [2]
    assert len(results) == COUNT


# ---- what a producer was told


async def test_a_producer_whose_last_jobs_are_gone_is_told_and_submits_them_again(
    producer: Producer, server: RedisServer, worker: StartWorker, redis: Any
) -> None:
    gate = asyncio.Event()

    async def some() -> AsyncIterator[Any]:
        for number in range(COUNT):
            if number == 4:
                await gate.wait()
            yield square.spec(number)

    submitting = asyncio.create_task(producer.submit(some(), batch_id="b"))
    await until(lambda: redis.hget(keys.batch("b"), "total") == b"4")
    server.remember()
    gate.set()
    batch = await submitting
    await asyncio.to_thread(server.forget)
    async with worker():
        for call in (batch.status, batch.results, batch.workers):
            with pytest.raises(BatchLostError, match="the same batch_id again"):
                await call()
        with pytest.raises(BatchLostError, match="the same batch_id again"):
            _ = [result async for result in batch.as_completed()]
        gate.set()
        again = await producer.submit(some(), batch_id="b")
        assert await again.gather() == [number**2 for number in range(COUNT)]


async def test_a_producer_that_submits_meanwhile_is_told(producer: Producer, server: RedisServer, redis: Any) -> None:
    gate = asyncio.Event()

    async def some() -> AsyncIterator[Any]:
        for number in range(COUNT):
            if number in (2, 4):
                await gate.wait()
                gate.clear()
            yield square.spec(number)

    submitting = asyncio.create_task(producer.submit(some(), batch_id="b"))
    await until(lambda: redis.hget(keys.batch("b"), "total") == b"2")
    server.remember()
    gate.set()
    await until(lambda: redis.hget(keys.batch("b"), "total") == b"4")
    for _ in range(20):  # it hears of that: who has not submits them again
        await asyncio.sleep(0.01)
    await asyncio.to_thread(server.forget)
    gate.set()
    with pytest.raises(BatchLostError):
        await submitting
    gate.set()
    assert (await producer.attach("b")).id == "b"


async def test_who_closed_a_batch_or_saw_more_jobs_in_it_is_told_that_it_is_not_so(
    producer: Producer, server: RedisServer
) -> None:
    batch = await producer.open_batch(batch_id="b")
    await batch.add(square.map(range(3)))
    server.remember()
    await batch.add(square.map(range(3)))
    assert (await batch.status()).total == 6
    await asyncio.to_thread(server.forget)
    with pytest.raises(BatchLostError, match="add them, and close it"):
        await batch.status()
    batch = await producer.attach("b")
    server.remember()
    await batch.close()
    assert (await batch.status()).closed
    await asyncio.to_thread(server.forget)
    with pytest.raises(BatchLostError, match="add them, and close it"):
        await batch.status()
    await (await producer.attach("b")).close()


# ---- any scripts at all


@job
async def fail_some_at_first(number: int) -> int:
    if number % 7 == 3 and current_job().attempt == 1:
        raise ValueError(number)
    await asyncio.sleep(number % 3 * 0.01)
    return number


@pytest.mark.parametrize("remember_at", [3, 6, 9, 13, 18, 24])
@pytest.mark.parametrize("lost", [2, 5])
async def test_whatever_scripts_are_lost_every_job_has_its_result(
    producer: Producer, worker: StartWorker, server: RedisServer, redis: Any, remember_at: int, lost: int
) -> None:
    jobs = fail_some_at_first.map(range(60))
    async with Forgetting(server, remember_at, remember_at + lost) as way:
        batch = await producer.submit(jobs, batch_id="b", retries=1, backoff=0.05)
        async with worker(way.url, concurrency=4, lease=1.0), worker(way.url, concurrency=4, lease=1.0):
            await way.has_forgotten.wait()
            results = await batch.results()
            await until(lambda: not redis.exists(keys.queue("default")))
    assert [(result.index, result.value_or(None)) for result in results] == [(n, n) for n in range(60)]
    assert {result.attempt for result in results if result.index % 7 != 3} == {1}
    status = await batch.status()
    assert (status.complete, status.done, status.queued, status.running) == (True, 60, 0, 0)
    assert not redis.keys("arq:*")
