"""A job's attempts that did not become its result are kept, each once, and are told to whoever asks."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from producer.overview.life import find_life
from producer.producer import Producer
from protocol import keys
from protocol.attempts import Attempt, encode_attempt
from protocol.jobs import JobSpec
from straggler import BatchLostError, OptionError, ProtocolError, Retry, current_job, job, sync
from tests.commands import straggler
from tests.conftest import ROOT, StartProcess, StartWorker, until, until_running
from tests.hand import Hand, streamed
from tests.jobs import fail, hang, square, wait_for_file
from tests.redis_server import RedisServer
from workers.crashes import Crash
from workers.ending.retries import Deferred

SOON: dict[str, Any] = {"retries": 1, "backoff": 0.01}


def told(attempts: list[Attempt]) -> list[tuple[int, str]]:
    return [(attempt.attempt, attempt.status) for attempt in attempts]


def lines_of(redis: Any, batch_id: str, index: int) -> list[bytes]:
    return list((redis.hget(keys.attempts(batch_id), str(index)) or b"").splitlines())


# ---- what they end in


async def test_a_failure_that_runs_again_is_kept_with_its_error_worker_and_times(
    producer: Producer, worker: StartWorker
) -> None:
    @job
    async def fail_twice(message: str) -> int:
        if current_job().attempt < 3:
            raise ValueError(message)
        return 7

    async with worker() as one:
        batch = await producer.submit([fail_twice.spec("no\n" + "x" * 900), square.spec(2)], retries=2, backoff=0.01)
        result, _ = await batch.results()
        worker_id = one.crew.worker_id
    first, second = await batch.attempts(0)
    assert (first.attempt, second.attempt, result.attempt) == (1, 2, 3)
    for attempt in (first, second):
        assert (attempt.status, attempt.error_type, attempt.worker) == ("failure", "ValueError", worker_id)
        assert attempt.message == "no\n" + "x" * 497
        assert attempt.duration is not None
    assert first.started_at is not None
    assert second.started_at is not None
    assert result.started_at is not None
    assert first.started_at <= first.finished_at <= second.started_at <= second.finished_at <= result.started_at
    assert await batch.attempts(1) == []


async def test_a_timeout_that_runs_again_is_kept_with_its_clock(producer: Producer, worker: StartWorker) -> None:
    async with worker():
        batch = await producer.submit([hang.spec()], timeout=0.05, retry_on=("timeout",), **SOON)
        await batch.results()
    [attempt] = await batch.attempts(0)
    assert (attempt.status, attempt.limit, attempt.phase, attempt.stopped) == ("timeout", 0.05, "running", "cancelled")
    assert attempt.details == "timed out after 0.05 s while running, cancelled"


async def test_who_asks_to_run_again_is_told_as_one_who_did(producer: Producer, worker: StartWorker) -> None:
    @job
    async def ask() -> int:
        if current_job().attempt == 1:
            raise Retry(after=0)
        return 1

    async with worker():
        batch = await producer.submit([ask.spec()], **SOON)
        await batch.results()
    [attempt] = await batch.attempts(0)
    assert attempt.details == "workers.ending.retries.Retry: it asked to run again"


@pytest.mark.redis
async def test_a_worker_killed_under_a_job_is_kept_as_its_death(
    producer: Producer, worker_process: StartProcess, door: Path
) -> None:
    worker_process()
    batch = await producer.submit([square.spec(1), wait_for_file.spec(door)], timeout=60)
    await until_running(batch, 1)
    while not (await batch.status()).success:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    [worker_id] = await producer.workers()
    os.kill(int(worker_id.split("-")[-2]), signal.SIGKILL)
    while not await batch.attempts(1):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    door.touch()
    _, result = await batch.results()
    [death] = await batch.attempts(1)
    assert (death.attempt, death.status, death.worker, death.ending) == (1, "died", worker_id, "signal SIGKILL")
    assert (death.doubtful, result.attempt) == (False, 2)
    assert await batch.attempts(0) == [], "it had its result"


@pytest.mark.redis
async def test_a_host_that_is_gone_is_kept_as_a_death_in_doubt(
    producer: Producer, worker_process: StartProcess, door: Path
) -> None:
    host = worker_process(lease=1)
    batch = await producer.submit([wait_for_file.spec(door)], timeout=60)
    await until_running(batch, 1)
    [worker_id] = await producer.workers()
    host.kill()
    worker_process(lease=1)
    while not await batch.attempts(0):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    door.touch()
    [result] = await batch.results()
    [death] = await batch.attempts(0)
    assert (death.attempt, death.status, death.worker, death.doubtful) == (1, "died", worker_id, True)
    assert death.details == "its worker died: no sign of life; it may not have been at work"
    assert result.attempt == 1


async def test_a_job_that_is_handed_back_at_shutdown_is_kept(
    producer: Producer, worker: StartWorker, door: Path
) -> None:
    async with worker(concurrency=1) as one:
        batch = await producer.submit([wait_for_file.spec(door), square.spec(1)], timeout=60)
        await until(lambda: one.crew.slots.used == 1)  # it runs, and is not only held
        worker_id = one.crew.worker_id
    door.touch()
    async with worker():
        [result, _] = await batch.results()
    [attempt] = await batch.attempts(0)
    assert (attempt.attempt, attempt.status, attempt.worker) == (1, "handed back", worker_id)
    assert attempt.duration is not None
    assert result.attempt == 1, "that burns none"
    assert await batch.attempts(1) == [], "it had not started"


async def test_a_job_whose_lease_was_lost_is_kept_as_handed_back(
    producer: Producer, worker: StartWorker, redis: Any, door: Path, caplog: pytest.LogCaptureFixture
) -> None:
    batch = await producer.submit([wait_for_file.spec(door)], timeout=60)
    async with worker(lease=1.0, concurrency=1):
        await until_running(batch, 1)
        redis.delete(f"{keys.ARQ_IN_PROGRESS}{batch.id}:0")
        redis.zadd(keys.queue("default"), {f"{batch.id}:0": 1})
        async with worker():
            await until(lambda: "lease.lost" in [getattr(record, "event", "") for record in caplog.records])
            await until(lambda: b"handed back" in b"".join(lines_of(redis, batch.id, 0)))
            door.touch()
            await batch.results()
    assert told(await batch.attempts(0)) == [(1, "handed back")], "it lives, so it has not died"


# ---- each once, and no more than there is room for


async def test_a_job_that_runs_once_leaves_nothing(producer: Producer, worker: StartWorker, redis: Any) -> None:
    async with worker():
        batch = await producer.submit([*square.map(range(5)), fail.spec("no")])
        await batch.results()
    assert not redis.exists(keys.attempts(batch.id))


async def test_a_failure_told_by_who_no_longer_holds_the_job_is_not_kept(
    producer: Producer, hands: tuple[Hand, Hand], redis: Any
) -> None:
    one, other = hands
    await producer.submit(streamed(fail.map("ab")), batch_id="b", retries=3)
    [claimed] = await one.claim()
    redis.delete(f"{keys.ARQ_IN_PROGRESS}b:0")
    redis.zadd(keys.queue("default"), {"b:0": 1})
    redis.hset(keys.holders("b"), "b:0", "?a")  # missed for long enough
    assert await other.claim()
    await one.retry(claimed, 0)
    assert [json.loads(line)["status"] for line in lines_of(redis, "b", 0)] == ["died"]
    await one.leases.release(claimed, "ended")
    assert not lines_of(redis, "b", 0), "it lives"
    assert not lines_of(redis, "b", 1)


async def test_of_many_that_run_again_by_one_call_each_is_judged_by_itself(
    producer: Producer, hands: tuple[Hand, Hand], redis: Any
) -> None:
    one, _ = hands
    batch = await producer.submit(streamed(fail.map("abcdef")), batch_id="b", retries=3)
    await producer.submit(streamed(fail.map("ab")), batch_id="c", retries=3)
    gone = await producer.submit(streamed(fail.map("a")), batch_id="d", retries=3)
    chunks = {claimed.chunk_id: claimed for claimed in await one.claim()}
    await one.record(batch, 1)
    redis.hset(keys.cancelled("b"), "2", "why")  # as the script does, and no more
    redis.pexpire(keys.cancelled("b"), 60_000)
    redis.hincrby(keys.batch("b"), "control", 1)
    await one.retry(chunks["b:0"], 3)
    await gone.delete()

    def deferred(chunk_id: str, index: int, failures: int, delay: float) -> Deferred:
        attempt = encode_attempt(attempt=failures, status="failure", worker="a", finished_at=5.0, message="no")
        return Deferred(chunk_id, chunks[chunk_id].payload, index, failures, delay, attempt)

    some = [
        deferred("b:0", 0, 1, 100), deferred("c:0", 1, 1, 200), deferred("b:0", 1, 1, 100), deferred("b:0", 2, 1, 100),
        deferred("d:0", 0, 1, 100), deferred("b:0", 3, 1, 100), deferred("b:0", 4, 1, 300), deferred("b:0", 4, 1, 300),
    ]  # fmt: skip
    now = redis.time()[0]
    for _ in range(2):  # as where the reply is lost
        await one.retries.write(some)
        found = redis.zrange(keys.queue("default"), 0, -1, withscores=True)
        later = {name.decode(): round(due / 1000 - now, -2) for name, due in found if b"+" in name}
        assert later == {"b:0+0": 100, "c:0+1": 200, "b:0+2": 0, "b:0+3": 0, "b:0+4": 300}
        assert redis.hgetall(keys.retries("b")) == {b"0": b"1", b"2": b"1", b"3": b"1", b"4": b"1"}
        assert redis.hgetall(keys.retries("c")) == {b"1": b"1"}
        assert not redis.exists(keys.retries("d"))
        assert [len(lines_of(redis, "b", index)) for index in range(6)] == [1, 0, 1, 1, 1, 0]
        # Of six jobs four are to be taken again, and so is one of two.
        assert [int(redis.hget(keys.batch(name), "taken")) for name in "bc"] == [2, 1]


async def test_how_a_worker_died_takes_the_place_of_its_lapsed_lease(
    producer: Producer, hands: tuple[Hand, Hand], redis: Any
) -> None:
    one, other = hands
    batch = await producer.submit(streamed(square.map(range(4))), batch_id="b")
    [claimed] = await one.claim()
    await one.record(batch, 3)
    redis.delete(f"{keys.ARQ_IN_PROGRESS}b:0")
    redis.zadd(keys.queue("default"), {"b:0": 1})
    redis.hset(keys.holders("b"), "b:0", "?a")
    assert await other.claim()
    assert [told(await batch.attempts(index)) for index in range(4)] == [[(1, "died")]] * 3 + [[]]
    crash = Crash(worker="a", start=0, stop=2, ending="signal SIGSEGV", ended_at=5.0)
    for _ in range(2):
        await one.leases.release(claimed, crash.model_dump_json())
    found = [await batch.attempts(index) for index in range(4)]
    assert [told(attempts) for attempts in found] == [[(1, "died")], [(1, "died")], [], []]
    assert (found[0][0].ending, found[0][0].doubtful) == ("signal SIGSEGV", False)


async def test_what_is_noted_of_one_chunk_does_not_go_when_anothers_worker_is_found_alive(
    producer: Producer, hands: tuple[Hand, Hand], redis: Any
) -> None:
    one, _ = hands
    await producer.submit(streamed(square.map(range(600))), batch_id="b")
    first, second, *_ = await one.claim(1000)
    crash = Crash(worker="c", start=0, stop=2, ending="signal SIGSEGV", ended_at=5.0).model_dump_json()
    redis.hset(keys.crashes("b"), mapping={first.chunk_id: f"[{crash}]", second.chunk_id: f"[{crash}]"})
    redis.pexpire(keys.crashes("b"), 60_000)
    redis.delete(f"{keys.ARQ_IN_PROGRESS}{first.chunk_id}")
    redis.hset(keys.holders("b"), first.chunk_id, "another")
    await one.leases.release(first, "ended")
    assert set(redis.hgetall(keys.crashes("b"))) == {first.chunk_id.encode(), second.chunk_id.encode()}
    assert redis.pttl(keys.crashes("b")) > 60_000


async def test_a_neighbour_that_had_its_worker_killed_costs_an_attempt_that_does_not_count(
    producer: Producer, hands: tuple[Hand, Hand]
) -> None:
    one, other = hands
    batch = await producer.submit(streamed(square.map(range(4))), batch_id="b")
    [claimed] = await one.claim()
    crash = Crash(worker="a", start=0, stop=2, ending="killed", ended_at=5.0, doubtful=True, harmless=True)
    await one.leases.release(claimed, crash.model_dump_json())
    [again] = await other.claim()
    assert (again.crashes, again.attempt(0)) == ([], 1)
    assert [told(await batch.attempts(index)) for index in range(3)] == [[(1, "died")], [(1, "died")], []]
    assert not (await batch.attempts(0))[0].counts


async def test_of_very_many_attempts_the_first_is_kept_and_the_last_ones(
    producer: Producer, hands: tuple[Hand, Hand]
) -> None:
    one, _ = hands
    batch = await producer.submit(streamed(fail.map("ab")), batch_id="b", retries=99)
    [claimed] = await one.claim()
    await one.retry(claimed, 1)
    for number in range(2, 31):
        [own] = await one.claim()
        await one.retry(own, 1, failures=number)
    assert [attempt.attempt for attempt in await batch.attempts(1)] == [1, *range(12, 31)]


async def test_a_batchs_attempts_are_bounded_in_all(producer: Producer, hands: tuple[Hand, Hand], redis: Any) -> None:
    one, _ = hands
    batch = await producer.submit(streamed(fail.map("abc")), batch_id="b", retries=9)
    [claimed] = await one.claim()
    await one.retry(claimed, 0)
    [line] = lines_of(redis, "b", 0)
    assert int(redis.hget(keys.attempts("b"), "bytes")) == len(line) + 1
    redis.hset(keys.attempts("b"), "bytes", (32 << 20) - 10)
    await one.retry(claimed, 1)
    assert await batch.attempts(1) == []
    assert redis.hget(keys.retries("b"), "1") == b"1", "it runs again all the same"


async def test_attempts_live_as_long_as_their_batch_and_go_with_it(
    producer: Producer, worker: StartWorker, redis: Any
) -> None:
    async with worker():
        batch = await producer.submit([fail.spec("no")], keep_results=50, **SOON)
        await until(lambda: redis.exists(keys.attempts(batch.id)))
        await batch.results()
    assert 0 < redis.ttl(keys.attempts(batch.id)) <= 50
    await batch.retry()
    assert redis.ttl(keys.attempts(batch.id)) > 40
    await batch.delete()
    assert not redis.exists(keys.attempts(batch.id))
    with pytest.raises(BatchLostError):
        await batch.attempts(0)


async def test_a_job_that_the_batch_does_not_have_is_an_error_and_so_is_a_key_that_is_not_ours(
    producer: Producer, redis: Any
) -> None:
    batch = await producer.submit(streamed(fail.map("ab")), batch_id="b", retries=9)
    with pytest.raises(OptionError, match="jobs 0 to 1"):
        await batch.attempts(2)
    redis.hset(keys.attempts("b"), "0", "{}\n")
    redis.expire(keys.attempts("b"), 60)
    with pytest.raises(ProtocolError, match=keys.attempts("b")):
        await batch.attempts(0)


@pytest.mark.redis
async def test_another_type_of_value_is_named_and_makes_way_for_the_next_attempt(
    producer: Producer, hands: tuple[Hand, Hand], redis: Any
) -> None:
    one, _ = hands
    batch = await producer.submit(streamed(fail.map("ab")), batch_id="b", retries=9)
    redis.set(keys.attempts("b"), "nonsense", ex=60)
    with pytest.raises(ProtocolError, match=keys.attempts("b")):
        await batch.attempts(0)
    [claimed] = await one.claim()
    await one.retry(claimed, 0)
    assert told(await batch.attempts(0)) == [(1, "failure")], "what tells nothing makes way"


@pytest.mark.redis
async def test_attempts_outlive_a_redis_that_is_killed_and_are_told_once_past_the_outage(
    server: RedisServer, worker_process: StartProcess, tmp_path: Path
) -> None:
    async with Producer(server.url) as producer:
        trace = tmp_path / "trace"
        worker_process(jobs="tests.integration.test_attempts_kept", redis_url=server.url)
        batch = await producer.submit(
            [fail_for_a_while.spec(trace, number) for number in range(40)], retries=3, backoff=0.2
        )
        await until(lambda: trace.exists() and len(trace.read_text().split()) > 60)
        server.kill()
        await asyncio.sleep(1.0)
        await asyncio.to_thread(server.start)
        results = await batch.results()
        for result in results:
            attempts = await batch.attempts(result.index)
            assert told(attempts) == [(number, "failure") for number in range(1, result.attempt)]
        assert {result.attempt for result in results} == {3}


@job
async def fail_for_a_while(path: Path, number: int) -> int:
    with path.open("a") as file:
        file.write(f"{number}\n")
    await asyncio.sleep(0.05)
    if current_job().attempt < 3:
        raise ValueError(f"not yet, {number}")
    return number


# ---- told to people and programs


async def test_the_same_is_told_without_asyncio(producer: Producer, worker: StartWorker, redis_url: str) -> None:
    async with worker():
        batch = await producer.submit([fail.spec("no")], **SOON)
        await batch.results()

    def ask() -> list[Attempt]:
        with sync.Producer(redis_url) as made:
            return made.attach(batch.id).attempts(0)

    assert await asyncio.to_thread(ask) == await batch.attempts(0)


async def test_a_life_is_found_by_key_or_number_wherever_the_job_is(
    producer: Producer, worker: StartWorker, door: Path
) -> None:
    running: JobSpec[Any] = wait_for_file.spec(door).model_copy(update={"key": "runs"})
    jobs = [*(square.spec(number, key=f"k{number}") for number in range(300)), fail.spec("no", key="5"), running]
    waiting = await producer.submit(jobs, batch_id="waits")
    for wanted, index in (("k7", 7), ("3", 3), ("5", 300), ("runs", 301)):
        life = await find_life(producer.redis, await waiting.status(), wanted)
        assert life is not None
        assert (life.index, life.status, life.spec is not None) == (index, "queued", True)
    async with worker():
        await until(lambda: True)
        while (await waiting.status()).done < 301:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        while not (await waiting.status()).slowest:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        status = await waiting.status()
        expected = {"k7": (7, "success"), "3": (3, "success"), "5": (300, "failure"), "runs": (301, "running")}
        for wanted, (index, state) in expected.items():
            life = await find_life(producer.redis, status, wanted)
            assert life is not None
            assert (life.index, life.status) == (index, state)
        assert await find_life(producer.redis, status, "302") is None
        assert await find_life(producer.redis, status, "nobody") is None
        door.touch()


async def test_the_death_that_lost_a_job_is_its_results_and_no_attempt_beside_it(
    producer: Producer, worker: StartWorker, hands: tuple[Hand, Hand], redis: Any
) -> None:
    one, _ = hands
    batch = await producer.submit(streamed(square.map(range(2))), batch_id="b")
    for number in range(3):
        one.leases.worker_id = one.claims._worker_id = f"w{number}"
        [claimed] = await one.claim()
        redis.hset(keys.holders("b"), "b:0", f"w{number}")  # as if its jobs ran beside each other
        crash = Crash(worker=f"w{number}", start=0, stop=1, ending="signal SIGKILL", ended_at=5.0 + number)
        await one.leases.release(claimed, crash.model_dump_json())
    async with worker():
        [lost, _] = await batch.results()
    assert (lost.status, lost.attempt) == ("lost", 3)
    assert [attempt.attempt for attempt in await batch.attempts(0)] == [1, 2, 3]
    life = await find_life(producer.redis, await batch.status(), "0")
    assert life is not None
    assert (told(list(life.attempts)), life.not_kept) == ([(1, "died"), (2, "died")], 0)
    assert [event.what for event in life.events][:2] == [
        "attempt 1 ended as its worker died",
        "attempt 2 ended as its worker died",
    ]


@pytest.fixture
def say(redis_url: str, tmp_path: Path) -> Callable[..., Any]:
    """Run `straggler status`."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("STRAGGLER_")}

    environment = {**own, "PYTHONPATH": str(ROOT)}
    return lambda *words: asyncio.to_thread(
        straggler, "status", *words, "--redis", redis_url, cwd=tmp_path, env=environment
    )


@pytest.mark.redis
async def test_status_of_a_job_tells_each_attempt_to_people_and_programs(
    producer: Producer, worker: StartWorker, say: Callable[..., Any]
) -> None:
    async with worker():
        batch = await producer.submit(
            [fail.spec("[bold]no[/bold] \x1b[31m", key="one"), square.spec(3, key="two")], **SOON
        )
        await batch.results()
    printed = await say(batch.id, "--job", "one")
    assert printed.returncode == 0, printed.stderr
    for said in ("attempt", "ValueError: [bold]no[/bold]", "Traceback", f"{batch.id}:0", "failed", "fail"):
        assert said in printed.stdout
    assert "\x1b[31m" not in printed.stdout
    facts = json.loads((await say(batch.id, "--job", "0", "--json")).stdout)
    assert (facts["key"], facts["status"], facts["result"]["attempt"], facts["attempts_not_kept"]) == (
        "one",
        "failure",
        2,
        0,
    )
    [attempt] = facts["attempts"]
    assert (attempt["attempt"], attempt["status"], attempt["error_type"]) == (1, "failure", "ValueError")
    assert json.loads((await say(batch.id, "--job", "two", "--json")).stdout)["result"]["value"] == 9
    missed = await say(batch.id, "--job", "three")
    assert (missed.returncode, "no job of key or number 'three'" in missed.stderr) == (1, True)
    assert "name that, too" in (await say("--job", "three")).stderr
