"""A canceller as a process, so that it can be killed: cancels some jobs of one batch of the plan, or all.

Says so once it begins. When the call has returned is written down: from then on none of these jobs may end otherwise.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

from straggler import Batch, Producer
from tests.chaos import plan
from tests.chaos.collect import attach
from tests.chaos.plan import Planned

BEGINS = "cancelling"
# A batch that has not come so far after this, s, is cancelled all the same.
_LONGEST_WAIT = 30.0


async def main(url: str, folder: Path, batch_id: str) -> None:
    """Cancel what is to be cancelled of the batch of that id."""
    [planned] = [planned for planned in plan.read(folder / "plan.jsonl") if planned.batch_id == batch_id]
    async with Producer(url) as producer:
        batch = await attach(producer, batch_id)
        await _wait(batch, planned)
        print(BEGINS, flush=True)  # noqa: T201  # who kills us waits for it
        count = await batch.cancel(None if planned.is_cancelled else planned.cancelled)
        with (folder / "cancelled.jsonl").open("a") as file:
            file.write(json.dumps({"batch_id": batch_id, "returned": time.time(), "count": count}) + "\n")


async def _wait(batch: Batch[Any], planned: Planned) -> None:
    """Wait until the jobs are there, and so many of the batch are done."""
    deadline = time.monotonic() + _LONGEST_WAIT
    while True:
        status = await batch.status()
        is_there = planned.is_cancelled or status.total > max(planned.cancelled)
        is_late = time.monotonic() > deadline
        if is_there and (is_late or status.done >= planned.cancelled_at * len(planned.kinds)):
            return
        await asyncio.sleep(0.05)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3]))
