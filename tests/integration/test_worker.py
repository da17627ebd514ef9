"""The worker: slots counted per job, wake-up in place of polling, and nothing that a job does stops it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, field_validator

from producer.batch import Batch
from producer.producer import Producer
from protocol import keys
from protocol.chunks import decode_chunk
from protocol.connection import Scripts
from protocol.jobs import JobSpec
from straggler import FailureResult, SuccessResult, TimeoutResult, current_job, job
from tests.conftest import PATIENCE, StartWorker, keep_whole, until
from tests.jobs import append_line, echo, fail, hang, nap, plain_square, square, stubborn, wait_for_file
from workers.calling.context import CurrentJob
from workers.claims import Claimed, Claims, Found
from workers.leases import Leases
from workers.starting.slots import Slots
from workers.worker import StragglerWorker


def lines(path: Path) -> list[list[str]]:
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


# ---- slots


async def test_hanging_jobs_hold_their_own_slots_and_nothing_else(producer: Producer, worker: StartWorker) -> None:
    async with worker(concurrency=20):
        hanging = await producer.submit([hang.spec() for _ in range(10)])
        others = await producer.submit(square.map(range(2000)))
        async with asyncio.timeout(PATIENCE):
            assert len(await others.gather()) == 2000
        assert (await hanging.status()).running == 10


async def test_no_more_jobs_run_at_a_time_than_there_are_slots(producer: Producer, worker: StartWorker) -> None:
    running = most = 0

    @job
    async def count() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.005)
        running -= 1

    async with worker(concurrency=7):
        batches = [await producer.submit([count.spec() for _ in range(50)]) for _ in range(4)]
        for batch in batches:
            await batch.wait()
    assert most == 7


async def test_a_chunk_larger_than_all_slots_runs_to_its_end(
    producer: Producer, redis: Any, worker: StartWorker
) -> None:
    batch = await producer.submit(square.map(range(1500)))
    sizes = [len(decode_chunk(0, chunk, "key")) for chunk in redis.hvals(keys.chunks(batch.id))]
    assert max(sizes) > 3
    async with worker(concurrency=3):
        assert len(await batch.gather()) == 1500


async def test_an_abandoned_job_frees_its_slot(producer: Producer, worker: StartWorker) -> None:
    async with worker(concurrency=1):
        batch: Batch[Any] = await producer.submit([stubborn.spec(0.5, timeout=0.05), square.spec(3)], grace=0.05)
        first, second = await batch.results()
        assert isinstance(first, TimeoutResult)
        assert first.stopped == "abandoned"
        assert second.unwrap() == 9
        await asyncio.sleep(0.5)


async def test_two_workers_share_a_batch_and_run_each_job_once(
    producer: Producer, worker: StartWorker, tmp_path: Path
) -> None:
    async with worker(concurrency=10) as one, worker(concurrency=10) as two:
        batch = await producer.submit(append_line.starmap((tmp_path / "trace", str(n), 0.005) for n in range(300)))
        results = await batch.results()
    assert sorted(int(line) for _, _, line in lines(tmp_path / "trace")) == list(range(300))
    assert {result.worker for result in results} == {one.crew.worker_id, two.crew.worker_id}


async def test_a_worker_claims_no_more_than_it_has_slots_for(
    producer: Producer, worker: StartWorker, door: Path, redis: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[int] = []
    wait_room = StragglerWorker._wait_room

    async def noted(worker: StragglerWorker, count: int) -> None:
        waits.append(count)
        await wait_room(worker, count)

    monkeypatch.setattr(StragglerWorker, "_wait_room", noted)
    batches = [await producer.submit([wait_for_file.spec(door)]) for _ in range(8)]
    async with worker(concurrency=2) as running:
        await until(lambda: running.crew.slots.free == 0)
        # It has claimed again by now if it ever will: the next look at the queue waits for a free slot.
        await until(lambda: waits)
        assert len(redis.keys(f"{keys.ARQ_IN_PROGRESS}*")) == 2
        door.touch()
        for batch in batches:
            await batch.wait()


async def test_a_lone_job_costs_redis_three_scripts_and_a_read(
    producer: Producer, worker: StartWorker, redis: Any
) -> None:
    async with worker(lease=100.0):
        assert await (await producer.submit([square.spec(3)])).gather() == [9]  # scripts and slots are known now
        redis.config_resetstat()
        assert await (await producer.submit([square.spec(3)])).gather() == [9]
        # The worker's next wait for a token has begun, or is about to.
        counts = {name: redis.info("commandstats").get(f"cmdstat_{name}", {}) for name in ("evalsha", "xread")}
        assert counts["evalsha"]["calls"] == 3, "submit, claim, record"
        assert counts["xread"]["calls"] == 1
        assert "cmdstat_hgetall" not in redis.info("commandstats")


async def test_a_worker_that_waits_takes_nothing_once_it_was_told_to_stop(
    producer: Producer, worker: StartWorker, redis: Any
) -> None:
    async with worker() as first:
        await until(lambda: first.crew.claims._awaited)
        first.stop()
        batch = await producer.submit([square.spec(3)])
        async with worker():
            assert await batch.gather() == [9]
    assert not redis.exists(keys.crashes(batch.id))


async def test_what_a_worker_has_leased_as_it_was_told_to_stop_runs_elsewhere_at_once(
    producer: Producer, worker: StartWorker, redis: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_when_pushed = Scripts.run_when_pushed

    async def never_answered(*args: Any) -> Any:
        await run_when_pushed(*args)
        await asyncio.Event().wait()

    with monkeypatch.context() as patch:
        patch.setattr(Scripts, "run_when_pushed", never_answered)
        async with worker(lease=100.0) as first:
            await until(lambda: first.crew.claims._awaited)
            batch = await producer.submit([square.spec(3)])
            await until(lambda: redis.exists(keys.ARQ_IN_PROGRESS + f"{batch.id}:0"))
            first.stop()
    async with worker():
        assert await batch.gather() == [9]
    assert not redis.exists(keys.crashes(batch.id))


async def test_a_chunk_whose_results_do_not_travel_together_is_let_go_of_after_them(
    producer: Producer, worker: StartWorker, redis: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    released: list[str] = []
    release = Leases.release

    async def noted(leases: Leases, claimed: Claimed, outcome: str, *more: Any) -> None:
        # Successes are written as columns, what failed as rows: the first call must not let go of the chunk.
        assert redis.exists(keys.ARQ_IN_PROGRESS + claimed.chunk_id)
        await release(leases, claimed, outcome, *more)
        released.append(outcome)

    monkeypatch.setattr(Leases, "release", noted)
    monkeypatch.setattr("workers.starting.lanes._TURN", 60.0)  # all end in one turn, however slow the machine
    batch = await producer.submit(alternate([square.spec(2), fail.spec("no"), square.spec(3)]))
    keep_whole(redis, batch)
    async with worker(concurrency=1):
        assert [result.status for result in await batch.results()] == ["success", "failure", "success"]
        await until(lambda: released)
    assert released == ["ended"]
    assert redis.keys("arq:*") == []


async def alternate(jobs: list[JobSpec[Any]]) -> AsyncIterator[JobSpec[Any]]:
    """Yield jobs as a stream, which travels in one chunk."""
    for spec in jobs:
        yield spec


async def test_a_chunk_whose_lease_is_over_as_its_claim_is_answered_is_not_run(
    producer: Producer, worker: StartWorker, redis: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    when_woken = Claims.when_woken
    late: list[str] = []

    async def too_late(claims: Claims, slots: Slots, timeout: float) -> Found:
        found = await when_woken(claims, slots, timeout)
        late.extend(chunk.chunk_id for chunk in found.chunks)
        return found._replace(until=time.monotonic())

    monkeypatch.setattr(Claims, "when_woken", too_late)
    async with worker() as working:
        await until(lambda: working.crew.claims._awaited)
        batch = await producer.submit([square.spec(3)])
        await until(lambda: late)
        await until(lambda: working.crew.claims._awaited)
        assert not working.crew.chunks
        assert (await batch.status()).done == 0


async def test_queues_are_apart(redis_url: str, producer: Producer, worker: StartWorker) -> None:
    other = Producer(redis_url, queue="other", settings=producer.settings)
    async with worker(), other:
        elsewhere = await other.submit(square.map([1]))
        assert await (await producer.submit(square.map([2]))).gather() == [4]
        assert (await elsewhere.status()).queued == 1


# ---- clocks


async def test_a_jobs_own_timeout_wins_over_the_batchs_and_that_over_the_functions(
    producer: Producer, worker: StartWorker
) -> None:
    @job(timeout=0.05)
    async def slow() -> None:
        await hang()

    async with worker():
        own: Batch[Any] = await producer.submit([slow.spec(timeout=0.1), slow.spec()], timeout=0.15)
        functions: Batch[Any] = await producer.submit([slow.spec()])
        limits = [r.limit for batch in (own, functions) for r in await batch.results() if isinstance(r, TimeoutResult)]
    assert limits == [0.1, 0.15, 0.05]


async def test_a_job_that_waits_too_long_does_not_start(
    producer: Producer, worker: StartWorker, door: Path, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    async with worker(concurrency=1):
        batch: Batch[Any] = await producer.submit(
            [wait_for_file.spec(door), append_line.spec(trace, "1"), append_line.spec(trace, "2", queue_timeout=60)],
            queue_timeout=0.2,
        )
        await asyncio.sleep(0.3)
        door.touch()
        _, late, own = await batch.results()
    assert isinstance(late, TimeoutResult)
    assert (late.phase, late.stopped, late.limit, late.started_at) == ("queued", "not started", 0.2, None)
    assert own.status == "success"
    assert [line for _, _, line in lines(trace)] == ["2"]


async def test_current_job_tells_a_job_about_itself(producer: Producer, worker: StartWorker) -> None:
    seen: list[tuple[CurrentJob, float]] = []

    @job
    async def look() -> None:
        await asyncio.sleep(0)
        seen.append((current_job(), current_job().remaining()))

    @job(isolation="thread")
    def look_from_a_thread() -> str:
        return current_job().job_id

    async with worker():
        batch: Batch[Any] = await producer.submit([look.spec(key="a"), look_from_a_thread.spec()], timeout=7)
        _, threaded = await batch.gather()
    [(me, remaining)] = seen
    assert (me.batch_id, me.index, me.key, me.attempt, me.job_id) == (batch.id, 0, "a", 1, f"{batch.id}:0")
    assert 6 < remaining <= 7
    assert threaded == f"{batch.id}:1"


# ---- what jobs do to a worker


class Spiteful(BaseModel):
    name: str

    @field_validator("name")
    @classmethod
    def _check(cls, name: str) -> str:
        if name == "bad":
            raise RuntimeError("a validator's own bug")
        return name


@job
async def leave() -> None:
    raise SystemExit(3)


@job
async def interrupt() -> None:
    await asyncio.sleep(0)
    raise KeyboardInterrupt


@job(isolation="thread")
def leave_thread() -> None:
    raise SystemExit(3)


@job(isolation="thread")
def run_dry() -> None:
    next(iter([]))


@job
async def give_object() -> Any:
    return object()


@job
async def give_wrong_type() -> int:
    return "many"  # type: ignore[return-value]  # the point


@job
async def give_too_much() -> str:
    return "x" * (1 << 20)


@job
async def give_spiteful() -> Spiteful:
    return {"name": "bad"}  # type: ignore[return-value]  # the point


async def test_whatever_a_job_does_is_its_own_failure_and_the_worker_lives(
    producer: Producer, worker: StartWorker
) -> None:
    async with worker():
        batch: Batch[Any] = await producer.submit(
            [
                leave.spec(), interrupt.spec(), leave_thread.spec(), run_dry.spec(), give_object.spec(),
                give_wrong_type.spec(), give_too_much.spec(), give_spiteful.spec(), fail.spec("no"), square.spec(3),
            ],
            timeout=5,
        )  # fmt: skip
        results = await batch.results()
        # What the producer cannot know: this worker's function is another one.
        unfit: Batch[Any] = await producer.submit([JobSpec(function="nowhere"), square.spec(2)])
        unknown, fine = await unfit.results()
        assert await (await producer.submit(square.map([4]))).gather() == [16]
    told = [(r.error_type, r.message) for r in results if isinstance(r, FailureResult)]
    assert [kind.rpartition(".")[2] for kind, _ in told] == [
        "SystemExit", "KeyboardInterrupt", "SystemExit", "StopIteration", "UnusableValueError", "UnusableValueError",
        "UnusableValueError", "UnusableValueError", "ValueError",
    ]  # fmt: skip
    assert "takes 1,048," in told[6][1]
    assert "at most 1,048,576" in told[6][1]
    assert results[-1].unwrap() == 9
    assert isinstance(unknown, FailureResult)
    assert unknown.error_type == "protocol.errors.UnknownFunctionError"
    assert fine.unwrap() == 4


async def test_arguments_whose_validator_breaks_are_a_failure(
    producer: Producer, redis: Any, worker: StartWorker
) -> None:
    @job
    async def take_spiteful(value: Spiteful) -> None: ...

    batch: Batch[Any] = await producer.submit([take_spiteful.spec({"name": "good"}), square.spec(2)])
    [(first, chunk)] = [(f, c) for f, c in redis.hgetall(keys.chunks(batch.id)).items() if b"good" in c]
    redis.hset(keys.chunks(batch.id), first, chunk.replace(b"good", b"bad"))
    async with worker():
        broken, fine = await batch.results()
    assert isinstance(broken, FailureResult)
    assert (broken.error_type, broken.message) == ("RuntimeError", "a validator's own bug")
    assert fine.unwrap() == 4


async def test_values_come_back_as_their_declared_types(producer: Producer, worker: StartWorker) -> None:
    @job
    async def bytes_and_path(blob: bytes, path: Path) -> tuple[bytes, Path]:
        return blob[::-1], path / "more"

    async with worker():
        batch = await producer.submit(bytes_and_path.starmap([(b"\xff\x00", Path("a"))]))
        assert await batch.gather() == [(b"\x00\xff", Path("a/more"))]
        assert await (await producer.submit(plain_square.map([3]))).gather() == [9]
        everything: list[Any] = [None, True, 1.5, "ü\0", [1, {"a": []}]]
        assert await (await producer.submit(echo.map(everything))).gather() == everything
        [result] = await (await producer.submit(nap.map([0.0]))).results()
        assert isinstance(result, SuccessResult)
