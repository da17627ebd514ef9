"""`retry`: those of a batch's jobs that did not succeed, as a new batch."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from redis.exceptions import RedisError

from producer.batch import Batch
from protocol.errors import StragglerError
from straggler.commands.batches import collect_to_end
from straggler.commands.indexes import read_indexes
from straggler.commands.logs import set_up_logs
from straggler.commands.output import Output, print_json
from straggler.commands.place import Place
from straggler.commands.process import SUCCEEDED, run_loop, say


@dataclass(frozen=True, slots=True)
class Choice:
    """Which jobs run again.

    Args:
        batch_id: The batch that they are of.
        statuses: Those that ended so; None for the default.
        indexes: Those with one of these, as they were typed; None for any.
    """

    batch_id: str
    statuses: tuple[str, ...] | None
    indexes: tuple[str, ...] | None


def retry(place: Place, choice: Choice, *, batch_id: str | None, wait: bool, out: Output, **overrides: Any) -> int:
    """Redrive what was chosen, and collect it to its end if that is asked for."""
    set_up_logs(place.settings, live=True)
    return run_loop(_retry(place, choice, batch_id or uuid4().hex[:16], wait=wait, out=out, **overrides))


async def _retry(place: Place, choice: Choice, batch_id: str, *, wait: bool, out: Output, **overrides: Any) -> int:
    async with place.producer() as producer:
        batch = await producer.attach(choice.batch_id)
        status = await batch.status()
        if status.done < status.total:
            left = status.total - status.done
            say(f"batch {batch.id} goes on: {left:,} of its jobs have no result yet, and are not among these")
        try:
            again = await batch.retry(
                choice.statuses, indexes=read_indexes(choice.indexes), batch_id=batch_id, **overrides
            )
        except (RedisError, asyncio.CancelledError):
            say(f"to go on where this was stopped, give the same command again, with --batch-id {batch_id}")
            raise
        if out.as_json and not wait:
            print_json({"batch": again.id, "jobs": (await again.status()).total})
        else:
            print(again.id, file=sys.stderr if out.is_on_stdout else sys.stdout, flush=True)  # data
        await _say_what_it_is(place, batch, again)
        return await collect_to_end(place, producer, again.id, None, out) if wait else SUCCEEDED


async def _say_what_it_is(place: Place, batch: Batch[Any], again: Batch[Any]) -> None:
    try:
        total, workers = (await again.status()).total, await again.workers()
    except StragglerError:  # over, and past its lifetime
        return
    if not total:
        say(f"nothing runs again: no job of batch {batch.id} ended in what was asked for")
    elif not workers:
        queue = () if again.queue == "default" else ("--queue", again.queue)
        worker = place.command("worker", "--jobs", "MODULE", *queue)
        say(f"no worker is alive on queue {again.queue!r}: the jobs wait for one, as started by\n  {worker}")
