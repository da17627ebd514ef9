"""The part of the zoo that ends by itself, but how."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Generator
from typing import Any

from tests.timeouts.rows import FOR_EVER, LIMIT, animal


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


@animal("failure", error="CancelledError", needs="the program's own tasks are cancelled, too")
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
