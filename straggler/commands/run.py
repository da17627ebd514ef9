"""`run`: a batch from start to end in this one process, without Redis unless one is named."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

from redis.exceptions import RedisError

from producer.batch import Batch
from producer.producer import Producer
from protocol.batches import BatchOptions
from protocol.batches import options as make_options
from protocol.errors import StragglerError
from protocol.settings import Settings
from straggler.commands.collection import Collection
from straggler.commands.feed import Feed, Input
from straggler.commands.functions import find_function
from straggler.commands.logs import set_up_logs
from straggler.commands.output import Output
from straggler.commands.place import Place
from straggler.commands.process import run_loop, say
from straggler.inprocess import embedded
from workers.loading import load_all


def run(
    place: Place,
    function: str,
    source: Input,
    *,
    jobs: str | None,
    concurrency: int | None,
    out: Output,
    verbose: bool,
    **options: Any,
) -> int:
    """Run an input's rows as a batch, here."""
    set_up_logs(place.settings, verbose=verbose, live=True)
    made = make_options(**options)  # a bad option is said before a large file is read
    load_all(jobs or place.settings.jobs)
    settings = place.settings
    feed = source.open(find_function(function, plain_too=True), settings.max_arguments_bytes, out.path)
    batch_id = uuid4().hex[:16]
    # On a Redis that others use, too, the jobs get a queue of their own: they are this process's to run.
    changes = {"concurrency": concurrency or settings.concurrency, "queue": f"run-{batch_id}"}
    return run_loop(_run(place.redis, settings.model_copy(update=changes), feed, batch_id, made, out))


async def _run(
    redis: str | None, settings: Settings, feed: Feed, batch_id: str, options: BatchOptions, out: Output
) -> int:
    with out.export() as export:
        async with embedded(settings, url=redis) as producer:
            batch: Batch[Any] = Batch(producer.scripts, batch_id, producer.queue, options, is_there=False)
            collection = Collection(batch, export, expected=feed.total, shows_workers=False)
            try:
                with out.progress() as progress:
                    submitting = asyncio.create_task(_submit(producer, feed, batch_id, options))
                    await collection.run_beside(submitting, feed, progress)
            except (StragglerError, RedisError, asyncio.CancelledError):
                if collection.tally.total:
                    # In a task of its own: up to Python 3.11.2 timeouts misbehave in one that was cancelled.
                    await asyncio.create_task(collection.conclude(as_json=out.as_json))
                if redis is not None:
                    say(f"the other jobs stay in Redis, for a worker with --queue {producer.queue}")
                raise
            code = await collection.conclude(as_json=out.as_json)
    if out.path is None and not out.as_json and feed.count:
        say("the results were not kept; --out results.jsonl keeps them")
    return code


async def _submit(producer: Producer, feed: Feed, batch_id: str, options: BatchOptions) -> Batch[Any]:
    batch = await producer.submit(feed.jobs(), batch_id=batch_id, **options.model_dump(exclude_unset=True))
    feed.conclude()
    return batch
