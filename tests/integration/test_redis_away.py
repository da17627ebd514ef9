"""Redis goes away in the middle of a batch, in every way that it can: all wait for it, and every job has one result."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from producer.batch import Batch
from producer.producer import Producer
from protocol import keys
from protocol.jobs import JobSpec
from protocol.settings import Settings
from straggler import job
from tests.conftest import PATIENCE, StartProcess, StartWorker, WorkerProcess, until, until_running
from tests.jobs import nap, wait_for_file
from tests.redis_server import RedisServer

pytestmark = pytest.mark.redis

# What every write reaches the disk for, and what a test may do to a server.
ARGUMENTS = ("--appendonly", "yes", "--appendfsync", "always", "--enable-debug-command", "yes")

AWAY, BACK = "Redis is away", "Redis is back"

# An outage that is said lasts longer than this, s.
LONG_ENOUGH = 1.0


@pytest.fixture
def server() -> Iterator[RedisServer]:
    server = RedisServer(*ARGUMENTS).start()
    yield server
    server.stop()


@pytest.fixture
def redis_url(server: RedisServer) -> str:
    """Let producers and workers of a test work with its own server."""
    return server.url


# ---- what may happen to a Redis


async def restart_in_order(server: RedisServer) -> None:
    server.shut_down()
    await asyncio.sleep(LONG_ENOUGH)
    await asyncio.to_thread(server.start)


async def restart_after_a_crash(server: RedisServer) -> None:
    server.kill()
    await asyncio.sleep(LONG_ENOUGH)
    await asyncio.to_thread(server.start)


async def restart_with_much_to_load(server: RedisServer) -> None:
    with server.client() as client, client.pipeline(transaction=False) as pipe:
        for number in range(3000):
            pipe.set(f"ballast-{number}", "x", px=600_000)
        pipe.execute()
    server.kill()
    await asyncio.to_thread(server.start, "--key-load-delay", "500")  # microseconds a key


async def kill_clients(server: RedisServer) -> None:
    for _ in range(5):
        with server.client() as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await asyncio.sleep(0.1)


async def sleep(server: RedisServer) -> None:
    with server.client() as client:
        await asyncio.to_thread(client.execute_command, "DEBUG", "SLEEP", "2")


async def stand_still(server: RedisServer) -> None:
    server.pause()
    await asyncio.sleep(8)  # longer than a reply is waited for
    server.resume()


async def run_out_of_memory(server: RedisServer) -> None:
    with server.client() as client:
        client.config_set("maxmemory", 1)
        await asyncio.sleep(LONG_ENOUGH)
        client.config_set("maxmemory", 0)


async def become_a_replica(server: RedisServer) -> None:
    with server.client() as client:
        client.execute_command("REPLICAOF", "127.0.0.1", "1")
        await asyncio.sleep(LONG_ENOUGH)
        client.execute_command("REPLICAOF", "NO", "ONE")


async def forget_scripts(server: RedisServer) -> None:
    for _ in range(20):
        with server.client() as client:
            client.script_flush()
        await asyncio.sleep(0.02)


# Whether a fault lasts long enough to be said by who has something to write; None: that depends on the machine.
FAULTS: dict[Callable[[RedisServer], Awaitable[None]], bool | None] = {
    restart_in_order: True,
    restart_after_a_crash: True,
    restart_with_much_to_load: True,
    kill_clients: False,
    sleep: False,
    stand_still: True,
    run_out_of_memory: None,  # a busy machine may have nothing to write meanwhile
    become_a_replica: None,
    forget_scripts: False,
}


# ---- a batch in the middle of it


class Producing:
    """A batch that is being submitted and collected at once, by a producer of this process."""

    def __init__(self, producer: Producer) -> None:
        self.over = asyncio.Event()
        self.sent = 0
        self.results: list[Any] = []
        self._producer = producer
        self._submitting = asyncio.create_task(producer.submit(self._jobs(), batch_id="b"))
        self._collecting = asyncio.create_task(self._collect())

    async def _jobs(self) -> AsyncIterator[JobSpec[float]]:
        while not self.over.is_set():
            for _ in range(10):
                yield nap.spec(0.01)
                self.sent += 1
            await asyncio.sleep(0.1)  # a pause sends what there is

    async def _collect(self) -> None:
        while not await self._producer.redis.exists(keys.batch("b")):  # noqa: ASYNC110  # nobody tells us
            await asyncio.sleep(0.01)
        batch = await self._producer.attach("b")
        async for result in batch.as_completed():
            self.results.append(result)

    async def end(self) -> Batch[Any]:
        """Submit no more, and collect to the end."""
        self.over.set()
        async with asyncio.timeout(PATIENCE):
            await self._collecting
            return await self._submitting


def assert_complete(results: list[Any], count: int) -> None:
    """Assert that each job has succeeded once."""
    assert sorted(result.index for result in results) == list(range(count))
    assert Counter(result.status for result in results) == {"success": count}


def assert_said(text: str, *, is_said: bool | None) -> None:
    """Assert that an outage and its end are in a log, once each; None: that they may be."""
    counts = text.count(AWAY), text.count(BACK)
    assert counts[0] == counts[1] <= 1, text
    assert is_said is None or counts[0] == int(is_said), text


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
async def test_a_batch_is_submitted_run_and_collected_past_an_outage(
    fault: Callable[[RedisServer], Awaitable[None]],
    server: RedisServer,
    worker_process: StartProcess,
    caplog: pytest.LogCaptureFixture,
) -> None:
    worker = worker_process(concurrency=8)
    async with Producer(server.url, settings=Settings()) as producer:
        producing = Producing(producer)
        await until(lambda: len(producing.results) > 20)
        asking = asyncio.create_task(_ask(producer, producing.over))
        await fault(server)
        batch = await producing.end()
        await asking
        status = await batch.status()
        assert (status.total, status.success) == (producing.sent, producing.sent)
        assert_complete(producing.results, producing.sent)
    assert_said(caplog.text, is_said=FAULTS[fault])
    assert_said(worker.output, is_said=FAULTS[fault])
    assert_alive(worker)


async def _ask(producer: Producer, over: asyncio.Event) -> None:
    """Be somebody who wants to know how the batch is getting on."""
    while not over.is_set():
        await (await producer.attach("b")).status()
        assert [status.batch_id for status in await producer.batches()] == ["b"]
        await asyncio.sleep(0.02)


def assert_alive(worker: WorkerProcess) -> None:
    assert worker.process.poll() is None
    assert "worker process" not in worker.output, "a process died"
    assert "Traceback" not in worker.output


async def test_an_outage_longer_than_the_leases_costs_no_result(
    server: RedisServer, worker_process: StartProcess
) -> None:
    worker = worker_process(concurrency=8, lease=1)
    async with Producer(server.url, settings=Settings()) as producer:
        producing = Producing(producer)
        await until(lambda: len(producing.results) > 20)
        server.kill()
        await asyncio.sleep(4)
        await asyncio.to_thread(server.start)
        await producing.end()
        assert_complete(producing.results, producing.sent)
    assert_alive(worker)


async def test_a_process_that_dies_while_redis_is_away_is_replaced_and_its_job_runs_again(
    server: RedisServer, worker_process: StartProcess, door: Path
) -> None:
    worker = worker_process(concurrency=8)
    async with Producer(server.url, settings=Settings()) as producer:
        batch = await producer.submit([wait_for_file.spec(door) for _ in range(4)])
        await until_running(batch, 4)
        [worker_id] = await producer.workers()
        pid = int(await producer.redis.hget(keys.worker(worker_id), "pid") or 0)  # type: ignore[misc]
        server.kill()
        os.kill(pid, signal.SIGKILL)
        await until(lambda: worker.output.count("takes jobs from") == 2)
        await until(lambda: worker.output.count(AWAY) == 2)  # the supervisor, and the new process
        await asyncio.to_thread(server.start)
        door.touch()
        async with asyncio.timeout(PATIENCE):
            assert_complete(await batch.results(), 4)
    await until(lambda: worker.output.count(BACK) == 2)
    assert worker.process.poll() is None
    assert worker.output.count("worker process") == 1, "the new one waits for Redis"


# ---- results that wait


async def test_results_that_wait_for_redis_are_bounded_and_hold_up_new_jobs(
    server: RedisServer, worker: StartWorker
) -> None:
    runs: list[int] = []
    away = asyncio.Event()

    @job
    async def run(number: int) -> int:
        await away.wait()
        runs.append(number)
        return number

    async with worker(concurrency=2) as started, Producer(server.url, settings=Settings()) as producer:
        recorder = started.crew.recorder
        recorder._limit = 4
        recorder._look()
        started.crew.slots.ahead = 100  # it holds jobs that have not started, as the embedded mode's worker does
        batch = await producer.submit(run.map(range(100)))
        await until(lambda: started.crew.slots.used + started.crew.slots.waiting == 100)
        server.kill()
        away.set()
        await until(lambda: recorder.is_full)
        await until(lambda: not started.crew.slots.used)
        held = len(runs)
        await asyncio.sleep(LONG_ENOUGH)
        assert 4 <= len(runs) == held <= 6, "the limit, and what ran as it was reached"
        await asyncio.to_thread(server.start)
        async with asyncio.timeout(PATIENCE):
            assert_complete(await batch.results(), 100)
    assert sorted(runs) == list(range(100)), "what was held was not run again"


# ---- leaving while Redis is away


async def leave_while_away(worker: WorkerProcess, signals: int) -> None:
    await until(lambda: AWAY in worker.output)
    for _ in range(signals):
        worker.terminate()
        await asyncio.sleep(0.2)  # two signals at once are one, to a process
    assert await asyncio.to_thread(worker.wait, PATIENCE) == 0, worker.output
    assert "Traceback" not in worker.output


@pytest.mark.parametrize("way", [RedisServer.kill, RedisServer.pause], ids=["killed", "paused"])
@pytest.mark.parametrize(("signals", "shutdown_wait"), [(1, 0.5), (2, 600)], ids=["in time", "hurried"])
async def test_a_worker_that_is_told_to_stop_while_redis_is_away_leaves(
    server: RedisServer,
    worker_process: StartProcess,
    tmp_path: Path,
    door: Path,
    way: Callable[[RedisServer], None],
    signals: int,
    shutdown_wait: float,
) -> None:
    worker = worker_process(concurrency=8, shutdown_wait=shutdown_wait, lease=2)
    async with Producer(server.url, settings=Settings()) as producer:
        first_door = tmp_path / "first-door"
        jobs = [*(wait_for_file.spec(first_door) for _ in range(4)), wait_for_file.spec(door)]
        # Four have ended then and the fifth stops at once: nobody waits for a grace that nobody needs.
        batch = await producer.submit(jobs, batch_id="b", grace=600)
        await until_running(batch, 5)
        way(server)
        first_door.touch()
        await leave_while_away(worker, signals)
        assert "4 results could not be recorded: their jobs run again" in worker.output
        await asyncio.to_thread(server.start) if way is RedisServer.kill else server.resume()
        door.touch()
        worker_process(concurrency=8)
        async with asyncio.timeout(PATIENCE):
            assert_complete(await (await producer.attach("b")).results(), 5)


async def test_an_idle_worker_that_is_told_to_stop_while_redis_is_away_leaves(
    server: RedisServer, worker_process: StartProcess
) -> None:
    worker = worker_process()
    server.kill()
    await leave_while_away(worker, 1)
