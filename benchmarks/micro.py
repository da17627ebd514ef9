"""What single stages of a no-op job's way cost, without Redis: the codec, the wrapper, the recorder.

    python -m benchmarks.micro [--runs 20]

The best of many runs: what is worse than that was the machine's doing, not ours.
"""

from __future__ import annotations

import argparse
import asyncio
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
    data = encode_calls(function, arguments, LIMIT)
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


async def drain(jobs: Any) -> None:
    async for _ in cut(jobs, LIMIT):
        pass


def measure(runs: int) -> list[dict[str, str]]:
    numbers = [(number,) for number in range(CHUNK)]
    data = encode_calls("noop", numbers, LIMIT) or b""
    rows = [(number, "success", b"%d" % number, number / 1e5, number / 1e5 + 1e-6) for number in range(CHUNK)]
    call = record_successes("b", encode_common("noop", "w", 1.0), rows, 1e9)
    entry = entry_of(call)
    stages = {
        "producer: cut and write": best(runs, lambda: asyncio.run(drain(noop.map(range(10 * CHUNK))))) / 10,
        "worker: read a chunk": best(runs, lambda: decode_chunk(0, data, "key")),
        "worker: a chunk of no-ops": asyncio.run(run_chunks(runs, "noop", numbers)),
        "worker: a chunk of pauses": asyncio.run(run_chunks(runs, "pause", [(0.0,)] * CHUNK)),
        "worker: write results": best(runs, lambda: record_successes("b", encode_common("noop", "w", 1.0), rows, 1e9)),
        "producer: read results": best(runs, lambda: decode_entry("b", entry, "key")),
    }
    return [{"stage": stage, "us a job": f"{took:.2f}"} for stage, took in stages.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=20)
    runs = parser.parse_args().runs
    assert (noop.name, pause.name) == ("noop", "pause")
    print("| stage | us a job |\n| --- | --- |")
    for row in measure(runs):
        print(f"| {row['stage']} | {row['us a job']} |")


if __name__ == "__main__":
    main()
