"""The part of the zoo that blocks the event loop. The jobs never end by themselves, unless they say so."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import subprocess
import threading
import time

from tests.timeouts.rows import FOR_EVER, LIMIT, animal


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


@animal("timeout", "killed", blocks=True, needs="the stack is full: there is no room for a signal's handler")
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
    await asyncio.gather(asyncio.sleep(FOR_EVER), sleeps())


@animal("timeout", "interrupted", blocks=True)
async def groups_blockers() -> None:
    """Block in a task of a group."""
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(FOR_EVER))
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
    await asyncio.gather(asyncio.sleep(FOR_EVER), sums())


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


@animal("success", blocks=True)
async def blocks_in_time() -> str:
    """Block, but not past its deadline."""
    time.sleep(LIMIT / 2)
    return "done"
