"""`worker`: worker processes and their supervisor; `worker --check`: whether this host's are well."""

from __future__ import annotations

import gc
import logging
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from protocol import keys
from protocol.connection import Scripts, connect, connected, reach
from protocol.errors import StragglerError
from protocol.settings import Settings
from straggler.commands.functions import load_modules
from straggler.commands.logs import set_up_logs
from straggler.commands.output import print_json
from straggler.commands.place import Place
from straggler.commands.process import SUCCEEDED, run_loop, say
from workers import registry
from workers.crew import WorkerOptions
from workers.leases import say_goodbye
from workers.supervisor import DRAINED, EXHAUSTED, Supervisor, worker_words
from workers.vitals import exposition
from workers.vitals.aftermath import Aftermath
from workers.vitals.endings import die_with_parent
from workers.vitals.pulse import Pulse
from workers.worker import StragglerWorker

logger = logging.getLogger(__name__)

_CHUNKS_BEING_RECORDED = 64

Serve: TypeAlias = Callable[[Aftermath, Supervisor], AbstractContextManager[None]]
"""Serve metrics of a supervisor while it runs."""


@dataclass(frozen=True, slots=True)
class Work:
    """What the command line says of a worker.

    Args:
        jobs: `--jobs`.
        concurrency: `--concurrency`.
        burst: `--burst`.
        verbose: `--verbose`.
        metrics_port: `--metrics-port`.
    """

    jobs: str | None = None
    concurrency: int | None = None
    burst: bool = False
    verbose: bool = False
    metrics_port: int | None = None

    def words(self, queue: str, slots: int) -> list[str]:
        """Write the command line of a worker process."""
        words = ["--queue", queue, "--concurrency", str(slots)]
        words += ["--jobs", self.jobs] if self.jobs else []
        words += ["--burst"] if self.burst else []
        return words + (["--verbose"] if self.verbose else [])


def supervise(place: Place, processes: int, work: Work) -> int:
    """Keep worker processes running until told to stop, or in burst mode until the queue is empty."""
    set_up_logs(place.settings, verbose=work.verbose)
    _log_life()
    return run_loop(_supervise(place, processes, work))


async def _supervise(place: Place, processes: int, work: Work) -> int:
    settings = place.settings
    queue, slots = place.queue or settings.queue, work.concurrency or settings.concurrency
    await reach(place.url)
    redis = connect(place.url)
    try:
        aftermath = Aftermath(Scripts(redis), queue, settings.lease)
        with _metrics(settings, work) as (folder, serve):
            supervisor = Supervisor(
                worker_words(work.words(queue, slots) + (["--metrics", str(folder)] if folder else [])),
                processes,
                # A chunk holds a slot at least, but for those whose last results are just being recorded.
                slots + _CHUNKS_BEING_RECORDED,
                aftermath,
                settings.kill_floor,
                # The URL may hold a password: the environment keeps it off the processes' command lines.
                {**os.environ, "STRAGGLER_REDIS_URL": place.url, "STRAGGLER_LOG_FORMAT": settings.log_format},
                settings.shutdown_wait,
                burst=work.burst,
            )
            with serve(aftermath, supervisor):
                return await supervisor.run()
    finally:
        await say_goodbye(redis, queue)
        await redis.aclose(close_connection_pool=True)


@contextmanager
def _metrics(settings: Settings, work: Work) -> Iterator[tuple[Path | None, Serve]]:
    """Make ready to serve metrics, if they are asked for: yields where processes write their counts, and who serves."""
    port = settings.metrics_port if work.metrics_port is None else work.metrics_port
    if port is None:
        yield None, lambda aftermath, supervisor: nullcontext()
        return
    exposition.require()

    @contextmanager
    def serve(aftermath: Aftermath, supervisor: Supervisor) -> Iterator[None]:
        collector = exposition.Collector(exposition.Ledger(Path(folder)), aftermath.recorded, supervisor.deaths)
        with exposition.serving(settings.metrics_host, port, collector) as served_at:
            logger.info(
                "metrics are served at http://%s:%d/metrics", settings.metrics_host, served_at,
                extra={"event": "worker.metrics", "port": served_at},
            )  # fmt: skip
            yield

    with tempfile.TemporaryDirectory(prefix="straggler-metrics-") as folder:
        yield Path(folder), serve


def work(place: Place, pulse: Path, metrics: Path | None, work: Work) -> int:
    """Run jobs until told to stop, or in burst mode until the queue is empty: one process of a supervisor's."""
    die_with_parent()
    set_up_logs(place.settings, verbose=work.verbose)
    _log_life()
    settings = place.settings
    modules = work.jobs or settings.jobs
    load_modules(modules)
    if modules:
        logger.info("jobs of %s: %s", modules, ", ".join(registry.names()), extra={"event": "worker.jobs"})
    else:
        logger.warning("no --jobs: only ready-made jobs run here, such as http.fetch", extra={"event": "worker.jobs"})
    options = WorkerOptions.of(settings, burst=work.burst)
    queue, concurrency = place.queue or options.queue, work.concurrency or options.concurrency
    options = replace(options, queue=queue, concurrency=concurrency, metrics=metrics)
    # What was imported is never garbage, and looking through it again and again costs every job (29,000 no-op jobs a
    # second without this, 37,000 with it, in two workers).
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000, 10, 10)
    return run_loop(_work(place.url, options, Pulse(pulse)))


def check_health(place: Place, *, as_json: bool) -> int:
    """Find out whether this host's worker is well, by the health key that arq's worker keeps."""
    return run_loop(_check(place.url, place.queue or place.settings.queue, as_json=as_json))


async def _work(url: str, options: WorkerOptions, pulse: Pulse) -> int:
    # Whether there is a Redis at all was the supervisor's to find out: a process that replaces another in the middle of
    # an outage waits for its end.
    worker = StragglerWorker(connect(url), options, pulse=pulse)
    try:
        await worker.main()
    finally:
        await worker.close()
    return EXHAUSTED if worker.exhausted else DRAINED if worker.drained else SUCCEEDED


async def _check(url: str, queue: str, *, as_json: bool) -> int:
    host = socket.gethostname()
    async with connected(url) as redis:
        health = await redis.get(keys.health(f"{queue}:{host}"))
    said = None if health is None else health.decode(errors="backslashreplace")
    if as_json:
        print_json({"healthy": said is not None, "host": host, "queue": queue, "says": said})
    if said is None:
        raise StragglerError(f"no worker of {host} is alive on queue {queue!r}: its health key in Redis has lapsed")
    if not as_json:
        say(f"healthy: {said}")
    return SUCCEEDED


def _log_life() -> None:
    """Let a worker say when it starts and stops, not verbose too."""
    for each in (logging.getLogger("workers.worker"), logger):
        each.setLevel(min(logging.INFO, logging.getLogger("workers").level))
