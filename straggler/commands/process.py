"""What every command needs of its process: one event loop, exit codes, errors in one line, logs, a way out."""

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
from rich.console import Console
from rich.markup import escape

from protocol.errors import StragglerError

SUCCEEDED = 0
FAILED = 1
SOME_DID_NOT_SUCCEED = 3
INTERRUPTED = 130

_THREADS = "straggler-thread"
# Jobs that ignore their cancellation get this long, s, to end with the process; then it leaves without them.
_FAREWELL = 0.5

# Where there is no terminal there is no width either, and rich would take 80.
notes = Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else 120)
"""Progress, tables and notes for people, on stderr; stdout is for data."""


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
    runner = asyncio.Runner()
    executor = ThreadPoolExecutor(thread_name_prefix=_THREADS)
    runner.get_loop().set_default_executor(executor)
    code = _exit_code(lambda: runner.run(work))
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
    notes.print(text, markup=False, soft_wrap=True)


def log_plainly(*, verbose: bool, live: bool = False) -> None:
    """Write logs to stderr, a line for each event.

    Args:
        verbose: Whether to write what is no warning, too.
        live: Whether a progress bar may be on the screen, above which lines are to be put.
    """
    handler = _AboveTheBar() if live else logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, handlers=[handler])


class _AboveTheBar(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say(self.format(record))


def _exit_code(command: Callable[[], int]) -> int:
    try:
        return command()
    except StragglerError as error:
        _say_error(str(error))
    except RedisError as error:
        _say_error(f"Redis: {error}")
    except KeyboardInterrupt:
        return INTERRUPTED
    return FAILED


def _say_error(text: str) -> None:
    line = " ".join(text.split("\n"))
    notes.print(f"[bold red]error:[/] {escape(line)}", soft_wrap=True)


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
    threads = [thread for thread in threading.enumerate() if thread.name.startswith(_THREADS)]
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return not any(thread.is_alive() for thread in threads)
