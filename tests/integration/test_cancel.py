"""Cancelling: what waits never starts, what runs is stopped with cleanup, each ends in a CancelledResult, soon."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import pytest

from producer.batch import Batch
from producer.collect import Cursor, read_present
from producer.producer import Producer
from protocol import keys
from protocol.errors import BatchClosedError, BatchLostError, JobCancelledError, OptionError, ProtocolError
from straggler import CancelledResult, JobSpec, current_job, job
from tests.conftest import StartProcess, StartWorker, keep_whole, until, until_running
from tests.jobs import append_line, echo, fail, hang, square, stubborn, wait_for_file
from workers.claims import Claims

# What is promised is 0.5 s; this is what a busy machine gets, and far less than anything else would take.
SOON = 5.0


async def one_chunk(*jobs: JobSpec[Any]) -> AsyncIterator[JobSpec[Any]]:
    """Yield jobs as a stream, which travels as one chunk."""
    for spec in jobs:
        yield spec


async def taken(batch: Batch[Any], count: int) -> dict[int, Any]:
    """Take so many results, as they come, within the time that a cancel has."""
    found: dict[int, Any] = {}
    async for result in batch.as_completed(SOON):
        found[result.index] = result
        if len(found) == count:
            break
    return found


async def ends(batch: Batch[Any]) -> list[tuple[str, str | None]]:
    """Wait for a batch's end; tell each job's status and reason."""
    results = await asyncio.wait_for(batch.results(), SOON)
    return [(result.status, getattr(result, "reason", None)) for result in results]


def lines(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


@job
async def tidy(path: Path, seconds: float = 0.0) -> None:
    """Run until cancelled, and leave a trace of the cleanup."""
    with path.open("a") as file:
        file.write("started\n")
    try:
        await asyncio.Event().wait()
    finally:
        assert current_job().cancelling
        await asyncio.sleep(seconds)
        with path.open("a") as file:
            file.write("cleaned\n")


@job
def wait_in_process(path: Path) -> None:
    path.write_text(str(os.getpid()))
    threading.Event().wait()


@job(isolation="thread")
def wait_in_thread(path: Path) -> None:
    path.touch()
    while not current_job().cancelling:
        threading.Event().wait(0.01)


# ---- without a worker


async def test_a_cancelled_batch_ends_without_any_worker(producer: Producer) -> None:
    batch = await producer.submit(square.map(range(600)))
    assert await batch.cancel(reason="enough") == 600
    assert await ends(batch) == [("cancelled", "enough")] * 600
    status = await batch.status()
    assert (status.cancelled, status.queued, status.running, status.stopped) == (600, 0, 0, "enough")
    with pytest.raises(JobCancelledError, match="was cancelled: enough"):
        await batch.gather()


async def test_some_jobs_are_cancelled_without_any_worker_and_the_others_run_later(
    producer: Producer, worker: StartWorker
) -> None:
    batch = await producer.submit(one_chunk(*(square.spec(n, key=f"n{n}") for n in range(600))))
    wanted = [0, 1, 255, 256, 300, 599]
    assert await batch.cancel(wanted, "no use") == 6
    found = await taken(batch, 6)
    assert set(found) == set(wanted)
    assert all(isinstance(result, CancelledResult) and result.reason == "no use" for result in found.values())
    assert (found[599].key, found[599].started_at, found[599].function) == ("n599", None, "square")
    async with worker():
        results = await batch.results()
    assert [r.index for r in results if r.status == "cancelled"] == wanted
    assert all(r.status == "success" for r in results if r.index not in wanted)
    status = await batch.status()
    assert (status.success, status.cancelled, status.stopped) == (594, 6, None)


async def test_cancelled_jobs_that_travel_as_rows_keep_their_keys_and_functions(producer: Producer) -> None:
    jobs: list[JobSpec[Any]] = [square.spec(1, key="a"), echo.spec(value=2), square.spec(3), square.spec(4, key="d")]
    for some in (jobs, jobs[::3]):
        batch = await producer.submit(some)
        await batch.cancel()
        found = [(result.status, result.function, result.key) for result in await batch.results()]
        assert found == [("cancelled", spec.function, spec.key) for spec in some]


async def test_status_tells_who_runs_while_others_are_cancelled(
    producer: Producer, worker: StartWorker, door: Path
) -> None:
    async with worker(concurrency=3):
        batch = await producer.submit(one_chunk(*[wait_for_file.spec(door)] * 300))
        await until_running(batch, 3)
        await batch.cancel(range(250, 300))
        status = await batch.status()
        assert (status.cancelled, status.running, status.queued) == (50, 3, 247)
        door.touch()
        await batch.wait()


async def test_status_tells_who_runs_of_a_chunk_of_which_some_were_cancelled_before(
    producer: Producer, worker: StartWorker, door: Path
) -> None:
    batch = await producer.submit(one_chunk(*[wait_for_file.spec(door)] * 300))
    await batch.cancel(range(50))
    async with worker(concurrency=3):
        await until_running(batch, 206)
        status = await batch.status()
        assert (status.cancelled, status.running, status.queued) == (50, 206, 44)
        door.touch()
        await batch.wait()


async def test_what_is_cancelled_leaves_nothing_in_the_queue(producer: Producer, redis: Any) -> None:
    batch = await producer.submit(square.map(range(600)), keep_results=0.2)
    await batch.cancel()
    assert redis.zcard(keys.queue("default")) == 0
    assert not redis.keys("arq:job:*")
    await until(lambda: not redis.keys(f"*{batch.id}*"))


# ---- with workers


@pytest.mark.parametrize("is_whole", [True, False])
async def test_running_jobs_are_cancelled_with_cleanup_and_results_stay(
    producer: Producer, worker: StartWorker, tmp_path: Path, *, is_whole: bool
) -> None:
    trace = tmp_path / "trace"
    async with worker():
        batch: Batch[Any] = await producer.submit([square.spec(3), tidy.spec(trace), tidy.spec(trace)])
        await taken(batch, 1)
        await until(lambda: len(lines(trace)) == 2)
        assert await batch.cancel(None if is_whole else [0, 1, 2], "stop") == 2
        assert await ends(batch) == [("success", None), ("cancelled", "stop"), ("cancelled", "stop")]
        [_, result, _] = await batch.results()
        assert result.duration is not None
    assert lines(trace).count("cleaned") == 2


async def test_a_job_that_ignores_its_cancellation_is_cancelled_after_its_grace(
    producer: Producer, worker: StartWorker
) -> None:
    async with worker() as working:
        batch = await producer.submit([stubborn.spec(1.0)], grace=0.1)
        await until_running(batch, 1)
        await batch.cancel()
        assert await ends(batch) == [("cancelled", "")]
        await until(lambda: not working.crew.deadlines.left_behind)


async def test_jobs_that_wait_in_a_busy_workers_chunk_never_start(
    producer: Producer, worker: StartWorker, tmp_path: Path, door: Path, redis: Any
) -> None:
    trace = tmp_path / "trace"
    jobs = [wait_for_file.spec(door), *(append_line.spec(trace, str(n)) for n in range(4))]
    batch = await producer.submit(one_chunk(*jobs))
    keep_whole(redis, batch)
    async with worker(concurrency=1):
        await until_running(batch, 5)
        assert await batch.cancel([2, 4]) == 2
        assert set(await taken(batch, 2)) == {2, 4}
        door.touch()
        assert [status for status, _ in await ends(batch)] == [
            "success",
            "success",
            "cancelled",
            "success",
            "cancelled",
        ]
    assert lines(trace)[2::3] == ["0", "2"]


async def test_a_cancelled_batch_gives_its_slots_to_others(producer: Producer, worker: StartWorker, redis: Any) -> None:
    batch = await producer.submit(one_chunk(*[hang.spec()] * 50))
    keep_whole(redis, batch)
    async with worker(concurrency=1):
        await until_running(batch, 50)
        other = await producer.submit(square.map(range(10)))
        await batch.cancel()
        assert await asyncio.wait_for(other.gather(), SOON) == [n * n for n in range(10)]


async def test_a_job_that_waits_for_its_retry_is_cancelled(producer: Producer, worker: StartWorker) -> None:
    async with worker():
        batch = await producer.submit([fail.spec("no"), square.spec(2)], retries=3, backoff=1000)
        await taken(batch, 1)
        async with asyncio.timeout(SOON):
            while (await batch.status()).queued != 1:  # noqa: ASYNC110  # nobody tells us
                await asyncio.sleep(0.01)
        await batch.cancel([0], "given up")
        assert await ends(batch) == [("cancelled", "given up"), ("success", None)]


async def test_a_job_whose_retry_was_decided_after_its_cancel_is_cancelled_at_once(
    producer: Producer, worker: StartWorker, redis: Any
) -> None:
    """As where the worker has not heard yet when the job fails."""
    batch = await producer.submit([wait_and_fail.spec()], retries=1, backoff=1000)
    async with worker() as working:
        await until_running(batch, 1)
        await working.crew.control.close()
        redis.hset(keys.cancelled(batch.id), "0", "late")
        redis.pexpire(keys.cancelled(batch.id), 60_000)
        redis.hincrby(keys.batch(batch.id), "control", 1)
        assert await ends(batch) == [("cancelled", "late")]


@job
async def wait_and_fail() -> None:
    await asyncio.sleep(0.3)
    raise ValueError("no")


@pytest.mark.redis
async def test_a_plain_function_is_killed_and_one_that_waits_for_a_process_never_starts(
    producer: Producer, worker: StartWorker, tmp_path: Path
) -> None:
    running, waiting = tmp_path / "running", tmp_path / "waiting"
    async with worker(job_processes=1):
        batch = await producer.submit(one_chunk(wait_in_process.spec(running), wait_in_process.spec(waiting)))
        await until(lambda: lines(running))
        await batch.cancel([1])
        assert set(await taken(batch, 1)) == {1}
        await batch.cancel()
        assert await ends(batch) == [("cancelled", ""), ("cancelled", "")]
        await until(lambda: not Path(f"/proc/{lines(running)[0]}").exists())
    assert not waiting.exists()


async def test_a_thread_is_asked_to_stop(producer: Producer, worker: StartWorker, tmp_path: Path) -> None:
    async with worker():
        batch = await producer.submit([wait_in_thread.spec(tmp_path / "there")])
        await until((tmp_path / "there").exists)
        await batch.cancel()
        assert await ends(batch) == [("cancelled", "")]


@pytest.mark.redis
async def test_a_suspicious_job_that_runs_alone_is_cancelled_and_so_are_those_that_wait_for_it(
    producer: Producer, worker: StartWorker, redis: Any, tmp_path: Path
) -> None:
    there = tmp_path / "there"
    batch = await producer.submit(one_chunk(wait_in_process.spec(there), square.spec(2)))
    crash = '{"worker":"%s","start":0,"stop":2,"ending":"signal SIGKILL","doubtful":true}'
    redis.hset(keys.crashes(batch.id), f"{batch.id}:0", f"[{crash % 'a'},{crash % 'b'}]")
    redis.pexpire(keys.crashes(batch.id), 60_000)
    async with worker():
        await until(there.exists)
        await batch.cancel(reason="why")
        assert await ends(batch) == [("cancelled", "why")] * 2


@pytest.mark.redis
async def test_arqs_own_worker_hears_of_it_too(
    producer: Producer, worker_process: StartProcess, tmp_path: Path
) -> None:
    arq = [str(Path(sys.executable).with_name("arq")), "workers.settings.WorkerSettings"]
    worker_process("tests.jobs,tests.integration.test_cancel", command=arq, ready="Starting worker", concurrency=2)
    trace = tmp_path / "trace"
    batch = await producer.submit(one_chunk(*[tidy.spec(trace)] * 3))
    await until(lambda: len(lines(trace)) == 2)
    await batch.cancel(reason="why")
    assert await ends(batch) == [("cancelled", "why")] * 3
    assert lines(trace) == ["started"] * 2 + ["cleaned"] * 2


@pytest.mark.redis
async def test_a_worker_that_stands_still_is_not_waited_for(
    producer: Producer, worker_process: StartProcess, tmp_path: Path
) -> None:
    process = worker_process(concurrency=1)
    trace = tmp_path / "trace"
    batch = await producer.submit(one_chunk(*[append_line.spec(trace, "x", 60.0)] * 3))
    await until(lambda: lines(trace))
    pids = (process.pid, int(lines(trace)[0]))  # its supervisor would end it, and see to its jobs
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        await batch.cancel(reason="why")
        found = {result.index: result async for result in read_present(producer.redis, batch.id, Cursor())}
        assert len(found) == 3, "when cancel returns"
        assert await ends(batch) == [("cancelled", "why")] * 3
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    process.terminate()
    assert await asyncio.to_thread(process.wait) == 0
    assert len(lines(trace)) == 3, "no other of its jobs has started"


@pytest.mark.redis
async def test_what_a_worker_leaves_that_dies_in_the_cleanup_is_seen_to_by_a_collector(
    producer: Producer, worker_process: StartProcess, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    process = worker_process("tests.integration.test_cancel")
    batch = await producer.submit([tidy.spec(trace, 60.0)], grace=0.5)
    await until(lambda: lines(trace))
    await batch.cancel(reason="why")
    process.kill()
    assert [r.status for r in await batch.results()] == ["cancelled"]


async def test_a_lost_hint_costs_a_few_seconds_and_nothing_else(
    producer: Producer, worker: StartWorker, redis: Any
) -> None:
    async with worker(lease=1.0) as working:
        batch = await producer.submit([hang.spec()])
        await until_running(batch, 1)
        redis.hset(keys.cancelled(batch.id), "0", "unheard")  # as the script does, without its hint
        redis.pexpire(keys.cancelled(batch.id), 60_000)
        redis.hincrby(keys.batch(batch.id), "control", 1)
        assert await ends(batch) == [("cancelled", "unheard")]
        assert working.crew.chunks == {} or await asyncio.sleep(0.1, result=True)


@pytest.mark.redis
async def test_a_worker_listens_again_after_its_connection_was_cut(
    producer: Producer, worker: StartWorker, redis: Any
) -> None:
    async with worker(lease=100.0):  # it would look by itself after half a minute
        batch = await producer.submit([hang.spec()])
        await until_running(batch, 1)
        await until(lambda: redis.pubsub_numsub(keys.CONTROL)[0][1] == 1)
        redis.client_kill_filter(_type="pubsub")
        await until(lambda: redis.pubsub_numsub(keys.CONTROL)[0][1] == 1)
        await batch.cancel()
        assert await ends(batch) == [("cancelled", "")]


async def test_a_hint_that_comes_before_the_claims_reply_is_heard(
    producer: Producer, worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    when_woken = Claims.when_woken

    async def slow(claims: Claims, *args: Any) -> Any:
        found = await when_woken(claims, *args)
        if found.chunks:
            await batch_there.wait()
            cancelling.append(asyncio.create_task(batch.cancel()))
            async with asyncio.timeout(SOON):
                while batch.id not in working.crew.control._hinted:  # noqa: ASYNC110  # nobody tells us
                    await asyncio.sleep(0.001)
        return found

    cancelling: list[asyncio.Task[int]] = []
    batch_there = asyncio.Event()
    monkeypatch.setattr(Claims, "when_woken", slow)
    async with worker(lease=100.0) as working:
        await until(lambda: working.crew.claims._awaited)
        batch = await producer.submit([hang.spec()])
        batch_there.set()
        assert await ends(batch) == [("cancelled", "")]
        await asyncio.gather(*cancelling)
        await until(lambda: not working.crew.chunks)


async def test_strangers_messages_on_the_channel_are_passed_over(
    producer: Producer, worker: StartWorker, redis: Any
) -> None:
    async with worker(lease=100.0):
        batch = await producer.submit([hang.spec()])
        await until_running(batch, 1)
        for message in (b"", b"\xff", b"[]", b"1", b'{"batch":1}', b'{"other":"x"}'):
            redis.publish(keys.CONTROL, message)
        await batch.cancel()
        assert await ends(batch) == [("cancelled", "")]


# ---- at any time, twice, what cannot be


async def test_a_batch_that_is_complete_stays_as_it_is(producer: Producer, worker: StartWorker) -> None:
    async with worker():
        batch = await producer.submit(square.map(range(3)))
        await batch.wait()
    before = await batch.status()
    assert await batch.cancel() == 0
    assert await batch.cancel([1]) == 0
    assert await batch.status() == before
    assert [status for status, _ in await ends(batch)] == ["success"] * 3


async def test_the_first_reason_stays(producer: Producer, worker: StartWorker) -> None:
    batch = await producer.submit(square.map(range(3)))
    assert await batch.cancel([1], "first") == 1
    assert await batch.cancel([1], "second") == 0
    assert await batch.cancel(reason="third") == 2
    assert await batch.cancel(reason="fourth") == 0
    assert await ends(batch) == [("cancelled", "third"), ("cancelled", "first"), ("cancelled", "third")]


async def test_a_cancelled_batch_takes_no_more_jobs(producer: Producer) -> None:
    async def more() -> AsyncIterator[JobSpec[int]]:
        yield square.spec(1)
        async with asyncio.timeout(SOON):
            while (await producer.batches()) == []:  # noqa: ASYNC110  # nobody tells us
                await asyncio.sleep(0.01)
        await (await producer.attach("b")).cancel(reason="enough")
        yield square.spec(2)

    with pytest.raises(BatchClosedError, match="cancelled"):
        await producer.submit(more(), batch_id="b")
    assert await ends(await producer.attach("b")) == [("cancelled", "enough")]


async def test_an_empty_list_cancels_nothing(producer: Producer) -> None:
    batch = await producer.submit(square.map(range(3)))
    assert await batch.cancel([]) == 0
    assert (await batch.status()).queued == 3


@pytest.mark.parametrize(
    ("indexes", "message"),
    [
        ([3], r"batch 'b' has no job 3: its 3 jobs are 0 to 2"),
        ([0, -1], r"batch 'b' has no job -1: its 3 jobs are 0 to 2"),
        ([0, "1"], r"batch 'b' has no job '1': its 3 jobs are 0 to 2"),
        ([1.0], r"batch 'b' has no job 1.0: its 3 jobs are 0 to 2"),
        ([True], r"batch 'b' has no job True: its 3 jobs are 0 to 2"),
        (1, r"indexes=1: give a list such as \[3, 5\], or None for all jobs of the batch"),
        ("12", r"indexes='12': give a list"),
    ],
)
async def test_jobs_that_are_not_there_are_refused_and_nothing_is_cancelled(
    producer: Producer, indexes: Any, message: str
) -> None:
    batch = await producer.submit(square.map(range(3)), batch_id="b")
    with pytest.raises(OptionError, match=f"^{message}") as raised:
        await batch.cancel(indexes)
    assert "\n" not in str(raised.value)
    assert (await batch.status()).queued == 3


async def test_a_reason_that_is_a_story_is_refused(producer: Producer) -> None:
    batch = await producer.submit(square.map(range(3)), batch_id="b")
    with pytest.raises(OptionError, match=r"is 201 characters long: at most 200"):
        await batch.cancel(reason="x" * 201)
    assert (await batch.status()).queued == 3


async def test_a_batch_that_is_gone_is_lost(producer: Producer, redis: Any) -> None:
    batch = await producer.submit(square.map(range(3)))
    redis.delete(keys.batch(batch.id))
    with pytest.raises(BatchLostError):
        await batch.cancel()


async def test_a_key_that_is_not_ours_is_named(producer: Producer, redis: Any) -> None:
    batch = await producer.submit(square.map(range(3)), batch_id="b")
    redis.set(keys.cancelled("b"), "mine", ex=60)
    with pytest.raises(ProtocolError, match="straggler:batch:b:cancelled"):
        await batch.cancel()


async def test_many_single_cancels_at_once_are_all_heard(producer: Producer, worker: StartWorker) -> None:
    async with worker():
        batch = await producer.submit([*[hang.spec()] * 40, echo.spec("x")])
        await taken(batch, 1)
        await asyncio.gather(*(batch.cancel([index], str(index)) for index in _shuffled(range(40))))
        assert await ends(batch) == [*(("cancelled", str(index)) for index in range(40)), ("success", None)]


def _shuffled(numbers: Iterable[int]) -> list[int]:
    return sorted(numbers, key=lambda number: number * 7 % 40)
