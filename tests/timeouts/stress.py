"""Block the event loop at random moments, in 50 jobs at a time, and look for interrupts out of place.

An interrupt must hit the overdue job that blocks: no other job, not the loop, not what runs beside it.

`python -m tests.timeouts.stress [SECONDS]`, or `make stress`.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from straggler import JobSpec, Producer, Settings, current_job, embedded, job
from tests.timeouts.rows import FOR_EVER, outcome
from workers.interrupts import Interrupted

# More, and one turn of the loop, in which each of them blocks for its while, takes longer than all limits.
CONCURRENT = 50
JOBS = 4 * CONCURRENT
LIMIT = 0.2
# A deadline is not to be measured finer than this, s: the job reads the clock some time after it was interrupted.
_FINENESS = 0.001


@dataclass
class Report:
    """What was seen.

    Args:
        strays: Every interrupt that was out of place, and every exception that reached the event loop.
        outcomes: How often each kind of job ended in what.
        turns: Turns of the loop that the canary outside all jobs has lived through.
    """

    strays: list[str] = field(default_factory=list)
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    turns: int = 0


_report = Report()


def _spin(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def _match(seconds: float) -> None:
    end = time.monotonic() + seconds
    letters = 12
    while time.monotonic() < end:
        re.match(r"(a+)+$", "a" * letters + "b")
        letters = min(letters + 1, 18 if seconds < 1 else 60)


_WAYS: tuple[Callable[[float], None], ...] = (_spin, time.sleep, _match)


async def _block(kind: str, chance: random.Random, seconds: float) -> None:
    me = current_job()
    try:
        chance.choice(_WAYS)(seconds)
    except Interrupted:
        if kind == "punctual" or me.remaining() > _FINENESS or not me.cancelling:
            _report.strays.append(f"{kind} {me!r} with {me.remaining():.4f} s to go")
        raise


@job
async def punctual(seed: int) -> str:
    """Block often and shortly, far from the deadline."""
    chance = random.Random(seed)
    for _ in range(5):
        await asyncio.sleep(chance.random() * 0.1)
        await _block("punctual", chance, chance.random() * 0.004)
    return "done"


@job
async def about_time(seed: int) -> str:
    """Block around the deadline."""
    chance = random.Random(seed)
    await asyncio.sleep(LIMIT * chance.random())
    await _block("about_time", chance, LIMIT * chance.random() * 0.5)
    await asyncio.gather(asyncio.sleep(0), _block("about_time", chance, LIMIT * chance.random() * 0.2))
    return "done"


@job
async def overdue(seed: int) -> str:
    """Block for ever."""
    chance = random.Random(seed)
    await asyncio.sleep(LIMIT * chance.random() * 0.9)
    await _block("overdue", chance, FOR_EVER)
    return "done"


_RIGHT = {
    "punctual": {"success"},
    "about_time": {"success", "timeout cancelled", "timeout late", "timeout interrupted"},
    "overdue": {"timeout interrupted", "timeout cancelled"},  # cancelled where its neighbours left it no time to block
}


def _specs(chance: random.Random, count: int) -> list[JobSpec[Any]]:
    made: list[JobSpec[Any]] = []
    for _ in range(count):
        kind = chance.choices((punctual, about_time, overdue), (100, 8, 1))[0]
        limit = FOR_EVER if kind is punctual else LIMIT
        made.append(kind.spec(chance.randrange(1 << 30), key=kind.name, timeout=limit))
    return made


async def _canary(report: Report) -> None:
    """Turn with the loop, outside all jobs."""
    while True:
        try:
            _spin(0.0001)
            report.turns += 1
        except Interrupted:
            report.strays.append("outside all jobs")
        await asyncio.sleep(0.001)


async def stress(producer: Producer, seconds: float, seed: int = 7) -> Report:
    """Run batches for so long, on a producer of the embedded mode."""
    report = _report
    report.strays, report.outcomes, report.turns = [], Counter(), 0
    loop, chance = asyncio.get_running_loop(), random.Random(seed)
    loop.set_exception_handler(lambda _loop, about: report.strays.append(f"in the loop: {about}"))
    canary = asyncio.create_task(_canary(report))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        batch = await producer.submit(_specs(chance, JOBS), grace=1.0)
        async for result in batch.as_completed():
            how = outcome(result)
            report.outcomes[str(result.key), how] += 1
            if how not in _RIGHT[str(result.key)]:
                report.strays.append(f"{result.key} {result.job_id} ended in {how} {getattr(result, 'traceback', '')}")
    canary.cancel()
    await asyncio.wait({canary})
    loop.set_exception_handler(None)
    return report


async def _main(seconds: float) -> int:
    settings = Settings(concurrency=CONCURRENT)
    async with embedded(settings, url=f"memory://{uuid4().hex}") as producer:
        report = await stress(producer, seconds)
    for (kind, how), count in sorted(report.outcomes.items()):
        print(f"{kind:<12}{how:<22}{count:>8,}")
    print(f"{report.turns:,} turns of the loop beside them; {len(report.strays)} strays", *report.strays, sep="\n  ")
    return 1 if report.strays else 0


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    sys.exit(asyncio.run(_main(float(sys.argv[1]) if len(sys.argv) > 1 else 60.0)))
