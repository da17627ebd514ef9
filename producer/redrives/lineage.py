"""A batch, what it is a redrive of, and all redrives of these: one result for each job that was submitted first."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

from producer.collect import Cursor, read
from producer.redrives.origins import PLACES_A_PAGE, read_places
from producer.status import read_status
from producer.watch import Watch
from protocol.batches import BatchStatus
from protocol.connection import Scripts
from protocol.errors import BatchLostError, BatchNotFoundError
from protocol.results import Result


async def read_lineage(scripts: Scripts, batch_id: str) -> list[Result[Any]]:
    """Wait for all batches of a lineage; returns the latest redrive's result of each job, under its first index.

    Raises:
        BatchLostError: If one of them is gone.
        ProtocolError: If one of their keys is not ours.
    """
    merged: dict[int, Result[Any]] = {}
    first_index: dict[str, Sequence[int]] = {}
    for status in await find_lineage(scripts, batch_id):
        watch = Watch(scripts, status.batch_id, status.queue, is_there=True)
        results = [result async for result in read(scripts.redis, status.batch_id, Cursor(), watch)]
        if status.parent not in first_index:
            merged = {result.index: result for result in results}
            first_index[status.batch_id] = range(len(results))
            continue
        origins = await _read_origins(scripts, status.batch_id, len(results))
        known = first_index[status.parent]
        first_index[status.batch_id] = array("L", [known[origin] for origin in origins])
        for result in results:
            index = first_index[status.batch_id][result.index]
            merged[index] = result.model_copy(update={"index": index})
    return [merged[index] for index in sorted(merged)]


async def find_lineage(scripts: Scripts, batch_id: str) -> list[BatchStatus]:
    """Find all batches of a lineage, the first one first, each after its parent, the latest redrive last.

    Raises:
        BatchLostError: If one of them is gone.
    """
    status = await _look(scripts, batch_id)
    while status.parent is not None:
        status = await _look(scripts, status.parent)
    # Redis' clock may have been set back since: no redrive is older than its parent.
    begun, found, left = {status.batch_id: status.created_at}, [status], list(status.children)
    while left:
        child = await _look(scripts, left.pop())
        begun[child.batch_id] = max(child.created_at, begun[child.parent or ""])
        found.append(child)
        left.extend(child.children)
    return sorted(found, key=lambda status: begun[status.batch_id])


async def _look(scripts: Scripts, batch_id: str) -> BatchStatus:
    try:
        return await read_status(scripts.redis, batch_id)
    except BatchNotFoundError:
        raise BatchLostError(batch_id) from None


async def _read_origins(scripts: Scripts, batch_id: str, count: int) -> array[int]:
    origins = array("L")
    for at in range(0, count, PLACES_A_PAGE):
        places = await read_places(scripts.redis, batch_id, at, min(PLACES_A_PAGE, count - at))
        origins.extend(index for index, _ in places)
    return origins
