"""How much a worker's processes grow over very many jobs: resident memory of the supervisor and of the worker process.

    python -m benchmarks.soak [--jobs 1000000] [--rough] [--warm-up 20000] [--batch 20000] [--concurrency 256]

The jobs come in batches, one after the other, so what a worker might keep of a batch shows as well as what
it might keep of a job. With `--rough`, one job in twenty times out, and another fails and runs again.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.figures import Answer
from benchmarks.harness import redis_server, resident, workers
from benchmarks.jobs import noop, rough
from protocol import keys
from straggler import Producer

# What a worker may grow by over a million jobs, MiB.
ALLOWED = 20


def parent(pid: int) -> int:
    """Tell who has started a process."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


async def processes(producer: Producer, worker_id: str) -> dict[str, int]:
    """Find a worker's process, and its supervisor's."""
    pid = int(await producer.redis.hget(keys.worker(worker_id), "pid"))  # type: ignore[misc]
    return {"supervisor": parent(pid), "worker": pid}


async def run(producer: Producer, count: int, *, is_rough: bool) -> Counter[str]:
    """Run one batch to its end; returns how many jobs ended how. It is out of Redis soon."""
    jobs = rough.map(range(count)) if is_rough else noop.map(range(count))
    batch = await producer.submit(jobs, timeout=0.05 if is_rough else 60, retries=1, backoff=0.01, keep_results=1)
    return Counter([result.status async for result in batch.as_completed()])


async def measure(args: argparse.Namespace) -> bool:
    """Run the jobs and print how the processes grew; returns whether they grew by no more than is allowed."""
    with redis_server() as url:
        async with workers(url, 1, args.concurrency), Producer(url) as producer:
            [worker_id] = await producer.workers()
            pids = await processes(producer, worker_id)
            await run(producer, args.warm_up, is_rough=args.rough)
            before = {name: resident(pid) for name, pid in pids.items()}
            middle, ended, started = before, Counter[str](), time.perf_counter()
            while ended.total() < args.jobs:
                ended += await run(producer, min(args.batch, args.jobs - ended.total()), is_rough=args.rough)
                if ended.total() <= args.jobs // 2:
                    middle = {name: resident(pid) for name, pid in pids.items()}
            took = time.perf_counter() - started
            after = {name: resident(pid) for name, pid in pids.items()}
            assert await producer.workers() == [worker_id], "a worker was replaced, so nothing was measured"
    settings: dict[str, Any] = {
        "jobs": f"{args.jobs:,}", "of them": dict(ended), "warm-up": args.warm_up, "batch": args.batch,
        "concurrency": args.concurrency, "seconds": round(took, 1),
    }  # fmt: skip
    rows = [
        {
            "resident MiB": name,
            "after warm-up": f"{before[name]:.1f}",
            "half-way": f"{middle[name]:.1f}",
            "at the end": f"{after[name]:.1f}",
            "growth": f"{after[name] - before[name]:+.1f}",
        }
        for name in pids
    ]
    print(Answer("Growth of a worker's processes", settings, rows, {}).markdown())
    return all(after[name] - before[name] < ALLOWED for name in pids)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=1_000_000)
    parser.add_argument("--rough", action="store_true")
    parser.add_argument("--warm-up", type=int, default=20_000)
    parser.add_argument("--batch", type=int, default=20_000)
    parser.add_argument("--concurrency", type=int, default=256)
    if not asyncio.run(measure(parser.parse_args())):
        sys.exit(f"a process grew by {ALLOWED} MiB or more")


if __name__ == "__main__":
    main()
