"""`wait`, `gather` and `results`: the batch as a whole, for as long as one likes to wait."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from producer import collect, waiting
from producer.batch import Batch
from producer.producer import Producer
from protocol import entries
from protocol.batches import BatchOptions
from protocol.errors import BatchNotFoundError, JobFailedError, JobTimeoutError, OptionError, RedisUnavailableError
from straggler import FailureResult, SuccessResult, TimeoutResult
from tests.conftest import StartWorker
from tests.jobs import fail, hang, nap, square, wait_for_file
from tests.redis_server import RedisServer


async def test_wait_for_all_returns_done_in_order_of_completion(
    producer: Producer, worker: StartWorker, door: Path
) -> None:
    async with worker():
        batch: Batch[Any] = await producer.submit([wait_for_file.spec(door), square.spec(2)])
        await batch.wait(return_when="FIRST_COMPLETED")
        door.touch()
        done, pending = await batch.wait()
    assert ([result.index for result in done], pending) == ([1, 0], [])


async def test_wait_never_raises_for_a_slow_job_and_cancels_nothing(
    producer: Producer, worker: StartWorker, door: Path
) -> None:
    async with worker():
        batch: Batch[Any] = await producer.submit([square.spec(2), wait_for_file.spec(door), wait_for_file.spec(door)])
        await batch.wait(return_when="FIRST_COMPLETED")
        done, pending = await batch.wait(timeout=0.2)
        assert ([result.index for result in done], pending) == ([0], [1, 2])
        door.touch()
        assert (await batch.wait()).pending == []


async def test_wait_without_time_tells_what_is_done(producer: Producer, worker: StartWorker) -> None:
    async with worker():
        batch = await producer.submit(square.map(range(6000)))
        assert (await batch.wait()).pending == []
    done, pending = await batch.wait(timeout=0)
    assert (len(done), pending) == (6000, [])


async def test_wait_without_time_reads_all_results_however_long_that_takes(
    producer: Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(*args: Any) -> Any:
        time.sleep(0.15)
        return decode(*args)

    batch = await producer.submit(square.map(range(6)))
    for index in range(5):
        await batch.cancel([index])
    decode = entries.decode_entry
    monkeypatch.setattr(collect, "decode_entry", slow)
    monkeypatch.setattr(collect, "ENTRIES_A_READ", 1)
    monkeypatch.setattr(waiting, "_LAST_LOOK", 0.5)
    done, pending = await batch.wait(timeout=0)
    assert ([result.index for result in done], pending) == ([0, 1, 2, 3, 4], [5])


async def test_wait_for_the_first_completed(producer: Producer, worker: StartWorker, door: Path) -> None:
    async with worker():
        batch: Batch[Any] = await producer.submit([wait_for_file.spec(door), fail.spec("no")])
        done, pending = await batch.wait(return_when="FIRST_COMPLETED")
        assert ([result.index for result in done], pending) == ([1], [0])


async def test_wait_for_the_first_that_does_not_succeed(producer: Producer, worker: StartWorker, door: Path) -> None:
    async with worker():
        batch: Batch[Any] = await producer.submit([wait_for_file.spec(door), square.spec(1), hang.spec(timeout=0.2)])
        done, pending = await batch.wait(return_when="FIRST_EXCEPTION")
        assert ([result.status for result in done], pending) == (["success", "timeout"], [0])


async def test_wait_knows_three_modes(producer: Producer) -> None:
    batch: Batch[Any] = await producer.submit([])
    with pytest.raises(OptionError, match="return_when='SOME': use FIRST_COMPLETED"):
        await batch.wait(return_when="SOME")  # type: ignore[arg-type]  # the point


async def test_a_wait_goes_on_among_what_the_last_one_left(
    producer: Producer, worker: StartWorker, tmp_path: Path
) -> None:
    doors = [tmp_path / name for name in "abc"]
    async with worker():
        batch = await producer.submit(wait_for_file.map(doors))
        pending, order = [0, 1, 2], []
        for opened in (1, 2, 0):
            doors[opened].touch()
            done, pending = await batch.wait(return_when="FIRST_COMPLETED", among=pending)
            order += [result.index for result in done]
    assert (order, pending) == ([1, 2, 0], [])


async def test_waits_that_go_on_read_each_result_once(
    producer: Producer, worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: Counter[int] = Counter()

    def counting(*args: Any) -> Any:
        for result in take(*args):
            read[result.index] += 1
            yield result

    take = collect._take
    monkeypatch.setattr(collect, "_take", counting)
    async with worker():
        batch = await producer.submit(nap.map([0.02 * number for number in range(10)]))
        pending = list(range(10))
        while pending:
            _, pending = await batch.wait(return_when="FIRST_COMPLETED", among=pending)
    assert read == dict.fromkeys(range(10), 1)


async def test_among_names_some_jobs_of_a_batch_that_is_still_open(
    producer: Producer, worker: StartWorker, door: Path
) -> None:
    async with worker():
        batch: Batch[Any] = await producer.submit([square.spec(3), wait_for_file.spec(door), square.spec(4)])
        done, pending = await batch.wait(among=[2, 0])
        assert ({result.index for result in done}, pending) == ({0, 2}, [])
        done, pending = await batch.wait(timeout=0, among=[0, 1])  # one of them was there before
        assert ([result.index for result in done], pending) == ([0], [1])
        assert await batch.wait(among=[]) == ([], [])
        door.touch()


async def test_an_open_batch_is_not_over_though_all_its_jobs_are(producer: Producer, worker: StartWorker) -> None:
    is_asked_for = asyncio.Event()

    async def jobs() -> AsyncIterator[Any]:
        yield square.spec(2)
        await is_asked_for.wait()
        yield square.spec(3)

    async with worker():
        submitting = asyncio.create_task(producer.submit(jobs(), batch_id="open"))
        batch: Batch[Any] = Batch(producer.scripts, "open", "default", BatchOptions(), is_there=False)
        while not await _has_jobs(producer, "open"):  # noqa: ASYNC110  # nobody tells us
            await asyncio.sleep(0.01)
        done, pending = await batch.wait(return_when="FIRST_COMPLETED")
        assert ([result.index for result in done], pending) == ([0], [])
        done, pending = await batch.wait(timeout=0.1)  # all of the one job that there is
        assert ([result.index for result in done], pending) == ([0], [])
        waiting = asyncio.create_task(batch.wait())
        is_asked_for.set()
        assert [result.index for result in (await waiting).done] == [0, 1]
        await submitting


async def _has_jobs(producer: Producer, batch_id: str) -> bool:
    try:
        return (await (await producer.attach(batch_id)).status()).total > 0
    except BatchNotFoundError:
        return False


@pytest.mark.parametrize("mode", ["FIRST_COMPLETED", "FIRST_EXCEPTION", "ALL_COMPLETED"])
@pytest.mark.parametrize("timeout", [0, 0.5, None])
async def test_for_an_empty_batch_nobody_waits(producer: Producer, mode: Any, timeout: float | None) -> None:
    batch: Batch[Any] = await producer.submit([])
    assert await batch.wait(timeout, mode) == ([], [])


@pytest.mark.parametrize("among", [[-1], ["1"], [0.0]])
async def test_among_takes_indexes_only(producer: Producer, among: Any) -> None:
    batch: Batch[Any] = await producer.submit([])
    with pytest.raises(OptionError, match="give the indexes of jobs, from 0"):
        await batch.wait(among=among)


async def test_a_job_that_the_batch_does_not_have_is_not_waited_for(producer: Producer, worker: StartWorker) -> None:
    async with worker():
        batch = await producer.submit(square.map(range(3)))
        with pytest.raises(OptionError, match="has no job 3"):
            await batch.wait(among=[2, 3])


@pytest.mark.redis
async def test_a_redis_that_stands_still_holds_no_wait_beyond_its_time(
    producer: Producer, redis_server: RedisServer, redis_url: str
) -> None:
    batch: Batch[Any] = await producer.submit(square.map(range(3)))
    assert (await batch.wait(timeout=0)).pending == [0, 1, 2]
    stranger: Batch[Any] = Batch(producer.scripts, batch.id, "default", BatchOptions())
    redis_server.pause()
    try:
        started = time.monotonic()
        assert await batch.wait(timeout=0.1) == ([], [0, 1, 2])
        with pytest.raises(RedisUnavailableError, match="it goes on: wait again"):
            await stranger.wait(timeout=0.1)
        assert time.monotonic() - started < 10  # for ever, without a bound
    finally:
        redis_server.resume()


async def test_gather_and_results_are_in_order_of_submission(producer: Producer, worker: StartWorker) -> None:
    async with worker():
        batch = await producer.submit(nap.map([0.1, 0.05, 0.0]))
        assert [result.index for result in await batch.results()] == [0, 1, 2]
        assert await batch.gather() == [0.1, 0.05, 0.0]


async def test_gather_gives_the_default_for_what_did_not_succeed(producer: Producer, worker: StartWorker) -> None:
    async with worker():
        batch: Batch[Any] = await producer.submit([square.spec(1), hang.spec(timeout=0.1), fail.spec("no")])
        assert await batch.gather(default="none") == [1, "none", "none"]
        assert await batch.gather(default=None) == [1, None, None]


@pytest.mark.parametrize(
    ("first", "error"), [(hang.spec(timeout=0.1), JobTimeoutError), (fail.spec("no"), JobFailedError)]
)
async def test_gather_raises_for_the_first_that_did_not_succeed(
    producer: Producer, worker: StartWorker, first: Any, error: type[Exception]
) -> None:
    async with worker():
        batch: Batch[Any] = await producer.submit([square.spec(1), first, fail.spec("later")])
        with pytest.raises(error, match=f"job {batch.id}:1 "):
            await batch.gather()


async def test_a_result_tells_where_and_when_its_job_ran(producer: Producer, redis: Any, worker: StartWorker) -> None:
    before = time.time()
    async with worker() as running:
        batch: Batch[Any] = await producer.submit(
            [nap.spec(0.05, key="a"), hang.spec(timeout=0.1), fail.spec("no", key="c")]
        )
        success, timeout, failure = await batch.results()
    for index, result in enumerate([success, timeout, failure]):
        assert (result.job_id, result.index, result.attempt) == (f"{batch.id}:{index}", index, 1)
        assert result.worker == running.crew.worker_id
        assert result.enqueued_at is not None
        assert result.started_at is not None
        assert result.finished_at is not None
        # Stamps are written on hosts whose clocks may differ a little, more where Redis was slow to tell the time.
        assert before - 2 < result.enqueued_at < result.started_at + 2
        assert result.started_at <= result.finished_at < time.time() + 2
    assert [r.key for r in (success, timeout, failure)] == ["a", None, "c"]
    assert [r.function for r in (success, timeout, failure)] == ["nap", "hang", "fail"]
    assert isinstance(success, SuccessResult)
    assert success.duration is not None
    assert 0.05 <= success.duration < time.time() - before
    assert isinstance(timeout, TimeoutResult)
    assert (timeout.limit, timeout.phase, timeout.stopped) == (0.1, "running", "cancelled")
    assert isinstance(failure, FailureResult)
    assert (failure.error_type, failure.message) == ("ValueError", "no")
