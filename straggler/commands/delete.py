"""`delete`: a batch and its results."""

from __future__ import annotations

from straggler.commands.logs import set_up_logs
from straggler.commands.output import print_json
from straggler.commands.place import Place
from straggler.commands.process import SUCCEEDED, run_loop, say


def delete(place: Place, batch_id: str, *, as_json: bool) -> int:
    """Delete a batch, and say what is gone with it."""
    set_up_logs(place.settings)
    return run_loop(_delete(place, batch_id, as_json=as_json))


async def _delete(place: Place, batch_id: str, *, as_json: bool) -> int:
    async with place.producer() as producer:
        batch = await producer.attach(batch_id)
        status = await batch.status()
        await batch.delete()
    if as_json:
        print_json({"batch": batch_id, "jobs": status.total, "results": status.done})
    else:
        say(f"batch {batch_id} is deleted: {status.total:,} jobs, {status.done:,} results")
    return SUCCEEDED
