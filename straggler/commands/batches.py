"""`submit` and `collect`: batches in a Redis, for workers elsewhere."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from redis.exceptions import RedisError

from producer.batch import Batch
from producer.producer import Producer
from producer.progress import make_progress
from protocol.batches import options as make_options
from protocol.errors import StragglerError, UnknownFunctionError
from protocol.jobs import JobSpec
from straggler.commands.collection import Collection
from straggler.commands.feed import Feed, Input
from straggler.commands.functions import find_function
from straggler.commands.logs import set_up_logs
from straggler.commands.notes import notes
from straggler.commands.output import Output, print_json
from straggler.commands.place import Place
from straggler.commands.process import SUCCEEDED, run_loop, say
from workers.loading import load_all


@dataclass(frozen=True, slots=True)
class Order:
    """A batch to submit: its jobs' source, its id, the job for its end, its options."""

    feed: Feed
    batch_id: str
    on_complete: JobSpec[Any] | None
    options: dict[str, Any]


def submit(
    place: Place,
    function: str,
    source: Input,
    *,
    jobs: str | None,
    batch_id: str | None,
    on_complete: str | None,
    wait: bool,
    out: Output,
    **options: Any,
) -> int:
    """Submit an input's rows as a batch."""
    make_options(**options)  # a bad option is said before a large file is read
    load_all(jobs or place.settings.jobs)
    set_up_logs(place.settings, live=True)
    must_be_known = jobs is not None
    last = None if on_complete is None else JobSpec[Any](function=_name(on_complete, must_be_known=must_be_known))
    feed = source.open(_name(function, must_be_known=must_be_known), place.settings.max_arguments_bytes, out.path)
    order = Order(feed, batch_id or uuid4().hex[:16], last, options)
    return run_loop(_submit_and_collect(place, order, out) if wait else _submit(place, order, out))


def collect(
    place: Place, batch_id: str, *, cursor: str | None, out: Output, jobs: str | None, timeout: float | None
) -> int:
    """Collect a batch's results to its end."""
    set_up_logs(place.settings, live=True)
    load_all(jobs or place.settings.jobs)
    return run_loop(_collect(place, batch_id, cursor, out, timeout))


async def _submit(place: Place, order: Order, out: Output) -> int:
    async with place.producer() as producer:
        with make_progress(notes, live=notes.is_terminal) as progress:
            order.feed.on_count = lambda count: progress.count("jobs sent", count)
            await _send(producer, order)
        _report(order, out)
        await _say_if_nobody_is_there(place, producer, order)
    return SUCCEEDED


async def _submit_and_collect(place: Place, order: Order, out: Output) -> int:
    async with place.producer() as producer:
        with out.export() as export:
            cursor = export.find_cursor(order.batch_id) if export else None
            options = make_options(**order.options)
            batch: Batch[Any] = Batch(producer.scripts, order.batch_id, producer.queue, options, cursor, is_there=False)
            collection = Collection(batch, export, expected=order.feed.total, resumed=cursor is not None)
            submitting = asyncio.create_task(_send_and_report(producer, order, out))
            with out.progress() as progress:
                async with place.collectable_later(collection, out.path):
                    await collection.run_beside(submitting, order.feed, progress)
        return await collection.conclude(as_json=out.as_json)


async def _collect(place: Place, batch_id: str, cursor: str | None, out: Output, timeout: float | None) -> int:
    async with place.producer() as producer:
        return await collect_to_end(place, producer, batch_id, cursor, out, timeout)


async def collect_to_end(
    place: Place, producer: Producer, batch_id: str, cursor: str | None, out: Output, timeout: float | None = None
) -> int:
    """Collect a batch, say what became of it, and return the exit code."""
    batch = await producer.attach(batch_id)  # before a file is made for one that is not there
    with out.export(append=cursor is not None) as export:
        if export is not None and cursor is None:
            cursor = export.find_cursor(batch_id)
        batch = await producer.attach(batch_id, cursor=cursor)
        collection = Collection(batch, export, resumed=cursor is not None)
        with out.progress() as progress:
            async with place.collectable_later(collection, out.path):
                await collection.run(progress, timeout)
    return await collection.conclude(as_json=out.as_json)


async def _send_and_report(producer: Producer, order: Order, out: Output) -> Batch[Any]:
    batch = await _send(producer, order)
    _report(order, out, waits=True)
    return batch


async def _send(producer: Producer, order: Order) -> Batch[Any]:
    try:
        return await producer.submit(
            order.feed.jobs(), batch_id=order.batch_id, on_complete=order.on_complete, **order.options
        )
    except (StragglerError, RedisError, asyncio.CancelledError):
        await _say_what_is_open(producer, order.batch_id)
        raise


async def _say_what_is_open(producer: Producer, batch_id: str) -> None:
    try:
        status = await (await producer.attach(batch_id)).status()
    except (StragglerError, RedisError):
        return
    if not status.closed:
        say(
            f"batch {batch_id} stays open with its first {status.total:,} jobs: to add the rest, submit the whole "
            f"input again with --batch-id {batch_id} (nothing is added twice)"
        )


def _report(order: Order, out: Output, *, waits: bool = False) -> None:
    """Print the batch's id, for scripts (but not among results); say what a person may have missed of the input."""
    if out.as_json and not waits:
        print_json({"batch": order.batch_id, "jobs": order.feed.count})
    else:
        print(order.batch_id, file=sys.stderr if out.is_on_stdout else sys.stdout, flush=True)  # data
    order.feed.conclude()


async def _say_if_nobody_is_there(place: Place, producer: Producer, order: Order) -> None:
    """Say at once what a collector would say in a second."""
    if order.feed.count and not await producer.workers():
        worker = place.command("worker", "--jobs", "MODULE", *_queue_words(place))
        say(f"no worker is alive on queue {producer.queue!r}: the jobs wait for one, as started by\n  {worker}")


def _queue_words(place: Place) -> tuple[str, ...]:
    return ("--queue", place.queue) if place.queue else ()


def _name(function: str, *, must_be_known: bool) -> str:
    """Name the job as the workers know it; its rows are checked only if we know it too."""
    try:
        return find_function(function)
    except UnknownFunctionError:
        if must_be_known or ":" in function:
            raise
        return function
