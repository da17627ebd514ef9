"""CPU time a no-op job, by process: workers, producer, Redis. Unlike wall time it can be read on a busy machine.

python benchmarks/costs.py [--jobs 100000] [--runs 5] [--workers 2] [--concurrency 256]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.figures import Answer, median
from benchmarks.harness import redis_server, workers
from benchmarks.jobs import noop
from straggler import Producer


def spent(pid: int | str) -> float:
    """Tell the CPU time that a process has taken so far, s."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def children(pid: int) -> list[int]:
    """Name a process's children, and theirs."""
    own = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return own + [found for child in own for found in children(child)]


def name(pid: int) -> str:
    """Tell what a process of ours is."""
    return "redis" if b"redis-server" in Path(f"/proc/{pid}/cmdline").read_bytes() else "workers"


async def run_batch(producer: Producer, count: int) -> dict[str, float]:
    """Run one batch of no-ops; returns CPU and wall time, us a job."""
    pids = [os.getpid(), *children(os.getpid())]
    before = {pid: spent(pid) for pid in pids}
    started = time.perf_counter()
    batch = await producer.submit(noop.map(range(count)))
    submitted, submit = time.perf_counter() - started, spent(os.getpid()) - before[os.getpid()]
    total = 0
    async for result in batch.as_completed():
        total += result.unwrap()
    wall = time.perf_counter() - started
    assert total == count * (count - 1) // 2
    row = {"workers": 0.0, "redis": 0.0, "producer": 0.0, "of it submit": submit}
    for pid in pids:
        row["producer" if pid == os.getpid() else name(pid)] += spent(pid) - before[pid]
    row |= {"in all": row["workers"] + row["redis"] + row["producer"], "wall": wall, "wall of submit": submitted}
    await producer.redis.flushdb()
    await asyncio.sleep(0.3)
    return {what: seconds / count * 1e6 for what, seconds in row.items()}


async def measure(args: argparse.Namespace) -> None:
    with redis_server() as url:
        async with workers(url, args.workers, args.concurrency), Producer(url) as producer:
            await run_batch(producer, min(args.jobs, 20_000))
            runs = [await run_batch(producer, args.jobs) for _ in range(args.runs)]
    row: dict[str, Any] = {what: f"{median([run[what] for run in runs]):.2f}" for what in runs[0]}
    settings = {"jobs": args.jobs, "runs": args.runs, "workers": args.workers, "concurrency": args.concurrency}
    print(Answer("CPU time of a no-op job, us (medians)", settings, [row], {}).markdown())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--concurrency", type=int, default=256)
    asyncio.run(measure(parser.parse_args()))


if __name__ == "__main__":
    main()
