"""What hanging jobs cost the others: 10,000 jobs of which 1 % hang, beside the same batch without; and the picture.

    python -m benchmarks.stragglers [--size quick|normal|full]

The picture's batch is smaller and its jobs take 20 ms: as many hang as there are slots, once with a timeout of a
second, once with one that is out of sight, as without any.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from benchmarks.figures import Answer, median, median_ratio, thinned
from benchmarks.harness import Effort, main, redis_server, workers
from benchmarks.jobs import may_hang, pause
from straggler import JobSpec, Producer

WORKERS = 2
CONCURRENCY = 256
HANG_EVERY = 100
TIMEOUT = 1.0

# The picture's.
SLOTS_A_WORKER = 20
NAP = 0.02
NAPS = 4_000
NO_TIMEOUT = 300.0
WITH_TIMEOUT, WITHOUT_TIMEOUT = "a timeout of 1 s", "no timeout"
# Without a timeout the batch never ends: after so long, s, it is clear that nothing comes any more.
WATCHED = 8.0


@dataclass(slots=True)
class Run:
    """One batch: when each success came, when the last result of all, s from submit; and what there was."""

    successes: list[float] = field(default_factory=list)
    last: float = 0.0
    kinds: Counter[str] = field(default_factory=Counter)


async def run(producer: Producer, jobs: Iterable[JobSpec[Any]], timeout: float, watched: float | None = None) -> Run:
    """Run one batch to its end, or as long as it is watched."""
    found, started = Run(), time.perf_counter()
    batch = await producer.submit(jobs, timeout=timeout)
    try:
        async for result in batch.as_completed(watched):
            found.last = time.perf_counter() - started
            found.kinds[result.status] += 1
            if result.status == "success":
                found.successes.append(found.last)
    except TimeoutError:
        found.last = watched or 0.0
    return found


async def beside_plain(producer: Producer, count: int, runs: int) -> tuple[list[Run], list[Run]]:
    """Run the batch without hanging jobs and with them, in turn; both travel alike, as rows."""
    plain, stuck = [], []
    for _ in range(runs):
        plain.append(await run(producer, may_hang.starmap((number, False) for number in range(count)), TIMEOUT))
        jobs = may_hang.starmap((number, number % HANG_EVERY == 0) for number in range(count))
        stuck.append(await run(producer, jobs, TIMEOUT))
        assert stuck[-1].kinds == Counter(success=count - count // HANG_EVERY, timeout=count // HANG_EVERY)
    return plain, stuck


async def picture(timeout: float) -> list[list[float]]:
    """Run the picture's batch; returns how many jobs had succeeded after how long."""
    hanging = WORKERS * SLOTS_A_WORKER
    every = NAPS // hanging
    jobs = (
        may_hang.spec(number, hangs=True) if number % every == every // 2 else pause.spec(NAP) for number in range(NAPS)
    )
    with redis_server() as url:
        settings = {"STRAGGLER_SHUTDOWN_WAIT": "0.1"}
        async with workers(url, WORKERS, SLOTS_A_WORKER, **settings), Producer(url) as producer:
            await run(producer, pause.map([NAP] * 200), NO_TIMEOUT)
            found = await run(producer, jobs, timeout, WATCHED)
    points = [[0.0, 0.0], *([when, number] for number, when in enumerate(found.successes, 1))]
    return [*thinned(points), [max(found.last, WATCHED), float(len(found.successes))]]


async def measure(effort: Effort) -> Answer:
    """Measure both in turn, then the picture's two lines."""
    count = effort.pick(1_000, 10_000, 10_000)
    with redis_server() as url:
        async with workers(url, WORKERS, CONCURRENCY), Producer(url) as producer:
            await run(producer, may_hang.starmap((number, False) for number in range(count)), TIMEOUT)
            plain, stuck = await beside_plain(producer, count, effort.runs)
    series = {WITH_TIMEOUT: await picture(TIMEOUT), WITHOUT_TIMEOUT: await picture(NO_TIMEOUT)}
    rows = [
        {
            "jobs": f"{count:,}, {name}",
            "results": ", ".join(f"{number:,} {kind}" for kind, number in sorted(runs[0].kinds.items())),
            "last success, s": f"{median([one.successes[-1] for one in runs]):.3f}",
            "last result, s": f"{median([one.last for one in runs]):.3f}",
        }
        for name, runs in (("none hang", plain), ("1 % hang", stuck))
    ]
    figures = {
        "last success ratio": median_ratio([one.successes[-1] for one in stuck], [one.successes[-1] for one in plain]),
        "last result over timeout s": median([one.last - one.successes[-1] - TIMEOUT for one in stuck]),
        "picture jobs": NAPS, "picture hanging": WORKERS * SLOTS_A_WORKER, "picture timeout s": TIMEOUT,
        "picture without": series[WITHOUT_TIMEOUT][-1][1],
    }  # fmt: skip
    settings = {"timeout s": TIMEOUT, "workers": WORKERS, "concurrency": CONCURRENCY, "runs": effort.runs}
    slots, without = WORKERS * SLOTS_A_WORKER, figures["picture without"]
    said = (
        f"The picture: {NAPS:,} jobs of {NAP * 1000:g} ms on {slots} slots, of which {slots} hang. With a timeout of "
    )
    said += f"{TIMEOUT:g} s all others succeed; without one {without:,.0f} do, and then every slot is taken for ever."
    return Answer("What hanging jobs cost the others (medians)", settings, rows, figures, series, [said])


if __name__ == "__main__":
    main(measure)
