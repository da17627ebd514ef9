"""How processes end: what their exit says, with all of their session, with their parent."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def describe_exit(code: int) -> str:
    """Name a process's end: `exit code 3`, or `signal SIGKILL`."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"


def kill_session(leader: int) -> None:
    """Kill a session's processes, whatever groups they are in; where there is no `/proc`, its leader's group only."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # that one has just ended
            # After the command's name in brackets: state, parent, group, session.
            if int(stat.read_text().rpartition(")")[2].split()[3]) == leader:
                os.kill(int(stat.parent.name), signal.SIGKILL)


def die_with_parent() -> None:
    """Let the kernel kill this process when its parent ends, however that ends; Linux only.

    At once, and whatever it does: a worker without its supervisor could hang for ever, and nobody would end it. Its
    leases lapse, and its own processes end in the same way. Elsewhere the worker's heart notices, and an idle job's
    process does.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
