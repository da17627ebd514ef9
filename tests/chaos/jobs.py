"""The jobs of chaos: one for each kind of `plan.KINDS`. Each writes into the journal as it starts and as it ends."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from straggler import current_job, job
from tests.chaos import journal

_numbers = itertools.count()


class PlannedError(Exception):
    """What a job raises that is to fail."""


@contextmanager
def journaled(*, in_process_of_its_own: bool = False) -> Iterator[str]:
    """Write down this run; yields its id, which is the value to return."""
    me = current_job()
    run_id = f"{os.getpid()}.{time.monotonic_ns()}.{next(_numbers)}"
    worker = os.getppid() if in_process_of_its_own else os.getpid()
    node = os.environ.get(journal.NODE, "")
    journal.append("start", run_id, me.batch_id, me.index, me.attempt, worker, node, time.time())
    try:
        yield run_id
    except BaseException as error:
        journal.append("end", run_id, time.time(), "raised", f"{type(error).__name__}: {error}"[:200])
        raise
    journal.append("end", run_id, time.time(), "returned", run_id)


async def _sleep(seconds: float) -> str:
    with journaled() as value:
        await asyncio.sleep(seconds)
        return value


# Of different names, as they take different times: by these a function is known.
@job
async def nap(seconds: float) -> str:
    return await _sleep(seconds)


@job
async def doze(seconds: float) -> str:
    return await _sleep(seconds)


@job
async def linger(seconds: float) -> str:
    return await _sleep(seconds)


@job
async def stay(seconds: float) -> str:
    return await _sleep(seconds)


@job
async def hang(seconds: float) -> str:
    return await _sleep(seconds)


@job
async def swallow(seconds: float) -> str:
    """Ignore every cancellation."""
    with journaled() as value:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            try:
                await asyncio.sleep(left)
            except asyncio.CancelledError:
                continue
        return value


@job
async def fail(seconds: float) -> str:
    with journaled() as value:
        await asyncio.sleep(seconds)
        raise PlannedError(f"as planned in run {value}")


@job
def compute(seconds: float) -> str:
    with journaled(in_process_of_its_own=True) as value:
        time.sleep(seconds)
        return value


@job
def stick(seconds: float) -> str:
    with journaled(in_process_of_its_own=True) as value:
        time.sleep(seconds)
        return value


@job
async def block(seconds: float) -> str:
    with journaled() as value:
        time.sleep(seconds)
        return value


@job
async def spin(seconds: float) -> str:
    with journaled() as value:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pass
        return value


@job
async def die(seconds: float) -> str:
    """End the worker, each time."""
    with journaled() as value:
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(seconds)
        return value


@job
async def die_once(seconds: float) -> str:
    """End the worker in the first run."""
    me = current_job()
    trace = Path(os.environ[journal.FOLDER]) / "died" / me.job_id.replace(":", "-")
    with journaled() as value:
        if not trace.exists():
            trace.parent.mkdir(exist_ok=True)
            trace.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(seconds)
        return value


@job
async def fail_at_first(seconds: float) -> str:
    """Fail the first attempt, every other one the second too."""
    me = current_job()
    with journaled() as value:
        await asyncio.sleep(seconds)
        if me.attempt <= 1 + me.index % 2:
            raise PlannedError(f"as planned in run {value}")
        return value
