"""Keep a job's forks of the worker from being a second worker.

A forked child has the worker's loop, sockets and signal handlers. It may do what the job has it do, and ends when it
leaves the job's code; a SIGTERM ends it, and does not reach the worker by the pipe on which both would hear of signals.
"""

from __future__ import annotations

import os
import signal
import weakref

from workers.timing.deadlines import Deadlines

_watched: weakref.WeakSet[Deadlines] = weakref.WeakSet()
_signals: set[int] = set()


def watch(deadlines: Deadlines) -> None:
    """End a child that is forked while one of these runs holds the loop, once it leaves that run's code."""
    _watched.add(deadlines)


def reset(signums: tuple[signal.Signals, ...]) -> None:
    """Let children end by these signals, which the worker takes for itself."""
    _signals.update(signums)


def _is_held() -> bool:
    return any(deadlines.current is not None for deadlines in _watched)


def _before() -> None:
    # A signal that comes before the child has let go of the pipe would be the worker's.
    if _is_held():
        signal.pthread_sigmask(signal.SIG_BLOCK, _signals)


def _in_parent() -> None:
    if _is_held():
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _signals)


def _in_child() -> None:
    if not _is_held():
        return
    signal.set_wakeup_fd(-1)
    for signum in _signals:
        signal.signal(signum, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _signals)
    for deadlines in _watched:
        deadlines.is_fork = True
        deadlines.cells = list(deadlines.cells)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
