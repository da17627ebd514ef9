"""What single stages of a no-op job's way cost, without Redis: the codec, the wrapper, the recorder.

    python -m benchmarks.micro [--runs 20]

The best of many runs: what is worse than that was the machine's doing, not ours.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

from benchmarks.jobs import noop, pause
from producer.cutting import cut
from protocol.chunks import decode_chunk, encode_calls
from protocol.clock import RedisClock
from protocol.connection import Payload, Scripts
from protocol.entries import decode_entry
from protocol.recording import encode_common, record_successes
from tests.entries import entry_of
from workers.calling.runs import Runner
from workers.calling.threads import Threads
from workers.chunks import ChunkRun
from workers.claims import Claimed
from workers.ending.retries import Retries
from workers.processes import Processes
from workers.recorder import Recorder
from workers.starting.slots import Slots
from workers.starting.tasks import Tasks
from workers.timing.deadlines import Deadlines
from workers.vitals.pulse import CELLS

CHUNK = 256
LIMIT = 1 << 20


def best(runs: int, function: Callable[[], Any]) -> float:
    """Time a function that treats one chunk; us a job."""
    took = []
    for _ in range(runs):
        started = time.perf_counter()
        function()
        took.append(time.perf_counter() - started)
    return min(took) / CHUNK * 1e6


def make_runner() -> Runner:
    """Make what chunks share, with nothing behind it."""
    scripts, clock, deadlines = (
        Scripts(cast("Any", SimpleNamespace(connection_pool=None))),
        RedisClock(),
        Deadlines(memoryview(bytearray(8 * CELLS)).cast("d")),
    )
    retries = Retries(scripts, "default", "worker")
    return Runner(
        worker_id="worker", slots=Slots(CHUNK), recorder=Recorder(scripts, clock, "default", "worker", limit=1 << 30),
        retries=retries,
        leases=cast("Any", None), clock=clock, result_limit=LIMIT, deadlines=deadlines, processes=Processes(1),
        threads=Threads(1, set()), reports={}, additions=cast("Any", None),
    )  # fmt: skip


async def run_chunks(runs: int, function: str, arguments: list[tuple[Any, ...]]) -> float:
    """Time a chunk's way through a worker, from its bytes to the results in the recorder's hands."""
    data = encode_calls(function, arguments)
    runner, loop, tasks = make_runner(), asyncio.get_running_loop(), Tasks()
    tasks.start(loop)
    begun: Any = memoryview(bytearray(8)).cast("d")
    took = []
    for _ in range(runs):
        claimed = Claimed("b:0", Payload("b", 0, CHUNK, None, 1.0), b"{}", None, data, b"", [], {})
        started = time.perf_counter()
        chunk = ChunkRun(claimed, runner, 0, begun)
        running = loop.create_task(chunk.run())
        while chunk._unrecorded < CHUNK:  # noqa: SLF001  # nobody else can tell
            await asyncio.sleep(0)
        took.append(time.perf_counter() - started)
        chunk.count_recorded(CHUNK)
        await running
    runner.deadlines.close()
    tasks.stop()
    return min(took) / CHUNK * 1e6


def cut_and_write(runs: int) -> float:
    """Time a chunk's way through a producer, from its arguments to its bytes."""

    async def drain() -> None:
        async for _ in cut(noop.map(range(CHUNK)), LIMIT):
            pass

    loop = asyncio.new_event_loop()
    try:
        return best(runs, lambda: loop.run_until_complete(drain()))
    finally:
        loop.close()


def stages() -> dict[str, Callable[[int], float]]:
    """Name the stages; each is run so many times over a chunk, and tells its best time, us a job."""
    numbers = [(number,) for number in range(CHUNK)]
    data = encode_calls("noop", numbers) or b""
    rows = [
        (number, "success", b"%d" % number, number / 1e5, number / 1e5 + 1e-6, None, None) for number in range(CHUNK)
    ]
    common = encode_common("noop", "w", 1.0)
    entry = entry_of(record_successes("b", common, rows, 1e9))
    return {
        "producer: cut and write": cut_and_write,
        "worker: read a chunk": lambda runs: best(runs, lambda: decode_chunk(0, data, "key")),
        "worker: a chunk of no-ops": lambda runs: asyncio.run(run_chunks(runs, "noop", numbers)),
        "worker: a chunk of pauses": lambda runs: asyncio.run(run_chunks(runs, "pause", [(0.0,)] * CHUNK)),
        "worker: write results": lambda runs: best(runs, lambda: record_successes("b", common, rows, 1e9)),
        "producer: read results": lambda runs: best(runs, lambda: decode_entry("b", entry, "key")),
    }


def calls(stage: Callable[[int], float], runs: int = 2) -> float:
    """Count the calls of functions, Python's and C's, that a stage makes for a job.

    Other than its time that is the same on each machine, however busy; what a stage does once is not counted.
    """
    return (_calls(stage, 2 * runs) - _calls(stage, runs)) / (runs * CHUNK)


def _calls(stage: Callable[[int], float], runs: int) -> int:
    count = 0

    def note(_: object, event: str, __: object) -> None:
        nonlocal count
        count += event in {"call", "c_call"}

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        stage(runs)
    finally:
        sys.setprofile(before)
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=20)
    runs = parser.parse_args().runs
    assert (noop.name, pause.name) == ("noop", "pause")
    print("| stage | us a job | calls of functions a job |\n| --- | --- | --- |")
    for name, stage in stages().items():
        print(f"| {name} | {stage(runs):.2f} | {calls(stage):.2f} |")


if __name__ == "__main__":
    main()
