"""The inside of a process for plain functions: `python -m workers.calling.child FD FD`, started by `workers.processes`.

Jobs under which workers have died run here, too, whatever they are. It reads one job after the other from its socket,
runs it on its main thread, and writes back the value or what was raised. A job's heartbeats go another way, by memory
that is shared with the worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from typing import Any, BinaryIO

from pydantic_core import from_json, to_json

from protocol.errors import BatchClosedError, StragglerError
from protocol.newjobs import NewJob
from workers import loading, registry
from workers.calling import context, spans
from workers.calling.reports import SharedReport
from workers.ending.failures import asks_again, describe
from workers.processes import LENGTH_BYTES, importing
from workers.vitals.endings import die_with_parent


def main(descriptor: int, report: SharedReport) -> None:
    """Run jobs until the worker closes the socket or is gone."""
    die_with_parent()
    # Ctrl-C and SIGTERM, which may reach all processes of a service, are the worker's to judge: it stops us when it has
    # decided to. Not SIG_IGN, which the programs that a job starts would inherit.
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, lambda *_: None)
    own = os.getpid()
    # What a job starts must neither speak for it nor keep the line open after our end.
    os.set_inheritable(descriptor, False)  # noqa: FBT003  # takes no keyword
    os.register_at_fork(after_in_child=lambda: _leave_to_itself(descriptor))
    with socket.socket(fileno=descriptor) as worker, worker.makefile("rwb") as stream:
        line = _Line(stream)
        line.send(b"{}")
        while call := line.receive():
            reply = _run(call, report, line)
            if os.getpid() != own:
                os._exit(0)  # a fork of the job's that came back: the job goes on in the process that it was
            line.send(reply)


def _leave_to_itself(descriptor: int) -> None:
    """In a fork of the job's: a pool, say, ends its processes by SIGTERM."""
    os.close(descriptor)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


class _Line:
    """The line to the worker. While a thread of the job's asks for something, nothing else is said."""

    def __init__(self, stream: BinaryIO | Any) -> None:
        self._stream = stream
        self._asking = threading.Lock()
        self._own = os.getpid()

    def send(self, text: bytes) -> None:
        """Say something, once nobody asks any more."""
        with self._asking:
            self._write(text)

    def receive(self) -> dict[str, Any] | None:
        """Read what the worker says; nothing if it is gone."""
        length = self._stream.read(LENGTH_BYTES)
        return from_json(self._stream.read(int.from_bytes(length, "big"))) if length else None

    def add(self, batch_id: str, jobs: Sequence[NewJob]) -> list[int]:
        """Ask the worker to add jobs to the job's batch."""
        if os.getpid() != self._own:
            raise StragglerError("a fork of a job's process cannot add jobs: the job itself must")
        request = to_json({"add": [(key, text.decode()) for key, text in jobs]})
        with self._asking:
            self._write(request)
            told = self.receive()
        if told is None:
            raise StragglerError("the job's worker is gone")
        return _read_answer(batch_id, told)

    def _write(self, text: bytes) -> None:
        self._stream.write(len(text).to_bytes(LENGTH_BYTES, "big") + text)
        self._stream.flush()


def _read_answer(batch_id: str, told: dict[str, Any]) -> list[int]:
    """Read what a job's process was told.

    Raises:
        BatchClosedError: If the batch takes no more jobs.
        StragglerError: If the jobs could not be added for another reason.
    """
    if "closed" in told:
        raise BatchClosedError(batch_id, told["closed"])
    if "problem" in told:
        raise StragglerError(told["problem"])
    indexes: list[int] = told["indexes"]
    return indexes


def _run(call: dict[str, Any], report: SharedReport, line: _Line) -> bytes:
    run: context.RunElsewhere | None = None
    try:
        with importing():
            loading.load(call["module"])
        function = registry.find(call["job"])
        if call["about"] is not None:
            run = context.RunElsewhere(call["about"], report, line.add)
            context.enter(run)
        report.begin()
        args, kwargs = function.signature.decode_arguments(call["args"], call["kwargs"])
        with spans.entered(call["trace"]), _memory_limit(call["max_memory"]):
            value = function.function(*args, **kwargs)
            if inspect.iscoroutine(value):  # it runs alone here, as workers have died under it
                value = asyncio.run(value)
            return function.encode_value(value, call["result_limit"])
    except MemoryError as error:
        told = describe(error)
        limit = call["max_memory"]
        if limit is not None:
            told["message"] = f"the job needs more than its max_memory of {limit:,} bytes"
        return to_json(told)
    except BaseException as error:  # noqa: BLE001  # the job's boundary: SystemExit is its failure, not our end
        again = asks_again(error)
        return to_json({**describe(error), **({} if again is None else {"again_after": again.after})})
    finally:
        if run is not None:
            run.outcome = "over"  # what it has left running does not speak for the next job


@contextlib.contextmanager
def _memory_limit(limit: int | None) -> Any:
    if limit is None:
        yield
        return
    import resource  # noqa: PLC0415  # not on every platform

    # What the process may allocate, libraries' code and mapped files aside.
    before = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


if __name__ == "__main__":
    with contextlib.suppress(ConnectionError):  # the worker is gone
        main(int(sys.argv[1]), SharedReport(int(sys.argv[2])))
