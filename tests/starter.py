"""A process that has imported straggler, and forks into a command of it whenever `tests.commands` asks.

To import straggler costs 0.4 s of CPU, under coverage 0.6 s, and the suite runs hundreds of commands; a fork costs 0.05
s, under coverage 0.07 s. What comes of it is what `python -W error -m MODULE` would be: environment, folder, arguments,
streams and signals are those that were asked for. This process runs no command itself, so each begins with the same,
untouched modules.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from coverage import Coverage

from straggler.commands import notes
from workers.vitals.endings import die_with_parent

# What commands are, and what they need.
_MODULES = (
    "straggler.usage.app", "straggler.commands.batches", "straggler.commands.run", "straggler.commands.worker",
    "rich.progress",
)  # fmt: skip
_LARGEST_REQUEST = 1 << 18


class Starter:
    """Fork on request.

    Args:
        channel: Where requests come from: JSON, with the three streams and a socket, on which the process's id is told,
            and in the end its exit code.
    """

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._running: dict[int, socket.socket] = {}
        self._woken, self._wakes = socket.socketpair()
        self._wakes.setblocking(False)

    def serve(self) -> dict[str, Any]:
        """Wait for requests, and end with who makes them; returns in each child, with what was asked."""
        signal.set_wakeup_fd(self._wakes.fileno())
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is meant for the commands
        with selectors.DefaultSelector() as selector:
            selector.register(self._channel, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while True:
                ready = {key.fileobj for key, _ in selector.select()}
                if self._woken in ready:
                    self._tell_ends()
                if self._channel in ready and (request := self._fork()):
                    return request

    def _fork(self) -> dict[str, Any] | None:
        text, descriptors, _, _ = socket.recv_fds(self._channel, _LARGEST_REQUEST, 4)
        if not text:
            os._exit(0)
        pid = os.fork()
        *streams, told = descriptors
        if pid == 0:
            for ours in (self._channel, self._woken, self._wakes, *self._running.values()):
                ours.detach()  # `become` closes them
            return {**json.loads(text), "streams": streams}
        for stream in streams:
            os.close(stream)
        self._running[pid] = socket.socket(fileno=told)
        self._running[pid].sendall(b"%d\n" % pid)
        return None

    def _tell_ends(self) -> None:
        self._woken.recv(4096)
        while self._running:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            with self._running.pop(pid) as told, contextlib.suppress(OSError):  # nobody waits for it
                told.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))


def become(request: dict[str, Any]) -> None:
    """Be the process that was asked for."""
    die_with_parent()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if request["session"]:
        os.setsid()
    for number, descriptor in enumerate(request["streams"]):
        os.dup2(descriptor, number)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout = os.fdopen(1, "w", closefd=False)  # by lines on a terminal
    sys.stderr = os.fdopen(2, "w", 1, errors="backslashreplace", closefd=False)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
        del sys.modules[name]
    console = notes.notes  # others hold it
    vars(console).update(vars(importlib.reload(notes).notes))  # it looks at its terminal as it begins
    notes.notes = console
    sys.path[:1] = [str(Path.cwd()), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv = [request["module"], *request["words"]]


if __name__ == "__main__":
    for module in _MODULES:
        importlib.import_module(module)
    if measured := Coverage.current():  # else each child would save again what was run here
        measured.save()
    gc.freeze()
    request = Starter(socket.socket(fileno=int(sys.argv[1]))).serve()
    become(request)
    runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
