"""A producer as a process, so that it can be killed: makes one batch of the plan. Says so once it begins.

What an open batch has taken is written down as soon as that is known: it must be in the batch for ever.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from straggler import BatchClosedError, JobSpec, Producer
from tests.chaos import plan
from tests.chaos.plan import KINDS, Planned

BEGINS = "submitting"
# A producer whose jobs come one after another makes so many, then pauses; one whose jobs are at hand adds so many.
_AT_ONCE, _IN_BULK = 10, 100


async def main(url: str, folder: Path, batch_id: str) -> None:
    """Make the batch of that id; again and again, if need be."""
    [planned] = [planned for planned in plan.read(folder / "plan.jsonl") if planned.batch_id == batch_id]
    options: dict[str, Any] = {"retries": planned.retries, "backoff": plan.BACKOFF} if planned.retries else {}
    options |= {"batch_id": batch_id, "timeout": 60, "grace": plan.GRACE, "keep_results": 7200}
    async with Producer(url) as producer:
        print(BEGINS, flush=True)  # noqa: T201  # who kills us waits for it
        try:
            if planned.adding:
                await _add(producer, planned, folder / "added" / f"{batch_id}.jsonl", options)
            else:
                await producer.submit(_trickle(planned) if planned.seconds else list(_specs(planned)), **options)
        except BatchClosedError:
            if not planned.is_cancelled:
                raise


async def _add(producer: Producer, planned: Planned, taken: Path, options: dict[str, Any]) -> None:
    batch = await producer.open_batch(**options)
    specs = list(_specs(planned))
    size = _AT_ONCE if planned.seconds else _IN_BULK
    for at in range(0, len(specs), size):
        await asyncio.sleep(planned.seconds * size / len(specs))
        indexes = await batch.add(specs[at : at + size], unique=planned.adding == "keyed")
        with taken.open("a") as file:
            file.write(json.dumps({"from": at, "indexes": indexes}) + "\n")
    await batch.close(when_idle=len(specs) % 2 == 0)


def _specs(planned: Planned) -> Iterator[JobSpec[Any]]:
    for index, letter in enumerate(planned.kinds):
        kind = KINDS[letter]
        yield JobSpec(function=kind.function, args=(kind.seconds(index),), timeout=kind.limit, key=f"k{index}")


async def _trickle(planned: Planned) -> AsyncIterator[JobSpec[Any]]:
    pause = planned.seconds * _AT_ONCE / len(planned.kinds)
    for index, spec in enumerate(_specs(planned)):
        if index % _AT_ONCE == 0:
            await asyncio.sleep(pause)
        yield spec


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3]))
