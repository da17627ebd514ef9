"""What every command needs of its process: one event loop, exit codes, errors in one line, logs, a way out."""

# ruff: noqa: PLC0415  # a worker process, which is to start fast, has nothing to show: rich is a sixth of its imports

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NoReturn

from redis.exceptions import RedisError

from protocol.errors import StragglerError
from workers.starting import tasks
from workers.timing.selector import new_loop

logger = logging.getLogger(__name__)

SUCCEEDED = 0
FAILED = 1
SOME_DID_NOT_SUCCEED = 3
INTERRUPTED = 130

_THREADS = "straggler-thread"
# Jobs that ignore their cancellation get this long, s, to end with the process; then it leaves without them.
_FAREWELL = 0.5


def finish(command: Callable[[], int]) -> NoReturn:
    """Run a command and leave with its exit code; an error is said in one line."""
    code = _exit_code(command)
    with suppress(BrokenPipeError):
        sys.stdout.flush()
        sys.exit(code)
    # Whoever read stdout is gone; Python would complain when it flushes once more.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def run_loop(work: Coroutine[Any, Any, int]) -> int:
    """Run a coroutine that returns an exit code, on a loop of its own; Ctrl-C cancels it.

    A job that ignores its cancellation, or blocks its thread, keeps nobody here: the process ends without it.
    """
    runner = asyncio.Runner(loop_factory=new_loop)
    executor = ThreadPoolExecutor(thread_name_prefix=_THREADS)
    runner.get_loop().set_default_executor(executor)
    tasks.Tasks().start(runner.get_loop())
    code = _exit_code(lambda: _run_on(runner, work))
    executor.shutdown(wait=False, cancel_futures=True)
    if not (runner.run(_end_tasks()) and _end_threads()):
        with suppress(OSError):
            sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    runner.close()
    return code


def say(text: str) -> None:
    """Tell people something, on stderr."""
    from straggler.commands.notes import notes

    notes.print(text, markup=False, soft_wrap=True)


def _run_on(runner: asyncio.Runner, work: Coroutine[Any, Any, int]) -> int:
    """Run to the end, also past a job that stops the loop."""
    task = runner.get_loop().create_task(work)
    while True:
        try:
            runner.run(_wait_for(task))
        except RuntimeError:
            if task.done():
                raise
            logger.warning("a job has stopped the event loop; it goes on", extra={"event": "loop.stopped"})
        else:
            return task.result()


async def _wait_for(task: asyncio.Task[int]) -> None:
    try:
        await asyncio.wait({task})
    except asyncio.CancelledError:  # Ctrl-C
        task.cancel()
        await asyncio.wait({task})
        raise


def _exit_code(command: Callable[[], int]) -> int:
    try:
        return command()
    except StragglerError as error:
        _say_error(str(error))
    except RedisError as error:
        _say_error(f"Redis: {error}")
    except (KeyboardInterrupt, asyncio.CancelledError):  # the latter where the command listens to Ctrl-C itself
        return INTERRUPTED
    return FAILED


def _say_error(text: str) -> None:
    from rich.markup import escape

    from straggler.commands.notes import notes

    line = " ".join(text.split("\n"))
    notes.print(f"[bold red]error:[/] {escape(line)}", soft_wrap=True)


def _keeps_us(thread: threading.Thread) -> bool:
    return thread.name.startswith(_THREADS) or not (thread.daemon or thread is threading.main_thread())


async def _end_tasks() -> bool:
    """Cancel what still runs on this loop; returns whether all of it ended."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        _, tasks = await asyncio.wait(tasks, timeout=_FAREWELL)
    return not tasks


def _end_threads() -> bool:
    """Wait a moment for the threads in which plain functions run; returns whether all of them ended."""
    deadline = time.monotonic() + _FAREWELL
    # Python would wait for all of them: ours, and those that jobs have started.
    threads = [thread for thread in threading.enumerate() if _keeps_us(thread)]
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return not any(thread.is_alive() for thread in threads)
