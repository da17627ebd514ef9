"""Straggler's commands as processes: `straggler("status")` runs one, `Command` starts one as `Popen` would.

They are forked from `tests.starter`, which spares each the imports; so are other modules that run as programs. What is
about the start of a process itself starts Python as users do.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, ClassVar

ROOT = Path(__file__).parent.parent
_COVERAGE = "COVERAGE_"


class Command(subprocess.Popen[str]):
    """A command that runs; takes its words, and what `Popen` takes, but for `preexec_fn`, `pass_fds` and `shell`.

    Args:
        words: Its words.
        module: What runs, as `python -m` would.
        options: As `Popen` takes them.
    """

    def __init__(self, *words: str, module: str = "straggler.cli", **options: Any) -> None:
        self._module = module
        self._told: socket.socket | None = None
        self._telling = threading.Lock()
        super().__init__(["straggler", *words], **{"text": True, **options})

    def _execute_child(self, args: list[str], *rest: Any) -> None:
        """Fork in the starter: `Popen.__init__` calls it with all that it has prepared."""
        _, _, _, _, folder, environment, _, _, _, *handles = rest
        p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite, _, _, _, _, _, session, _ = handles
        request: dict[str, Any] = {
            "module": self._module,
            "words": args[1:],
            "folder": str(folder or Path.cwd()),
            "environment": dict(os.environ if environment is None else environment),
            "session": session,
        }
        streams = [given if given != -1 else number for number, given in enumerate((p2cread, c2pwrite, errwrite))]
        self._told, theirs = socket.socketpair()
        with theirs:
            is_measured = any(name.startswith(_COVERAGE) for name in request["environment"])
            _Starter.ask(request, [*streams, theirs.fileno()], is_measured=is_measured)
        self.pid = int(self._read() or 0)
        self._child_created = True
        self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)  # type: ignore[attr-defined]

    def _internal_poll(self, *_: Any, **__: Any) -> int | None:
        if self.returncode is None and self._telling.acquire(blocking=False):  # else somebody waits for it
            try:
                with contextlib.suppress(BlockingIOError):
                    self._end(0.0)
            finally:
                self._telling.release()
        return self.returncode

    def _wait(self, timeout: float | None) -> int:
        with self._telling:
            if self.returncode is None:
                try:
                    self._end(timeout)
                except (TimeoutError, BlockingIOError):
                    raise subprocess.TimeoutExpired(self.args, timeout or 0.0) from None
        return self.returncode

    def _end(self, timeout: float | None) -> None:
        assert self._told is not None
        self._told.settimeout(timeout)
        self.returncode = int(self._read())
        self._told.close()

    def _read(self) -> bytes:
        assert self._told is not None
        line = b""
        while not line.endswith(b"\n"):
            piece = self._told.recv(32)
            assert piece, "the starter has ended"
            line += piece
        return line


def straggler(*words: str, stdin: str = "", timeout: float = 150, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, as `subprocess.run` does; its streams are captured."""
    pipe = subprocess.PIPE
    with Command(*words, stdin=pipe, stdout=pipe, stderr=pipe, **options) as process:
        try:
            out, said = process.communicate(stdin, timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, said)


def unmeasured() -> dict[str, str]:
    """Give an environment for programs whose coverage is not measured: that costs time, and saves data as they end."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_COVERAGE)}


class _Starter:
    """Those of this process, for what is measured and what is not; each starts with the first command, ends with us."""

    _channels: ClassVar[dict[bool, socket.socket]] = {}
    _starting = threading.Lock()

    @classmethod
    def ask(cls, request: dict[str, Any], descriptors: list[int], *, is_measured: bool) -> None:
        with cls._starting:
            if is_measured not in cls._channels:
                cls._channels[is_measured] = cls._start(None if is_measured else unmeasured())
        socket.send_fds(cls._channels[is_measured], [json.dumps(request).encode()], descriptors)

    @staticmethod
    def _start(environment: dict[str, str] | None) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            words = [sys.executable, "-W", "error", "-m", "tests.starter", str(theirs.fileno())]
            process = subprocess.Popen(words, cwd=ROOT, env=environment, pass_fds=[theirs.fileno()])
        atexit.register(process.wait)
        atexit.register(ours.close)  # first: it is what it ends with
        return ours
