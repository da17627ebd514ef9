"""`worker`: one worker process; `worker --check`: whether this host's is well."""

from __future__ import annotations

import logging
import socket
from dataclasses import replace

from protocol import keys
from protocol.connection import connect, connected, reach
from protocol.errors import StragglerError
from straggler.commands.functions import load_modules
from straggler.commands.place import Place
from straggler.commands.process import SUCCEEDED, log_plainly, run_loop, say
from workers import registry
from workers.crew import WorkerOptions
from workers.worker import StragglerWorker

logger = logging.getLogger(__name__)


def work(place: Place, *, jobs: str | None, concurrency: int | None, burst: bool, verbose: bool) -> int:
    """Run jobs until told to stop, or in burst mode until the queue is empty."""
    log_plainly(verbose=verbose)
    _log_life()
    settings = place.settings
    modules = jobs or settings.jobs
    load_modules(modules)
    if modules:
        logger.info("jobs of %s: %s", modules, ", ".join(registry.names()), extra={"event": "worker.jobs"})
    else:
        logger.warning("no --jobs: only ready-made jobs run here, such as http.fetch", extra={"event": "worker.jobs"})
    options = WorkerOptions.of(settings, burst=burst)
    options = replace(options, queue=place.queue or options.queue, concurrency=concurrency or options.concurrency)
    return run_loop(_work(place.url, options))


def check(place: Place) -> int:
    """Find out whether this host's worker is well, by the health key that arq's worker keeps."""
    return run_loop(_check(place.url, place.queue or place.settings.queue))


async def _work(url: str, options: WorkerOptions) -> int:
    redis = connect(url)
    try:
        await reach(redis, url)
    except StragglerError:
        await redis.aclose(close_connection_pool=True)
        raise
    worker = StragglerWorker(redis, options)
    try:
        await worker.main()
    finally:
        await worker.close()
    return SUCCEEDED


async def _check(url: str, queue: str) -> int:
    host = socket.gethostname()
    async with connected(url) as redis:
        health = await redis.get(keys.health(f"{queue}:{host}"))
    if health is None:
        raise StragglerError(f"no worker of {host} is alive on queue {queue!r}: its health key in Redis has lapsed")
    say(f"healthy: {health.decode()}")
    return SUCCEEDED


def _log_life() -> None:
    """Let a worker say when it starts and stops, not verbose too."""
    logging.getLogger("workers.worker").setLevel(logging.INFO)
    logger.setLevel(logging.INFO)
