"""`extend`: more time for a batch."""

from __future__ import annotations

from straggler.commands.logs import set_up_logs
from straggler.commands.output import print_json
from straggler.commands.place import Place
from straggler.commands.process import SUCCEEDED, run_loop, say


def extend(place: Place, batch_id: str, deadline: float, *, as_json: bool) -> int:
    """Move a batch's deadline, and say when it is."""
    set_up_logs(place.settings)
    return run_loop(_extend(place, batch_id, deadline, as_json=as_json))


async def _extend(place: Place, batch_id: str, deadline: float, *, as_json: bool) -> int:
    async with place.producer() as producer:
        batch = await producer.attach(batch_id)
        await batch.extend(deadline=deadline)
        moment = (await batch.status()).deadline
    if as_json:
        print_json({"batch": batch_id, "deadline": moment})
    else:
        say(f"batch {batch_id}: its deadline is {deadline:g} s from now")
    return SUCCEEDED
