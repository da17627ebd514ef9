"""The zoo: jobs that misbehave, each in its own way, and what must become of them. Those that are plain stand in `plain`.

The jobs never end by themselves, unless they say so.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from typing import Any

from straggler import current_job, job
from tests.timeouts import plain as plain
from tests.timeouts.rows import GRACE, LIMIT, animal

FOR_EVER = 60.0
"""Longer than any of this takes, s; what is left behind ends at last."""


@job
async def ordinary(number: int) -> int:
    """Behave: wait a little, return."""
    await asyncio.sleep(number % 20 / 1000)
    return number


# ---- it awaits


@animal("timeout", "cancelled")
async def hangs() -> None:
    """Wait for what never comes."""
    await asyncio.Event().wait()


@animal("timeout", "abandoned")
async def swallows() -> None:
    """Swallow the cancellation, and wait on."""
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(FOR_EVER)
    await asyncio.sleep(FOR_EVER)


@animal("timeout", "abandoned")
async def swallows_again_and_again() -> None:
    """Swallow every cancellation."""
    end = time.monotonic() + FOR_EVER
    while time.monotonic() < end:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(FOR_EVER)


@animal("timeout", "abandoned")
async def shields_for_ever() -> None:
    """Wait behind a shield, whatever comes."""
    inner = asyncio.create_task(asyncio.sleep(FOR_EVER))
    while not inner.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(inner)


@animal("timeout", "cancelled")
async def swallows_and_returns() -> str:
    """Swallow the cancellation, and return a value as if nothing had been."""
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(FOR_EVER)
    return "done"


@animal("timeout", "cancelled")
async def falls_back() -> str:
    """Take our cancellation for the end of its own timeout."""
    try:
        async with asyncio.timeout(FOR_EVER):
            await asyncio.sleep(FOR_EVER)
    except BaseException:  # noqa: BLE001  # that is what it is here for
        return "fallback"
    return "done"


@animal("timeout", "cancelled")
async def cleans_up_in_time() -> None:
    """Clean up within its grace, and re-raise."""
    try:
        await asyncio.sleep(FOR_EVER)
    except asyncio.CancelledError:
        await asyncio.sleep(GRACE / 3)
        raise


@animal("timeout", "cancelled")
async def raises_in_finally() -> None:
    """Raise another error in its cleanup."""
    try:
        await asyncio.sleep(FOR_EVER)
    finally:
        raise ValueError("broken cleanup")


@animal("timeout", "abandoned")
async def sleeps_in_finally() -> None:
    """Clean up for longer than its grace."""
    try:
        await asyncio.sleep(FOR_EVER)
    finally:
        await asyncio.sleep(FOR_EVER)


@animal("timeout", "cancelled")
async def yields_only() -> None:
    """Give the loop back all the time, and never wait."""
    while True:
        await asyncio.sleep(0)


@animal("timeout", "cancelled")
async def leaks_threads() -> None:
    """Fill the loop's own thread pool with calls that no cancellation reaches."""
    await asyncio.gather(*(asyncio.to_thread(time.sleep, 5) for _ in range(8)))


@animal("timeout", "late", blocks=True)
async def returns_late() -> str:
    """Return just after the deadline, without ever having given the loop back."""
    while current_job().remaining():
        pass
    return "done"


# ---- it blocks the event loop


@animal("timeout", "interrupted", blocks=True)
async def spins() -> None:
    """Compute for ever, in Python."""
    while True:
        pass


@animal("timeout", "interrupted", blocks=True)
async def sleeps() -> None:
    """Call time.sleep."""
    time.sleep(FOR_EVER)


@animal("timeout", "interrupted", blocks=True)
async def backtracks() -> None:
    """Match with a regular expression that backtracks for ever."""
    re.match(r"(a+)+$", "a" * 60 + "b")


@animal("timeout", "interrupted", blocks=True)
async def receives() -> None:
    """Wait for a peer that never speaks."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.recv(1)


@animal("timeout", "interrupted", blocks=True)
async def runs_a_program() -> None:
    """Call subprocess.run."""
    subprocess.run(["sleep", "60"], check=True)


@animal("timeout", "interrupted", blocks=True)
async def locks() -> None:
    """Acquire a lock that nobody releases."""
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


@animal("timeout", "interrupted", blocks=True)
async def joins_a_thread() -> None:
    """Start a thread, and wait for its end."""
    thread = threading.Thread(target=time.sleep, args=(FOR_EVER,))
    thread.start()
    thread.join()


@animal("timeout", "interrupted", blocks=True)
async def swallows_exceptions() -> None:
    """Block in a loop that swallows every Exception."""
    while True:
        try:
            time.sleep(0.001)
        except Exception:  # noqa: BLE001, S110  # that is what it is here for
            pass


@animal("timeout", "interrupted", blocks=True)
async def recurses_and_catches() -> None:
    """Recurse to the limit, catch that, and recurse again, for ever."""

    def deeper() -> None:
        while True:
            try:
                deeper()
            except RecursionError:
                continue

    deeper()


@animal("timeout", "interrupted", blocks=True)
async def blocks_in_finally() -> None:
    """Block in its cleanup."""
    try:
        await asyncio.sleep(FOR_EVER)
    finally:
        time.sleep(FOR_EVER)


@animal("timeout", "interrupted", blocks=True)
async def gathers_blockers() -> None:
    """Block in a task of its own."""
    await asyncio.gather(hangs(), sleeps())


@animal("timeout", "interrupted", blocks=True)
async def groups_blockers() -> None:
    """Block in a task of a group."""
    async with asyncio.TaskGroup() as group:
        group.create_task(hangs())
        group.create_task(spins())


@animal("timeout", "interrupted", blocks=True)
async def forgets_a_blocker() -> None:
    """Block in a task that it does not wait for."""
    blocker = asyncio.create_task(sleeps())
    await asyncio.sleep(FOR_EVER)
    await blocker


class _Slow(Exception):  # noqa: N818  # it is one
    def __str__(self) -> str:
        time.sleep(FOR_EVER)
        return "slow"


@animal("timeout", "interrupted", blocks=True)
async def raises_what_blocks() -> None:
    """Raise an error that blocks when it is asked for its text."""
    raise _Slow


@animal("timeout", "killed", blocks=True, needs="it swallows the interrupt too")
async def swallows_everything() -> None:
    """Block in a loop that swallows whatever is raised."""
    while True:
        try:
            time.sleep(FOR_EVER)
        except BaseException:  # noqa: BLE001, S110  # that is what it is here for
            pass


@animal("timeout", "killed", blocks=True, needs="it blocks in C code that checks no signals")
async def sums() -> None:
    """Compute for ever, in C."""
    sum(range(10**12))


@animal("timeout", "killed", blocks=True, needs="it blocks in C code that checks no signals")
async def gathers_sums() -> None:
    """Compute for ever, in C, in a task of its own."""
    await asyncio.gather(hangs(), sums())


@animal("timeout", "killed", blocks=True, needs="a callback of the loop is no frame of the job's")
async def calls_back() -> None:
    """Block in a callback of the loop."""
    asyncio.get_running_loop().call_soon(time.sleep, FOR_EVER)
    await asyncio.sleep(FOR_EVER)


@animal("timeout", "killed", blocks=True, needs="it takes the interrupts away")
async def steals_the_alarm() -> None:
    """Take SIGALRM for itself, then block."""
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    time.sleep(FOR_EVER)


# ---- it ends by itself, but how


@animal("success", blocks=True)
async def blocks_in_time() -> str:
    """Block, but not past its deadline."""
    time.sleep(LIMIT / 2)
    return "done"


@animal("failure", error="RecursionError")
async def recurses() -> None:
    """Recurse without an end."""

    def deeper() -> None:
        deeper()

    deeper()


@animal("failure", error="SystemExit")
async def exits() -> None:
    """Call sys.exit."""
    sys.exit(3)


@animal("failure", error="KeyboardInterrupt")
async def raises_keyboard_interrupt() -> None:
    """Raise what Ctrl-C raises."""
    raise KeyboardInterrupt


@animal("failure", error="GeneratorExit")
async def raises_generator_exit() -> None:
    """Raise what ends a coroutine."""
    raise GeneratorExit


@animal("failure", error="TimeoutError")
async def raises_its_own_timeout() -> None:
    """Raise a TimeoutError that is not ours."""
    async with asyncio.timeout(LIMIT / 10):
        await asyncio.sleep(FOR_EVER)


@animal("failure", error="CancelledError")
async def cancels_itself() -> None:
    """Cancel its own task."""
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(FOR_EVER)


@animal("failure", error="CancelledError")
async def cancels_everybody() -> None:
    """Cancel every task of the loop."""
    for task in asyncio.all_tasks():
        task.cancel()
    await asyncio.sleep(FOR_EVER)


@animal("failure", error="RuntimeError")
async def closes_the_loop() -> None:
    """Close the event loop."""
    asyncio.get_running_loop().close()


@animal("success", needs="the loop is the program's own, which ends with it")
async def stops_the_loop() -> str:
    """Stop the event loop."""
    asyncio.get_running_loop().stop()
    return "done"


class _Odd:
    def __await__(self) -> Generator[Any, None, None]:
        yield 42


@animal("failure", error="RuntimeError")
async def awaits_nonsense() -> None:
    """Await what is no future."""
    await _Odd()


@animal("failure", error="UnusableValueError")
async def returns_what_is_no_json() -> object:
    """Return what cannot be a result."""
    return threading.Lock()


@animal("success")
async def leaves_tasks() -> str:
    """Leave tasks behind that nobody awaits."""
    asyncio.get_running_loop().leftover = asyncio.create_task(asyncio.sleep(1))  # type: ignore[attr-defined]
    return "done"


@animal("success")
async def closes_stderr() -> str:
    """Close what logs are written to."""
    with open(os.devnull, "w") as sys.stderr:  # noqa: PTH123
        return "done"


@animal("success")
async def forks() -> str:
    """Fork, and return in both processes."""
    os.fork()
    return "done"


@animal("success")
async def forks_and_terminates() -> str:
    """End a forked child with SIGTERM."""
    child = os.fork()
    if not child:
        time.sleep(FOR_EVER)
    os.kill(child, signal.SIGTERM)
    os.waitpid(child, 0)
    return "done"


@animal("success", crashes=True, needs="it tells its worker to stop")
async def terminates_its_worker() -> str:
    """Send SIGTERM to its own process."""
    os.kill(os.getpid(), signal.SIGTERM)
    return "done"


@animal("lost", crashes=True, needs="its process ends")
async def leaves_at_once() -> None:
    """Call os._exit."""
    os._exit(1)


@animal("lost", crashes=True, needs="its process ends")
async def kills_itself() -> None:
    """Send SIGKILL to its own process."""
    os.kill(os.getpid(), signal.SIGKILL)


@animal("lost", crashes=True, needs="its process ends")
async def crashes() -> None:
    """Read where there is no memory."""
    await asyncio.gather(_read_nothing())


async def _read_nothing() -> None:
    ctypes.string_at(0)
