"""The producer of one library, run by that library's own Python: batches of no-op jobs, lone jobs, every value checked.

    python -m benchmarks.peers.client on_arq --jobs 10000 --runs 5 --lone 200 --seconds 60

Imports nothing but the standard library and the adapter `benchmarks.peers.on_...`, so it runs in any environment.
Prints JSON: the seconds of each batch and of each lone job. An adapter has `opened()`, an async context manager of an
object with `batch(count)`, which returns the values of jobs 0 to count - 1 in order, and `one(number)`; both may be
coroutines. Its Redis is the environment variable BENCH_REDIS_URL.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import inspect
import json
import time
from typing import Any

# A few first: connections are made, scripts and code are loaded, both workers are known to be up.
WARM_UP = 500
LONE_WARM_UP = 20
# A pause before a lone job, s, so that the worker is idle when it comes.
_PAUSE = 0.002


async def measure(adapter: Any, jobs: int, runs: int, lone: int, seconds: float) -> dict[str, list[float]]:
    """Measure batches, as many as begin in so many seconds but at least two, and lone jobs."""
    batches: list[float] = []
    times: list[float] = []
    async with adapter.opened() as client:
        await _batch(client, min(WARM_UP, jobs))
        started = time.perf_counter()
        while len(batches) < runs and (len(batches) < min(2, runs) or time.perf_counter() - started < seconds):
            batches.append(await _batch(client, jobs))
        for _ in range(LONE_WARM_UP):
            await _lone(client)
        started = time.perf_counter()
        while len(times) < lone and time.perf_counter() - started < seconds:
            times.append(await _lone(client))
    return {"batches": batches, "lone": times}


async def _batch(client: Any, count: int) -> float:
    started = time.perf_counter()
    values = await _result(client.batch(count))
    took = time.perf_counter() - started
    if list(values) != list(range(count)):
        raise AssertionError(f"not the values of {count} jobs: {str(values)[:200]}")
    return took


async def _lone(client: Any) -> float:
    await asyncio.sleep(_PAUSE)
    started = time.perf_counter()
    value = await _result(client.one(7))
    took = time.perf_counter() - started
    if value != 7:
        raise AssertionError(f"not the value of the job: {value!r}")
    return took


async def _result(returned: Any) -> Any:
    return await returned if inspect.isawaitable(returned) else returned


def main() -> None:
    """Measure one adapter."""
    parser = argparse.ArgumentParser()
    parser.add_argument("adapter")
    parser.add_argument("--jobs", type=int, required=True)
    parser.add_argument("--runs", type=int, required=True)
    parser.add_argument("--lone", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    args = parser.parse_args()
    adapter = importlib.import_module(f"benchmarks.peers.{args.adapter}")
    print(json.dumps(asyncio.run(measure(adapter, args.jobs, args.runs, args.lone, args.seconds))))


if __name__ == "__main__":
    main()
