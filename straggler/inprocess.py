"""All of straggler in one process: a Redis in memory, a worker and a producer on one event loop."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from uuid import uuid4

from producer.producer import Producer
from protocol import memory
from protocol.chunks import LARGEST_CHUNK
from protocol.connection import connect
from protocol.settings import Settings
from workers.crew import WorkerOptions
from workers.worker import StragglerWorker


@asynccontextmanager
async def embedded(settings: Settings | None = None, *, url: str | None = None) -> AsyncIterator[Producer]:
    """Yield a producer whose jobs run in this very process; nothing is left behind.

    Args:
        settings: Read from the environment if not given.
        url: A Redis to work with, in place of one in memory.
    """
    settings = settings or Settings.read()
    own = f"memory://{uuid4().hex}"
    url = url or own
    # Nobody would start another worker in this one's place.
    options = replace(WorkerOptions.of(settings), shutdown_wait=0.0, max_abandoned=sys.maxsize, is_alone=url == own)
    worker = StragglerWorker(connect(url), options, handle_signals=False)
    running = asyncio.create_task(worker.main(), name="straggler-worker")
    try:
        async with Producer(url, settings=settings) as producer:
            if options.is_alone:
                producer.largest_chunk = LARGEST_CHUNK
            yield producer
    finally:
        worker.stop()
        await running
        await worker.close()
        memory.forget(own)
