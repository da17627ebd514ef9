"""A worker, Redis or the batch goes in the very middle of a give-back: each job has one result, none runs twice for it.

The worker that gives back is a process of its own, and reaches Redis by a tap that holds the script: before Redis has
it, or before its reply is heard.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from producer.batch import Batch
from producer.producer import Producer
from protocol import keys, lua
from protocol.errors import BatchLostError
from tests.conftest import PATIENCE, StartProcess, StartWorker, WorkerProcess, until
from tests.integration.test_redis_away import restart_after_a_crash
from tests.jobs import run_until_open
from tests.redis_server import RedisServer
from tests.tap import Tap
from workers.worker import StragglerWorker

pytestmark = pytest.mark.redis

COUNT = 30
LEASE = 2.0

# Which give-back is held, and when. Of the first chunk a job or two have started, so it is cut; the last goes back
# whole.
MOMENTS = {
    "before Redis cuts a chunk": ("b:0", True),
    "before the cut is known": ("b:0", False),
    "before Redis takes a chunk back": ("b:20", True),
    "before that is known": ("b:20", False),
}
BEFORE_CUT, AFTER_CUT, BEFORE_WHOLE, AFTER_WHOLE = MOMENTS


def at(*moments: str) -> pytest.MarkDecorator:
    """Let a test happen at each of these moments."""
    return pytest.mark.parametrize(
        ("chunk", "before"), [pytest.param(*MOMENTS[moment], id=moment) for moment in moments]
    )


@pytest.fixture
def redis_url(server: RedisServer) -> str:
    """Let producers and workers of a test work with its own server."""
    return server.url


@pytest.fixture
async def tap(server: RedisServer, chunk: str, before: bool) -> AsyncIterator[Tap]:
    async with Tap(server.socket, "giveback", chunk, before=before) as tap:
        yield tap


@dataclass
class Scene:
    """A worker in the middle of a give-back, and another one that is there for what comes of it."""

    server: RedisServer
    redis: Any
    tap: Tap
    batch: Batch[Any]
    door: Path
    trace: Path
    first: WorkerProcess
    second: StragglerWorker
    pid: int

    def runs(self) -> Counter[int]:
        """Count how often each job has been started."""
        return Counter(map(int, self.trace.read_text().split()))

    async def assert_complete(self, *, stopped: int = 0, burnt: bool = False) -> None:
        """Let all jobs end; each is to have run once, but for those that were at work in a worker that was stopped."""
        await until(lambda: len(self.runs()) == COUNT)
        status = await self.batch.status()
        assert (status.queued, status.running) == (0, COUNT)
        self.door.touch()
        async with asyncio.timeout(PATIENCE):
            results = await self.batch.results()
        assert [result.index for result in results] == list(range(COUNT))
        assert {result.status for result in results} == {"success"}
        await self.assert_nothing_left()
        again = {index for index, count in self.runs().items() if count > 1}
        assert len(again) <= stopped, "none runs twice because of the give-back"
        assert {result.index for result in results if result.attempt > 1} <= (again if burnt else set())

    async def assert_nothing_left(self) -> None:
        """Wait until queue, leases and chunks are gone, and see that the batch is over."""
        await until(lambda: not self.left())
        status = await self.batch.status()
        assert (status.done, status.queued, status.running) == (COUNT, 0, 0)

    def left(self) -> set[str]:
        """Name what is left of queue, leases and chunks."""
        batch = keys.holders("b"), keys.chunks("b")
        patterns = "arq:in-progress:*", "arq:job:*", "arq:retry:*", keys.queue("*"), keys.leases("*"), *batch
        return {key.decode() for pattern in patterns for key in self.redis.keys(pattern)}


@pytest.fixture
async def scene(
    server: RedisServer,
    redis: Any,
    tap: Tap,
    producer: Producer,
    worker: StartWorker,
    worker_process: StartProcess,
    door: Path,
    tmp_path: Path,
) -> AsyncIterator[Scene]:
    trace = tmp_path / "trace"
    redis.script_load(lua.source("giveback"))  # else what is held is the reply that Redis does not know it
    batch: Batch[Any] = await producer.submit(run_until_open.starmap([(trace, door)] * COUNT), batch_id="b", grace=0.5)
    # In a thread: the tap carries its bytes on this loop.
    options = {"concurrency": 2, "lease": LEASE, "shutdown_wait": 0.2, "redis_url": tap.url}
    first = await asyncio.to_thread(worker_process, "tests.hoarding,tests.jobs", **options)
    await until(trace.exists)
    [worker_id] = redis.zrange(keys.workers("default"), 0, -1)
    pid = int(redis.hget(keys.worker(worker_id.decode()), "pid"))
    async with worker(concurrency=40, lease=LEASE) as second:
        async with asyncio.timeout(PATIENCE):
            await tap.is_there.wait()
        scene = Scene(server, redis, tap, batch, door, trace, first, second, pid)
        await until(lambda: has_started_all(second, redis) and second.crew.slots.used + 2 == len(scene.runs()))
        yield scene


def has_started_all(worker: StragglerWorker, redis: Any) -> bool:
    """Whether nothing is due, and a worker runs all that it has leased."""
    if redis.zcount(keys.queue("default"), 0, time.time() * 1000):
        return False
    leases = {key for key in redis.keys("arq:in-progress:*") if redis.get(key) == worker.crew.worker_id.encode()}
    chunks = worker.crew.chunks.values()
    return len(leases) == len(chunks) and sum(chunk.payload.count for chunk in chunks) == worker.crew.slots.used


@at(BEFORE_CUT, AFTER_CUT, BEFORE_WHOLE, AFTER_WHOLE)
async def test_a_worker_that_is_killed(scene: Scene) -> None:
    os.kill(scene.pid, signal.SIGKILL)
    scene.tap.open()  # what it sent arrives after its death
    await scene.assert_complete(stopped=2, burnt=True)


@at(AFTER_CUT, AFTER_WHOLE)
async def test_a_worker_that_is_killed_with_its_supervisor(scene: Scene) -> None:
    os.kill(scene.first.pid, signal.SIGKILL)
    os.kill(scene.pid, signal.SIGKILL)
    scene.tap.lose()
    await scene.assert_complete(stopped=2)


@at(BEFORE_CUT, AFTER_CUT, BEFORE_WHOLE, AFTER_WHOLE)
@pytest.mark.parametrize("hears", [True, False], ids=["in time", "too late"])
async def test_a_worker_that_is_told_to_stop(scene: Scene, hears: bool) -> None:
    scene.first.terminate()
    await until(lambda: "worker stops" in scene.first.output)
    if hears:
        scene.tap.open()
    assert await asyncio.to_thread(scene.first.wait) == 0
    scene.tap.open()
    await scene.assert_complete(stopped=2)
    assert "Traceback" not in scene.first.output


@at(AFTER_CUT, BEFORE_WHOLE)
async def test_a_worker_that_stands_still_until_its_leases_have_lapsed(scene: Scene) -> None:
    os.kill(scene.pid, signal.SIGSTOP)
    try:
        await until(lambda: len(scene.runs()) == COUNT)
        scene.tap.open()
        await scene.tap.passed.wait()
    finally:
        os.kill(scene.pid, signal.SIGCONT)
    await scene.assert_complete(stopped=2)


@at(AFTER_CUT, AFTER_WHOLE)
async def test_a_script_that_arrives_twice_as_its_reply_was_lost(scene: Scene) -> None:
    scene.tap.lose()
    await until(lambda: scene.tap.calls >= 2)
    await scene.assert_complete()


@at(BEFORE_CUT, BEFORE_WHOLE)
async def test_a_script_that_arrives_late_when_it_has_been_sent_again(scene: Scene) -> None:
    await until(lambda: scene.tap.calls >= 2)  # nobody waits for a reply for longer than 6 s
    await until(lambda: len(scene.runs()) == COUNT)
    scene.tap.open()
    await scene.assert_complete()


async def pause(server: RedisServer) -> None:
    server.pause()
    await asyncio.sleep(1.0)
    server.resume()


@at(BEFORE_CUT, AFTER_CUT, BEFORE_WHOLE, AFTER_WHOLE)
@pytest.mark.parametrize("outage", [restart_after_a_crash, pause], ids=lambda outage: outage.__name__)
async def test_a_redis_that_is_away(scene: Scene, outage: Callable[[RedisServer], Coroutine[Any, Any, None]]) -> None:
    going = asyncio.create_task(outage(scene.server))
    await asyncio.sleep(0.1)  # what is held arrives in the middle of it, or never
    scene.tap.open()
    await going
    await scene.assert_complete(stopped=2)  # of a worker that has lost its leases, as the machine is slow


@at(BEFORE_CUT, BEFORE_WHOLE)
async def test_a_redis_that_is_restarted_without_its_last_writes(scene: Scene) -> None:
    scene.server.remember()
    scene.tap.open()
    await until(lambda: len(scene.runs()) == COUNT)
    await asyncio.to_thread(scene.server.forget)
    # What it was given is in no lease any more: it stops, and stands in the first worker's chunk again.
    await until(lambda: scene.second.crew.leases.lost)
    scene.door.touch()
    async with asyncio.timeout(PATIENCE):
        results = await scene.batch.results()
    assert [result.index for result in results] == list(range(COUNT))
    assert {(result.status, result.attempt) for result in results} == {("success", 1)}
    scene.redis.delete(keys.chunks("b"))  # what did not run as a whole stays for a redrive
    await scene.assert_nothing_left()


@at(BEFORE_CUT, AFTER_WHOLE)
@pytest.mark.parametrize("indexes", [[1, 5, 25], None], ids=["some", "all"])
async def test_jobs_that_are_cancelled(scene: Scene, indexes: list[int] | None) -> None:
    await scene.batch.cancel(indexes, reason="no more")
    scene.tap.open()
    if indexes is not None:
        await until(lambda: len(scene.runs()) >= COUNT - len(indexes))
        scene.door.touch()
    async with asyncio.timeout(PATIENCE):
        results = await scene.batch.results()
    assert [result.index for result in results] == list(range(COUNT))
    cancelled = [result.index for result in results if result.status == "cancelled"]
    assert cancelled == (list(range(COUNT)) if indexes is None else indexes)
    assert {result.attempt for result in results} == {1}
    assert set(scene.runs().values()) == {1}
    scene.redis.delete(keys.chunks("b"))  # what did not succeed stays for a redrive
    await scene.assert_nothing_left()


@at(BEFORE_CUT, AFTER_WHOLE)
async def test_a_batch_that_is_deleted(scene: Scene) -> None:
    before = scene.runs()
    await scene.batch.delete()
    scene.tap.open()
    await until(lambda: not scene.left())
    assert scene.runs() == before, "nothing starts any more"
    with pytest.raises(BatchLostError):
        await scene.batch.status()
    assert "Traceback" not in scene.first.output
