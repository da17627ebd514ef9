"""A producer as a process, so that it can be killed: submits one batch of the plan. Says so once it begins."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from straggler import JobSpec, Producer
from tests.chaos import plan
from tests.chaos.plan import KINDS, Planned

BEGINS = "submitting"
# A producer whose jobs come one after another makes so many, then pauses.
_AT_ONCE = 10


async def main(url: str, folder: Path, batch_id: str) -> None:
    """Submit the batch of that id; again and again, if need be."""
    [planned] = [planned for planned in plan.read(folder / "plan.jsonl") if planned.batch_id == batch_id]
    options: dict[str, Any] = {"retries": planned.retries, "backoff": plan.BACKOFF} if planned.retries else {}
    async with Producer(url) as producer:
        print(BEGINS, flush=True)  # noqa: T201  # who kills us waits for it
        jobs = _trickle(planned) if planned.seconds else list(_specs(planned))
        await producer.submit(jobs, batch_id=batch_id, timeout=60, grace=plan.GRACE, keep_results=7200, **options)


def _specs(planned: Planned) -> Iterator[JobSpec[Any]]:
    for index, letter in enumerate(planned.kinds):
        kind = KINDS[letter]
        yield JobSpec(function=kind.function, args=(kind.seconds(index),), timeout=kind.limit)


async def _trickle(planned: Planned) -> AsyncIterator[JobSpec[Any]]:
    pause = planned.seconds * _AT_ONCE / len(planned.kinds)
    for index, spec in enumerate(_specs(planned)):
        if index % _AT_ONCE == 0:
            await asyncio.sleep(pause)
        yield spec


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3]))
