"""Fixtures for all tests: a Redis of our own, workers in this process and in others."""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import fakeredis
import hypothesis
import pytest
from redis import Redis

from producer import cutting
from producer.batch import Batch
from producer.producer import Producer
from protocol import connection, keys, memory
from protocol.settings import Settings
from tests.commands import Command, unmeasured
from tests.redis_server import BINARY, RedisServer
from workers.crew import WorkerOptions
from workers.worker import StragglerWorker

pytest_plugins = ["tests.examples", "tests.guards", "tests.turns"]

ROOT = Path(__file__).parent.parent
# What a machine that is busy with other tests may take for what takes a moment, and for a whole test, s.
PATIENCE = 60.0
LONGEST_TEST = 180.0
NO_BINARY = "no redis-server binary on this machine: it needs processes, or what only a real Redis does"


# On a busy machine an example takes its time.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")


def pytest_configure(config: pytest.Config) -> None:
    required = {"REDIS": "redis-server", "CHROMIUM": "chromium", "PROMETHEUS": "prometheus"}
    for variable, name in ((f"REQUIRE_{key}", name) for key, name in required.items()):
        if os.environ.get(variable) == "1" and shutil.which(name) is None:
            raise pytest.UsageError(f"{variable}=1, but there is no {name} binary on this machine")
    # A shell lets what it starts in the background ignore Ctrl-C; so would all that the tests start, and wait for.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header(config: pytest.Config) -> str:
    redis = BINARY or "NO redis-server binary; fakeredis where it will do, others skipped"
    others = [shutil.which(name) or f"NO {name}; its tests are skipped" for name in ("chromium", "prometheus")]
    return f"redis: {redis}, browser: {others[0]}, prometheus: {others[1]}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if BINARY is None and "redis" in item.keywords:
            item.add_marker(pytest.mark.skip(reason=NO_BINARY))
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
            item.obj = bounded(item.obj)


def bounded(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., Coroutine[Any, Any, None]]:
    """Fail a test that waits for ever, rather than wait with it."""

    @functools.wraps(test)
    async def run(*args: Any, **kwargs: Any) -> None:
        async with asyncio.timeout(LONGEST_TEST):
            await test(*args, **kwargs)

    return run


# ---- Redis


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer | None]:
    """Start the session's one server, where there is a binary."""
    if BINARY is None:
        yield None
        return
    server = RedisServer().start()
    yield server
    server.stop()


@pytest.fixture
def redis_url(redis_server: RedisServer | None) -> Iterator[str]:
    """Give the URL of an empty Redis; at the end, every key in it must have a lifetime."""
    url = redis_server.url if redis_server else f"memory://{uuid4().hex}"
    with blocking_client(url) as client:
        if redis_server is not None:
            # A claim of a worker that the last test has killed may still wait in Redis: it would take this test's jobs.
            client.client_kill_filter(_type="normal", skipme=True)
        client.flushall()
        yield url
        immortal = [key for key in client.scan_iter(count=1000) if client.ttl(key) == -1]
    memory.forget(url)
    assert not immortal, f"keys without a lifetime: {immortal}"


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """Start a server of the test's own, which may be killed: what it has said is written is on the disk."""
    server = RedisServer("--appendonly", "yes", "--appendfsync", "always").start()
    yield server
    server.stop()


@pytest.fixture
def redis(redis_url: str) -> Iterator[Any]:
    """Look into the test's Redis from outside, with a blocking client (Any, as its types know no blocking)."""
    with blocking_client(redis_url) as client:
        yield client


@contextmanager
def blocking_client(url: str) -> Iterator[Redis]:
    is_memory = url.startswith("memory:")
    client = fakeredis.FakeRedis(server=memory.server(url)) if is_memory else Redis.from_url(url)
    with client:
        yield client


# ---- producers and workers


@pytest.fixture(autouse=True, scope="session")
def streams_are_not_hurried() -> Iterator[None]:
    """Let a stream's jobs travel as one chunk, as many tests want it, though the machine stands still in between."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cutting, "LONGEST_WAIT", PATIENCE)
        yield


StartWorker = Callable[..., AbstractAsyncContextManager[StragglerWorker]]


@pytest.fixture
async def producer(redis_url: str) -> AsyncIterator[Producer]:
    """Give a producer on the test's Redis."""
    async with Producer(redis_url, settings=Settings()) as producer:
        yield producer


@pytest.fixture
def worker(redis_url: str) -> StartWorker:
    """Start workers on this event loop, as an async context; takes a URL and what `WorkerOptions` takes."""

    @asynccontextmanager
    async def start(url: str = redis_url, **options: Any) -> AsyncIterator[StragglerWorker]:
        made = WorkerOptions(**{"shutdown_wait": 0.0, **options})
        worker = StragglerWorker(connection.connect(url), made, handle_signals=False)
        running = asyncio.create_task(worker.main(), name="worker-of-a-test")
        try:
            await until(lambda: running.done() or hasattr(worker, "crew"))
            yield worker
        finally:
            worker.stop()
            await asyncio.wait({running}, timeout=PATIENCE)
            await worker.close()
            running.result()

    return start


class WorkerProcess:
    """A worker in a process of its own.

    Args:
        command: What starts it; a command of `straggler` is one of `tests.commands`.
        environment: Its environment.
        log: Where its output goes.
    """

    def __init__(self, command: list[str], environment: dict[str, str], log: Path) -> None:
        self.log = log
        with log.open("ab") as output:
            start: Any = Command if command[0] == "straggler" else subprocess.Popen
            words = command[1:] if start is Command else [command]
            self.process: subprocess.Popen[Any] = start(
                *words, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def output(self) -> str:
        return self.log.read_text()

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL, and wait for the end."""
        self.process.kill()
        self.process.wait()

    def wait(self, timeout: float = PATIENCE) -> int:
        """Wait for its end and return the exit code."""
        return self.process.wait(timeout)

    def wait_for_output(self, text: str, timeout: float = PATIENCE) -> None:
        """Wait until its output holds a text."""
        deadline = time.monotonic() + timeout
        while text not in self.output:
            assert self.process.poll() is None, f"the worker has ended:\n{self.output}"
            assert time.monotonic() < deadline, f"no {text!r} in:\n{self.output}"
            time.sleep(0.01)


StartProcess = Callable[..., WorkerProcess]

_WORKER = ["straggler", "worker"]


@pytest.fixture
def worker_process(redis_url: str, tmp_path: Path) -> Iterator[StartProcess]:
    """Start workers as processes: `worker_process("tests.jobs", concurrency=10)`, options as the settings' names.

    Returns once the worker takes jobs. `command` starts another program with the same settings, and is measured; what a
    worker does otherwise, tests see that run it in this process.
    """
    started: list[WorkerProcess] = []

    def start(
        jobs: str = "tests.jobs", command: list[str] | None = None, ready: str = "takes jobs from", **settings: Any
    ) -> WorkerProcess:
        given = {"redis_url": redis_url, "jobs": jobs, **settings}
        environment = {f"STRAGGLER_{name.upper()}": str(value) for name, value in given.items()}
        log = tmp_path / f"worker-{len(started)}.log"
        inherited = os.environ if command else unmeasured()
        process = WorkerProcess(command or _WORKER, {**inherited, **environment}, log)
        started.append(process)
        if ready:
            process.wait_for_output(ready)
        return process

    yield start
    for process in started:
        if process.process.poll() is None:
            process.kill()


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Path]:
    """Name a file that lets jobs go on (`wait_for_file`) once it is there."""
    path = tmp_path / "door"
    yield path
    path.touch()


async def until(condition: Callable[[], Any], timeout: float = PATIENCE) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(timeout):
        while not condition():  # noqa: ASYNC110  # nobody tells us
            await asyncio.sleep(0.005)


async def until_running(batch: Batch[Any], count: int) -> None:
    """Wait until so many of a batch's jobs are with a worker."""
    async with asyncio.timeout(PATIENCE):
        while (await batch.status()).running < count:  # noqa: ASYNC110  # nobody tells us
            await asyncio.sleep(0.005)


def keep_whole(redis: Any, batch: Batch[Any]) -> None:
    """Join a batch's jobs as no producer does, so that no claim cuts its chunks, however large."""
    for first, jobs in redis.hgetall(keys.chunks(batch.id)).items():
        redis.hset(keys.chunks(batch.id), first, jobs.replace(b",\n", b","))
