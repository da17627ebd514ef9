"""No-op jobs of each kind beside plain rows, `.map(numbers)`: submit alone, and end to end with two workers.

    python -m benchmarks.kinds [--size quick|normal|full]

All kinds run in turn; a ratio is the median of those to the plain rows of the same round.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeAlias

from benchmarks.figures import Answer, median, median_ratio
from benchmarks.harness import Effort, main, redis_server, workers
from benchmarks.jobs import fetch_page, keep_document, noop
from benchmarks.throughput import CONCURRENCY, WORKERS, forget
from straggler import JobSpec, Producer

Kind: TypeAlias = Callable[[int], Iterable[JobSpec[int]]]
Times: TypeAlias = dict[str, list[float]]
Run: TypeAlias = Callable[[Iterable[JobSpec[int]], int], Awaitable[float]]

PLAIN = "`.map(numbers)`: plain rows"

_WARM_UP = 1_000

# Some 2 kB of JSON.
_DOCUMENT = {f"field {number}": "x" * 80 for number in range(20)}


def _url(number: int) -> str:
    return f"https://example.org/{number}"


KINDS: dict[str, Kind] = {
    PLAIN: lambda count: noop.map(range(count)),
    "`.spec(number)`": lambda count: (noop.spec(number) for number in range(count)),
    "keywords": lambda count: (fetch_page.spec(url=_url(number), retries=2) for number in range(count)),
    "a key each": lambda count: (noop.spec(number, key=f"k{number}") for number in range(count)),
    "a timeout each": lambda count: (noop.spec(number, timeout=1 + number) for number in range(count)),
    "keywords, a key and a timeout each": lambda count: (
        fetch_page.spec(url=_url(number), retries=2, key=f"k{number}", timeout=1 + number) for number in range(count)
    ),
    "two functions in turn": lambda count: (
        fetch_page.spec(url=_url(number), retries=2) if number % 2 else noop.spec(number) for number in range(count)
    ),
    "2 kB of arguments": lambda count: (keep_document.spec(number, _DOCUMENT) for number in range(count)),
}


USUAL = ["a key each", "a timeout each", "two functions in turn"]
"""Those of which none is to take twice as long as plain rows; the figure tells the slowest."""


async def submit_alone(producer: Producer, jobs: Iterable[JobSpec[int]]) -> float:
    """Submit a batch with no worker there; returns how long it took, s."""
    started = time.perf_counter()
    await producer.submit(jobs)
    took = time.perf_counter() - started
    await producer.redis.flushdb()
    return took


async def end_to_end(producer: Producer, jobs: Iterable[JobSpec[int]], count: int) -> float:
    """Submit a batch and take its results as they come; returns how long it took, s."""
    started = time.perf_counter()
    batch = await producer.submit(jobs)
    number = 0
    async for result in batch.as_completed():
        result.unwrap()
        number += 1
    took = time.perf_counter() - started
    assert number == count
    await forget(producer)
    return took


async def measure(effort: Effort) -> Answer:
    """Measure all kinds."""
    count = effort.pick(1_000, 10_000, 100_000)
    alone: Times = {kind: [] for kind in KINDS}
    whole: Times = {kind: [] for kind in KINDS}
    with redis_server() as url:
        async with Producer(url) as producer:
            await _each(alone, effort.runs, lambda jobs, _: submit_alone(producer, jobs), count)
        async with workers(url, WORKERS, CONCURRENCY), Producer(url) as producer:
            await _each(whole, effort.runs, lambda *jobs: end_to_end(producer, *jobs), count)
    settings = {"workers": WORKERS, "concurrency": CONCURRENCY, "runs": effort.runs, "jobs": f"{count:,}"}
    rows = [_row(kind, alone, whole, count) for kind in KINDS]
    notes = ["The generator that makes the jobs is part of both; `submit` alone is measured while no worker runs."]
    return Answer("No-op jobs of each kind beside plain rows (medians)", settings, rows, figures_of(whole), notes=notes)


async def _each(times: Times, runs: int, run: Run, count: int) -> None:
    """Run all kinds in turn, and a few jobs of each before to warm up."""
    for make in KINDS.values():
        await run(make(_WARM_UP), _WARM_UP)
    for _ in range(runs):
        for kind, make in KINDS.items():
            times[kind].append(await run(make(count), count))


def figures_of(whole: Times) -> dict[str, float]:
    """Tell how fast each kind goes end to end, to plain rows; and the slowest of the usual ones."""
    ratios = {kind: median_ratio(whole[PLAIN], whole[kind]) for kind in KINDS if kind != PLAIN}
    slowest = min(ratios[kind] for kind in USUAL)
    return {f"{kind}, to plain rows": ratio for kind, ratio in {**ratios, "slowest usual kind": slowest}.items()}


def _row(kind: str, alone: Times, whole: Times, count: int) -> dict[str, Any]:
    return {
        "jobs": kind,
        "`submit` alone jobs/s": f"{count / median(alone[kind]):,.0f}",
        "of it, to plain rows": f"{median_ratio(alone[PLAIN], alone[kind]):.2f}",
        "end to end jobs/s": f"{count / median(whole[kind]):,.0f}",
        "to plain rows": f"{median_ratio(whole[PLAIN], whole[kind]):.2f}",
    }


if __name__ == "__main__":
    main(measure)
