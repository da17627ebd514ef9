"""What hanging jobs cost the others: 10,000 jobs of which 1 % hang, beside the same batch without the hanging ones.

    python benchmarks/stragglers.py [--jobs 10000] [--timeout 1] [--runs 5] [--workers 2] [--concurrency 100]

The time over the batch without stragglers should be one timeout, as all of them hang at the same time.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.harness import HERE, median, redis_server, report, workers
from benchmarks.jobs import work
from straggler import Producer, TimeoutResult


async def batch(producer: Producer, count: int, hang_every: int | None, timeout: float) -> tuple[float, Counter[str]]:
    """Run one batch; returns its time and its results by kind."""
    jobs = (work.spec(number, hangs=hang_every is not None and number % hang_every == 0) for number in range(count))
    started = time.perf_counter()
    submitted = await producer.submit(jobs, timeout=timeout)
    kinds: Counter[str] = Counter()
    async for result in submitted.as_completed():
        kinds[f"timeout ({result.phase})" if isinstance(result, TimeoutResult) else result.status] += 1
    return time.perf_counter() - started, kinds


async def measure(args: argparse.Namespace) -> None:
    rows: list[dict[str, Any]] = []
    with redis_server() as url:
        async with workers(url, HERE / "jobs.py", args.workers, args.concurrency), Producer(url) as producer:
            await batch(producer, 1000, None, args.timeout)
            plain: list[float] = []
            stuck: list[float] = []
            for _ in range(args.runs):
                took, kinds = await batch(producer, args.jobs, None, args.timeout)
                plain.append(took)
                took, with_stragglers = await batch(producer, args.jobs, 100, args.timeout)
                stuck.append(took)
            for name, times, found in (("none hang", plain, kinds), ("1 % hang", stuck, with_stragglers)):
                results = ", ".join(f"{number:,} {kind}" for kind, number in sorted(found.items()))
                rows.append(
                    {"jobs": f"{args.jobs:,}, {name}", "results": results, "s (median)": f"{median(times):.2f}"}
                )
            extra = median([with_ - without for with_, without in zip(stuck, plain, strict=True)])
            rows.append({"jobs": "difference", "results": "", "s (median)": f"{extra:.2f}"})
    settings = {"timeout s": args.timeout, "workers": args.workers, "concurrency": args.concurrency, "runs": args.runs}
    report("What hanging jobs cost the others", settings, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--timeout", type=float, default=1.0)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--concurrency", type=int, default=100)
    asyncio.run(measure(parser.parse_args()))


if __name__ == "__main__":
    main()
