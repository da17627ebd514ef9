"""What runs, for how long, and how far it says it is: told once a second, gone with its worker, a burden to no job."""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from pydantic_core import from_json
from redis.exceptions import ResponseError

from producer.batch import Batch
from producer.producer import Producer
from protocol import keys
from protocol.errors import BatchNotFoundError, StragglerError
from protocol.running import RunningJob
from straggler import current_job, job
from tests import commands
from tests.conftest import PATIENCE, ROOT, StartProcess, StartWorker, until
from tests.jobs import nap, plain_tell, square, tell, thread_tell
from tests.redis_server import RedisServer
from workers.calling.reports import LONGEST_NOTE
from workers.vitals import running


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the workers of this process tell more often, for tests that wait for it."""
    monkeypatch.setattr(running, "_INTERVAL", 0.05)


async def told(batch: Batch[Any], count: int) -> tuple[RunningJob, ...]:
    """Wait until so many jobs are told of in the batch's status."""
    async with asyncio.timeout(PATIENCE):
        while len(found := (await batch.status()).slowest) != count:  # noqa: ASYNC110  # nobody tells us
            await asyncio.sleep(0.01)
    return found


@pytest.mark.parametrize("function", [tell, plain_tell, thread_tell])
async def test_progress_is_visible_in_the_status_however_the_job_runs(
    producer: Producer, worker: StartWorker, door: Path, function: Any
) -> None:
    async with worker() as started:
        specs = [function.spec(door, 0.4, "page 4 of 10", key="four", timeout=30)]
        batch = await producer.submit([*specs, square.spec(2)])
        [found] = await told(batch, 1)
        assert found.worker == started.crew.worker_id
        assert (found.job_id, found.key, found.function) == (f"{batch.id}:0", "four", function.name)
        assert (found.attempt, found.limit, found.progress, found.note) == (1, 30, 0.4, "page 4 of 10")
        assert found.elapsed > 0
        door.touch()
        [result] = [result for result in await batch.results() if result.index == 0]
        assert result.started_at == pytest.approx(found.started_at, abs=1e-3)
        assert await told(batch, 0) == ()


async def test_what_says_nothing_is_told_once_it_has_run_for_a_second(
    producer: Producer, worker: StartWorker, redis: Any, door: Path
) -> None:
    async with worker() as started:
        batch = await producer.submit([tell.spec(door), nap.spec(30.0)])
        [silent] = [job for job in await told(batch, 2) if job.function == "nap"]
        assert (silent.progress, silent.note) == (None, "")
        assert silent.elapsed >= 1.0
        assert redis.ttl(keys.running(started.crew.worker_id)) <= keys.WORKER_LIFETIME


async def test_short_jobs_are_not_told_of_and_nothing_is_written(
    producer: Producer, worker: StartWorker, redis: Any
) -> None:
    async with worker() as started:
        batch = await producer.submit(nap.map([0.1] * 5))
        await batch.results()
        assert not redis.exists(keys.running(started.crew.worker_id))
        assert (await batch.status()).slowest == ()


async def test_the_oldest_come_first_and_only_some_are_told(
    producer: Producer, worker: StartWorker, door: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "MOST_TOLD", 7)
    async with worker():
        first = await producer.submit([tell.spec(door, 0.1)])
        await told(first, 1)
        batch = await producer.submit(tell.spec(door, 0.2, str(number)) for number in range(20))
        assert len(await told(batch, 5)) == 5  # of six that are told
        everything = await producer.running()
        assert [job.batch_id for job in everything] == [first.id] + [batch.id] * 6
        assert everything == sorted(everything, key=lambda job: job.started_at)
        assert [job.batch_id for job in await producer.running(first.id)] == [first.id]
        door.touch()


async def test_a_note_is_one_line_and_cut(producer: Producer, worker: StartWorker, door: Path) -> None:
    async with worker():
        batch = await producer.submit([tell.spec(door, 0.5, "two\nlines \x1b[31m" + "x" * 500)])
        [found] = await told(batch, 1)
        assert found.note.startswith("two lines [31mxxx")
        assert len(found.note) <= LONGEST_NOTE
        door.touch()


@job
async def tell_wrongly(progress: Any) -> None:
    current_job().heartbeat(progress=progress)


async def test_a_heartbeat_that_cannot_be_is_the_jobs_failure(producer: Producer, worker: StartWorker) -> None:
    async with worker():
        [result] = await (await producer.submit(tell_wrongly.map([40]))).results()
        assert result.status == "failure"
        assert "heartbeat(progress=40): use a number from 0 to 1" in result.message


@job
async def tell_from_everywhere(door: Path) -> None:
    """Say it from a task and from a thread of the job's own."""
    this = current_job()

    async def in_task() -> None:
        current_job().heartbeat(note="from a task")

    await asyncio.create_task(in_task())
    thread = threading.Thread(target=this.heartbeat, args=(0.5,))
    thread.start()
    while not door.exists():  # noqa: ASYNC110  # nobody tells us
        await asyncio.sleep(0.01)
    thread.join()


async def test_a_jobs_tasks_and_threads_may_speak_for_it(producer: Producer, worker: StartWorker, door: Path) -> None:
    async with worker():
        batch = await producer.submit([tell_from_everywhere.spec(door)])
        [found] = await told(batch, 1)
        assert (found.progress, found.note) == (0.5, "from a task")
        door.touch()


kept: list[Any] = []


@job
async def keep_self() -> None:
    kept.append(current_job())
    current_job().heartbeat(0.5)


async def test_after_its_end_a_job_says_nothing_more(
    producer: Producer, worker: StartWorker, redis: Any, door: Path
) -> None:
    async with worker() as started:
        await (await producer.submit([keep_self.spec()])).results()
        kept.pop().heartbeat(0.9, "still here")
        await until(lambda: not started.crew.runner.reports)
        assert not redis.exists(keys.running(started.crew.worker_id))


@pytest.mark.redis
async def test_what_a_dead_worker_told_lapses(
    producer: Producer, worker_process: StartProcess, redis: Any, door: Path
) -> None:
    process = worker_process()
    batch = await producer.submit([tell.spec(door, 0.4)])
    [found] = await told(batch, 1)
    key, pid = keys.running(found.worker), int(redis.hget(keys.worker(found.worker), "pid"))
    process.kill()
    await until(lambda: not Path(f"/proc/{pid}").exists())  # a worker ends with its supervisor, and takes nothing back
    assert 0 < redis.ttl(key) <= keys.WORKER_LIFETIME
    assert [job.progress for job in await producer.running(batch.id)] == [0.4]
    redis.pexpire(key, 1)
    assert await told(batch, 0) == ()


async def test_a_worker_that_leaves_takes_back_what_it_told(
    producer: Producer, worker: StartWorker, redis: Any, door: Path
) -> None:
    async with worker() as started:
        batch = await producer.submit([tell.spec(door, 0.4)])
        await told(batch, 1)
    assert not redis.exists(keys.running(started.crew.worker_id))


async def test_what_cannot_be_read_is_passed_over(
    producer: Producer, worker: StartWorker, redis: Any, door: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with worker() as started:
        batch = await producer.submit([tell.spec(door, 0.4)])
        await told(batch, 1)
        redis.zadd(keys.workers("default"), {"another": redis.time()[0]})
        redis.set(keys.running("another"), b'[{"batch": 3}]', ex=10)
        assert [job.worker for job in await producer.running()] == [started.crew.worker_id]
        assert keys.running("another") in caplog.text


async def test_a_redis_that_takes_no_word_of_it_harms_no_job(
    producer: Producer, worker: StartWorker, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: Any) -> None:
        raise ResponseError("NOPERM this user has no permissions to access one of the keys")

    monkeypatch.setattr(running.Running, "_tell", refuse)
    async with worker():
        batch = await producer.submit(nap.map([0.2]))
        assert [result.status for result in await batch.results()] == ["success"]
        assert "nobody is told what runs: NOPERM" in caplog.text


async def test_running_of_a_batch_that_is_not_there(producer: Producer) -> None:
    with pytest.raises(BatchNotFoundError):
        await producer.running("no.such")
    assert await producer.running() == []


async def test_the_wire_has_the_agreed_fields(producer: Producer, worker: StartWorker, redis: Any, door: Path) -> None:
    async with worker() as started:
        batch = await producer.submit([tell.spec(door, 0.4, "x")])
        await told(batch, 1)
        [row] = from_json(redis.get(keys.running(started.crew.worker_id)))
        names = {"batch", "index", "key", "function", "attempt", "started_at", "limit", "progress", "note"}
        assert set(row) == names
        door.touch()


async def straggler(url: str, *words: str) -> str:
    """Run the command line; returns what it prints."""
    done = await asyncio.to_thread(commands.straggler, *words, "--redis", url, cwd=ROOT)
    assert done.returncode == 0
    return done.stdout


@pytest.mark.redis
async def test_the_command_line_tells_the_slowest(
    producer: Producer, worker: StartWorker, door: Path, redis_url: str
) -> None:
    async with worker():
        batch = await producer.submit([tell.spec(door, 0.4, "page 4 of 10", key="four"), tell.spec(door, 0.1)])
        await told(batch, 2)
        printed = await straggler(redis_url, "status", batch.id)
        assert re.search(
            r"^slowest +job 0 \(four\), tell: [0-9.]+ m?s of 5 min 0 s, 40 %, page 4 of 10 *$", printed, re.MULTILINE
        )
        assert re.search(r"^ +job 1, tell: [0-9.]+ m?s of 5 min 0 s, 10 % *$", printed, re.MULTILINE)
        as_json = json.loads(await straggler(redis_url, "status", batch.id, "--json"))
        assert [job["progress"] for job in as_json["slowest"]] == [0.4, 0.1]
        door.touch()


BEATS = 100_000


def beat_often(marks: Path) -> None:
    """Leave a mark, wait for the go, beat very often, leave another mark."""
    (marks / "begun").touch()
    while not (marks / "go").exists():
        time.sleep(0.01)
    for number in range(BEATS):
        current_job().heartbeat(number / BEATS, f"beat {number}")
    (marks / "ended").touch()


@job
async def beat_often_on_the_loop(marks: Path) -> None:
    (marks / "begun").touch()
    while not (marks / "go").exists():  # noqa: ASYNC110  # nobody tells us
        await asyncio.sleep(0.01)
    for number in range(BEATS):
        current_job().heartbeat(number / BEATS, f"beat {number}")
        if number % 1000 == 0:
            await asyncio.sleep(0)
    (marks / "ended").touch()


beat_often_in_a_process = job(name="beat_often_in_a_process")(beat_often)
beat_often_in_a_thread = job(name="beat_often_in_a_thread", isolation="thread")(beat_often)
BEATERS = [beat_often_on_the_loop, beat_often_in_a_process, beat_often_in_a_thread]


@pytest.mark.redis
@pytest.mark.parametrize("function", BEATERS)
async def test_no_heartbeat_waits_for_a_redis_that_stands_still(
    producer: Producer, worker: StartWorker, redis_server: RedisServer, tmp_path: Path, function: Any
) -> None:
    async with worker():
        batch = await producer.submit([function.spec(tmp_path)])
        await until((tmp_path / "begun").exists)
        redis_server.pause()
        try:
            (tmp_path / "go").touch()
            await until((tmp_path / "ended").exists)
        finally:
            redis_server.resume()
        assert [result.status for result in await batch.results()] == ["success"]


@pytest.mark.redis
@pytest.mark.parametrize("function", BEATERS)
async def test_heartbeats_send_nothing(
    producer: Producer, worker: StartWorker, redis: Any, tmp_path: Path, function: Any
) -> None:
    (tmp_path / "go").touch()
    async with worker():
        redis.config_resetstat()
        await (await producer.submit([function.spec(tmp_path)])).results()
        commands = sum(row["calls"] for row in redis.info("commandstats").values())
    assert commands < BEATS / 100  # what workers and collectors say all the time


def test_outside_a_job_there_is_nobody_to_beat() -> None:
    with pytest.raises(StragglerError, match="outside a job"):
        current_job().heartbeat()
