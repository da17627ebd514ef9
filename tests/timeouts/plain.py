"""The part of the zoo that is no coroutines: plain functions in processes, and in threads."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time

from tests.timeouts.rows import FOR_EVER, animal


@animal("timeout", "killed")
def plain_hangs() -> None:
    """Call time.sleep."""
    time.sleep(FOR_EVER)


@animal("timeout", "killed")
def plain_spins() -> None:
    """Swallow whatever is raised, for ever."""
    while True:
        with contextlib.suppress(BaseException):
            time.sleep(0)


@animal("timeout", "killed")
def plain_sums() -> None:
    """Compute for ever, in C."""
    sum(range(10**12))


@animal("timeout", "killed")
def plain_leaves_children() -> None:
    """Start programs, and wait for them; they must end with it."""
    children = [subprocess.Popen(["sleep", "61.5"]) for _ in range(2)]
    children[0].wait()


@animal("timeout", "killed")
def plain_ignores_signals() -> None:
    """Ignore every signal that can be ignored."""
    for signum in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(signum, signal.SIG_IGN)
    time.sleep(FOR_EVER)


@animal("timeout", "killed")
def plain_closes_all() -> None:
    """Close the socket to its worker, then hang."""
    os.closerange(3, 1000)
    time.sleep(FOR_EVER)


@animal("timeout", "abandoned", also="interrupted", isolation="thread")
def thread_hangs() -> None:
    """Hang in a thread."""
    time.sleep(5)


@animal("failure", error="SystemExit", isolation="thread")
def thread_exits() -> None:
    """Call sys.exit in a thread."""
    sys.exit(3)


@animal("failure", error="MemoryError", max_memory=64 << 20)
def plain_allocates() -> int:
    """Allocate more than it may."""
    return len([bytes(1 << 20) for _ in range(1000)])


@animal("failure", error="ProcessDiedError")
def plain_leaves_at_once() -> None:
    """Call os._exit."""
    os._exit(1)


@animal("failure", error="ProcessDiedError")
def plain_kills_itself() -> None:
    """Send SIGKILL to its own process."""
    os.kill(os.getpid(), signal.SIGKILL)


@animal("failure", error="SystemExit")
def plain_exits() -> None:
    """Call sys.exit."""
    sys.exit(3)


@animal("success")
def plain_forks() -> int:
    """Fork, and return in both processes: one result counts."""
    if not os.fork():
        sys.exit()
    return os.getpid()


@animal("success")
def plain_prints() -> str:
    """Write to where stdout was."""
    os.write(1, b"")
    print(end="")
    return "done"
