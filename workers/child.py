"""The inside of a process for plain functions: `python -m workers.child FD FD`, started by `workers.processes`.

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
from typing import Any

from pydantic_core import from_json, to_json

from workers import context, registry
from workers.endings import die_with_parent
from workers.failures import asks_again, describe
from workers.processes import LENGTH_BYTES, importing
from workers.reports import SharedReport


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
        _send(stream, b"{}")
        while length := stream.read(LENGTH_BYTES):
            call = from_json(stream.read(int.from_bytes(length, "big")))
            reply = _run(call, report)
            if os.getpid() != own:
                os._exit(0)  # a fork of the job's that came back: the job goes on in the process that it was
            _send(stream, reply)


def _leave_to_itself(descriptor: int) -> None:
    """In a fork of the job's: a pool, say, ends its processes by SIGTERM."""
    os.close(descriptor)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _send(stream: Any, text: bytes) -> None:
    stream.write(len(text).to_bytes(LENGTH_BYTES, "big") + text)
    stream.flush()


def _run(call: dict[str, Any], report: SharedReport) -> bytes:
    run: context.RunElsewhere | None = None
    try:
        with importing():
            registry.load(call["module"])
        function = registry.find(call["job"])
        if call["about"] is not None:
            run = context.RunElsewhere(call["about"], report)
            context.enter(run)
        report.begin()
        args, kwargs = function.signature.decode_arguments(call["args"], call["kwargs"])
        with _memory_limit(call["max_memory"]):
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
