"""`worker`: worker processes, kept running by their supervisor."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen
from typing import TypeAlias

from protocol.connection import Scripts, connect
from protocol.reach import reach
from protocol.settings import Settings
from straggler.commands.logs import log_life, set_up_logs
from straggler.commands.place import Place
from straggler.commands.process import run_loop
from straggler.commands.recruit import Recruit
from workers.leases import say_goodbye
from workers.supervisor import Supervisor
from workers.vitals import exposition
from workers.vitals.aftermath import Aftermath

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


def supervise(place: Place, processes: int, work: Work, recruit: Recruit | None = None) -> int:
    """Keep worker processes running until told to stop, or in burst mode until the queue is empty.

    Args:
        place: Where.
        processes: How many.
        work: What they do.
        recruit: The first of them, if it was started already.
    """
    set_up_logs(place.settings, verbose=work.verbose)
    log_life(logger)
    return run_loop(_supervise(place, processes, work, [recruit] if recruit else []))


async def _supervise(place: Place, processes: int, work: Work, recruits: list[Recruit]) -> int:
    settings = place.settings
    queue, slots = place.queue or settings.queue, work.concurrency or settings.concurrency
    await reach(place.url)
    redis = connect(place.url)
    try:
        aftermath = Aftermath(Scripts(redis), queue, settings.lease)
        with _metrics(settings, work) as (folder, serve):
            words = work.words(queue, slots) + (["--metrics", str(folder)] if folder else [])
            environment = {"STRAGGLER_REDIS_URL": place.url, "STRAGGLER_LOG_FORMAT": settings.log_format}

            def start(pulse: Path) -> Popen[bytes]:
                recruit = recruits.pop() if recruits else Recruit()
                recruit.tell([*words, "--pulse", str(pulse)], environment)
                return recruit.process

            supervisor = Supervisor(
                start,
                processes,
                # A chunk holds a slot at least, but for those whose last results are just being recorded.
                slots + _CHUNKS_BEING_RECORDED,
                aftermath,
                settings.kill_floor,
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
