"""Guards: a test that leaves tasks, processes or jobs behind fails."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from protocol import signatures
from tests.redis_server import RedisServer
from workers import registry


def pytest_collection_finish() -> None:
    """Let the garbage collector pass over all that was imported: each of its rounds takes 0.1 s otherwise."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
async def no_leaked_tasks() -> AsyncIterator[None]:
    """Fail a test that leaves asyncio tasks behind."""
    before = asyncio.all_tasks()
    yield
    for _ in range(10):  # what was cancelled needs a step or two to end
        left = {task for task in asyncio.all_tasks() - before if not _is_fakeredis(task)} - {asyncio.current_task()}
        if not left:
            break
        await asyncio.sleep(0.001)
    for task in left:
        task.cancel()
    assert not left, f"tasks left behind: {left}"


def _is_fakeredis(task: asyncio.Task[Any]) -> bool:
    # fakeredis 2.40 lets a blocking call whose client is gone wait out its time, in a task of its own.
    return "AsyncFakeSocket" in repr(task.get_coro())


@pytest.fixture(autouse=True)
def no_leaked_processes(redis_server: RedisServer | None) -> Iterator[None]:
    """Fail a test that leaves child processes behind."""
    before = _children()
    yield
    left = _children() - before
    assert not left, f"processes left behind: {left}"


@pytest.fixture(autouse=True)
def no_leaked_jobs() -> Iterator[None]:
    """Forget the jobs that a test has defined inside itself, so that others may use their names."""
    yield
    for name, job in list(registry._jobs.items()):
        if "<locals>" in job.function.__qualname__:
            del registry._jobs[name]
            signatures._known.pop(name, None)


@pytest.fixture
def no_warnings_at_collection() -> Iterator[None]:
    """Fail a test whose garbage warns, e.g. of a coroutine that was never awaited."""
    yield
    gc.collect()


def _children() -> set[str]:
    """Name our child processes, and those of who starts commands for us, as `/proc` knows them, if there is one."""
    found = set()
    for pid, name in _children_of("self"):
        if "tests.starter" in name:
            found |= {f"{command} straggler {name}" for command, name in _children_of(pid)}
        elif "resource_tracker" not in name:  # multiprocessing's own, one for the whole session
            found.add(f"{pid} {name}")
    return found


def _children_of(pid: str) -> Iterator[tuple[str, str]]:
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            pids = task.read_text().split()
        except (FileNotFoundError, ProcessLookupError):  # a thread that has just ended
            continue
        for child in pids:
            command = Path(f"/proc/{child}/cmdline")
            yield child, command.read_bytes().replace(b"\0", b" ").decode(errors="replace") if command.exists() else ""
