"""`worker`: worker processes and their supervisor; `worker --check`: whether this host's are well."""

from __future__ import annotations

import gc
import logging
import os
import socket
from dataclasses import replace
from pathlib import Path

from protocol import keys
from protocol.connection import Scripts, connect, connected, reach
from protocol.errors import StragglerError
from straggler.commands.functions import load_modules
from straggler.commands.place import Place
from straggler.commands.process import SUCCEEDED, log_plainly, run_loop, say
from workers import registry
from workers.aftermath import Aftermath
from workers.crew import WorkerOptions
from workers.endings import die_with_parent
from workers.leases import say_goodbye
from workers.pulse import Pulse
from workers.supervisor import DRAINED, EXHAUSTED, Supervisor, worker_words
from workers.worker import StragglerWorker

logger = logging.getLogger(__name__)

_CHUNKS_BEING_RECORDED = 64


def supervise(
    place: Place, processes: int, *, jobs: str | None, concurrency: int | None, burst: bool, verbose: bool
) -> int:
    """Keep worker processes running until told to stop, or in burst mode until the queue is empty."""
    log_plainly(verbose=verbose)
    settings = place.settings
    queue, slots = place.queue or settings.queue, concurrency or settings.concurrency
    words = ["--queue", queue, "--concurrency", str(slots)]
    words += ["--jobs", jobs] if jobs else []
    words += ["--burst"] if burst else []
    words += ["--verbose"] if verbose else []

    async def run() -> int:
        await reach(place.url)
        redis = connect(place.url)
        try:
            # A chunk holds a slot at least, but for those whose last results are just being recorded.
            chunks = slots + _CHUNKS_BEING_RECORDED
            # The URL may hold a password: the environment keeps it off the processes' command lines.
            environment = {**os.environ, "STRAGGLER_REDIS_URL": place.url}
            aftermath = Aftermath(Scripts(redis), queue, settings.lease)
            return await Supervisor(
                worker_words(words),
                processes,
                chunks,
                aftermath,
                settings.kill_floor,
                environment,
                settings.shutdown_wait,
                burst=burst,
            ).run()
        finally:
            await say_goodbye(redis, queue)
            await redis.aclose(close_connection_pool=True)

    return run_loop(run())


def work(place: Place, pulse: Path, *, jobs: str | None, concurrency: int | None, burst: bool, verbose: bool) -> int:
    """Run jobs until told to stop, or in burst mode until the queue is empty: one process of a supervisor's."""
    die_with_parent()
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
    # What was imported is never garbage, and looking through it again and again costs every job (29,000 no-op jobs a
    # second without this, 37,000 with it, in two workers).
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000, 10, 10)
    return run_loop(_work(place.url, options, Pulse(pulse)))


def check(place: Place) -> int:
    """Find out whether this host's worker is well, by the health key that arq's worker keeps."""
    return run_loop(_check(place.url, place.queue or place.settings.queue))


async def _work(url: str, options: WorkerOptions, pulse: Pulse) -> int:
    # Whether there is a Redis at all was the supervisor's to find out: a process that replaces another in the middle of
    # an outage waits for its end.
    worker = StragglerWorker(connect(url), options, pulse=pulse)
    try:
        await worker.main()
    finally:
        await worker.close()
    return EXHAUSTED if worker.exhausted else DRAINED if worker.drained else SUCCEEDED


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
