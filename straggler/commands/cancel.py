"""`cancel`: a batch, or some of its jobs."""

from __future__ import annotations

from collections.abc import Sequence

from straggler.commands.indexes import read_indexes
from straggler.commands.logs import set_up_logs
from straggler.commands.output import print_json
from straggler.commands.place import Place
from straggler.commands.process import SUCCEEDED, run_loop, say


def cancel(place: Place, batch_id: str, indexes: Sequence[str] | None, reason: str, *, as_json: bool) -> int:
    """Cancel jobs, and say how many had no result yet."""
    set_up_logs(place.settings)
    return run_loop(_cancel(place, batch_id, read_indexes(indexes), reason, as_json=as_json))


async def _cancel(place: Place, batch_id: str, indexes: list[int] | None, reason: str, *, as_json: bool) -> int:
    async with place.producer() as producer:
        batch = await producer.attach(batch_id)
        count = await batch.cancel(indexes, reason)
    if as_json:
        print_json({"batch": batch_id, "cancelled": count})
    else:
        say(_told(batch_id, indexes, count))
    return SUCCEEDED


def _told(batch_id: str, indexes: list[int] | None, count: int) -> str:
    if count:
        return f"batch {batch_id}: {count:,} {'job is' if count == 1 else 'jobs are'} cancelled"
    which = "its jobs" if indexes is None else "these jobs"
    return f"batch {batch_id}: nothing to cancel, all of {which} have their results"
