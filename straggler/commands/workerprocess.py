"""One worker process, as a supervisor starts it: `python -m straggler.commands.workerprocess`.

It has imported all of this when it is told its words (`straggler.commands.recruit`), and reads them itself: the
command line's library and what draws tables are a third of what the other commands import, and a worker that dies is
missed until another is there.
"""

from __future__ import annotations

import argparse
import gc
import logging
from dataclasses import replace
from pathlib import Path

from protocol.connection import connect
from protocol.settings import Settings
from straggler.commands.logs import log_life, set_up_logs
from straggler.commands.process import SUCCEEDED, finish, run_loop
from straggler.commands.recruit import await_words
from workers import loading, registry
from workers.crew import WorkerOptions
from workers.supervisor import DRAINED, EXHAUSTED
from workers.vitals.endings import die_with_parent
from workers.vitals.pulse import Pulse
from workers.worker import StragglerWorker

logger = logging.getLogger(__name__)


def main() -> None:
    """Run jobs until told to stop, or in burst mode until the queue is empty; then leave."""
    words = await_words()
    if words is None:
        return
    parser = argparse.ArgumentParser(prog="straggler worker", allow_abbrev=False)
    parser.add_argument("--pulse", type=Path, required=True)
    parser.add_argument("--queue", required=True)
    parser.add_argument("--concurrency", type=int, required=True)
    parser.add_argument("--jobs")
    parser.add_argument("--metrics", type=Path)
    parser.add_argument("--burst", action="store_true")
    parser.add_argument("--verbose", action="store_true")
    given = parser.parse_args(words)
    finish(lambda: work(given))


def work(given: argparse.Namespace) -> int:
    """Do what the words say; returns the exit code."""
    die_with_parent()
    settings = Settings.read()
    set_up_logs(settings, verbose=given.verbose)
    log_life(logger)
    modules = given.jobs or settings.jobs
    loading.load_all(modules)
    if modules:
        logger.info("jobs of %s: %s", modules, ", ".join(registry.names()), extra={"event": "worker.jobs"})
    else:
        logger.warning("no --jobs: only ready-made jobs run here, such as http.fetch", extra={"event": "worker.jobs"})
    options = WorkerOptions.of(settings, burst=given.burst)
    options = replace(options, queue=given.queue, concurrency=given.concurrency, metrics=given.metrics)
    # What was imported is never garbage, and looking through it again and again costs every job (29,000 no-op jobs a
    # second without this, 37,000 with it, in two workers).
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000, 10, 10)
    return run_loop(_work(settings.redis_url, options, Pulse(given.pulse)))


async def _work(url: str, options: WorkerOptions, pulse: Pulse) -> int:
    # Whether there is a Redis at all was the supervisor's to find out: a process that replaces another in the middle of
    # an outage waits for its end.
    worker = StragglerWorker(connect(url), options, pulse=pulse)
    try:
        await worker.main()
    finally:
        await worker.close()
    return EXHAUSTED if worker.exhausted else DRAINED if worker.drained else SUCCEEDED


if __name__ == "__main__":
    main()
