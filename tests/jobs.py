"""Jobs for tests, importable by worker processes as `tests.jobs`."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from straggler import BatchStatus, current_job, job


@job
async def echo(value: object) -> object:
    return value


@job
async def square(number: int) -> int:
    return number * number


@job
async def nap(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds


@job
async def hang() -> None:
    await asyncio.Event().wait()


@job
async def fail(message: str) -> None:
    raise ValueError(message)


@job
async def stubborn(seconds: float) -> None:
    """Ignore every cancellation for this long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            await asyncio.sleep(end - time.monotonic())
        except asyncio.CancelledError:
            continue


@job
def plain_square(number: int) -> int:
    return number * number


@job
async def append_line(path: Path, line: str, seconds: float = 0.0) -> int:
    """Leave a trace of each run: process id, attempt and the line; then sleep."""
    with path.open("a") as file:
        file.write(f"{os.getpid()} {current_job().attempt} {line}\n")
    await asyncio.sleep(seconds)
    return os.getpid()


@job
async def run_until_open(trace: Path, door: Path) -> int:
    """Leave the job's index as a trace, then run until the door is open; returns the attempt."""
    with trace.open("a") as file:
        file.write(f"{current_job().index}\n")
    while not door.exists():  # noqa: ASYNC110  # nobody tells us
        await asyncio.sleep(0.01)
    return current_job().attempt


@job
async def append_and_wait(path: Path, line: str, door: Path) -> int:
    """Leave the trace of `append_line`, then run until the door is open."""
    await append_line(path, line)
    while not door.exists():  # noqa: ASYNC110  # nobody tells us
        await asyncio.sleep(0.01)
    return os.getpid()


@job
async def tell(door: Path, progress: float | None = None, note: str = "") -> None:
    """Say how far it is, then run until the door is open."""
    current_job().heartbeat(progress, note)
    while not door.exists():  # noqa: ASYNC110  # nobody tells us
        await asyncio.sleep(0.01)


@job
def plain_tell(door: Path, progress: float | None = None, note: str = "") -> None:
    current_job().heartbeat(progress, note)
    while not door.exists():
        time.sleep(0.01)


@job(isolation="thread")
def thread_tell(door: Path, progress: float | None = None, note: str = "") -> None:
    current_job().heartbeat(progress, note)
    while not door.exists():
        time.sleep(0.01)


@job
async def wait_for_file(path: Path) -> int:
    """Run until the file is there."""
    while not path.exists():  # noqa: ASYNC110  # nobody tells us
        await asyncio.sleep(0.01)
    return os.getpid()


@job
async def tell_end(status: BatchStatus) -> str:
    return f"{status.batch_id}: {status.success} of {status.total}"


@job(retries=2, backoff=0.01)
async def report(path: Path, status: BatchStatus, seconds: float = 0.0) -> dict[str, int]:
    """Leave a trace of each run; then tell what a batch has ended in."""
    with path.open("a") as file:
        file.write(f"{os.getpid()} {current_job().attempt} {status.batch_id}\n")
    await asyncio.sleep(seconds)
    return {"total": status.total, "done": status.done, "success": status.success, "timeout": status.timeout}
