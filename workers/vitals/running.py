"""Tell once a second which jobs run here for long, and how far they say they are.

No job waits for that, and none that ends within a second and says nothing of itself costs anything. While Redis is away
nothing is told; the key of a worker that is gone lapses.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from itertools import islice
from typing import Any

from redis.exceptions import RedisError

from protocol import keys
from protocol.connection import ArqRedis
from protocol.running import MOST_TOLD, TOLD_AFTER, RunningJob, encode_running
from workers.calling.reports import Report
from workers.calling.runs import JobRun, Runner

logger = logging.getLogger(__name__)

# Between two words of this worker, s.
_INTERVAL = 1.0


class Running:
    """Write down what this worker runs, in one key, for as long as there is something to tell.

    Args:
        redis: Where to.
        runner: What the worker's runs share.
    """

    def __init__(self, redis: ArqRedis, runner: Runner) -> None:
        self._redis = redis
        self._runner = runner
        self._key = keys.running(runner.worker_id)
        self._is_told = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start to tell."""
        self._task = asyncio.create_task(self._tell_for_ever(), name="straggler-running")

    async def stop(self) -> None:
        """Tell no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _tell_for_ever(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _INTERVAL
            try:
                # What Redis is told at last is to be of that moment, so what is held up is begun anew.
                async with asyncio.timeout_at(due):
                    await self._tell()
            except TimeoutError:
                continue
            except RedisError as error:  # full, or another kind of value stands there
                logger.warning("nobody is told what runs: %s", error, extra={"event": "running.write_failed"})
            await asyncio.sleep(due - loop.time())

    async def _tell(self) -> None:
        found = [self._describe(run) for run in self._worth_telling()]
        if found:
            self._is_told = True
            await self._redis.set(self._key, encode_running(found), px=int(keys.WORKER_LIFETIME * 1000))
        elif self._is_told:
            await self._redis.delete(self._key)
            self._is_told = False

    def _worth_telling(self) -> list[JobRun]:
        """List the runs that began first, of those that are old enough or have said something."""
        reports = self._runner.reports
        for run in [run for run in list(reports) if run.outcome is not None]:
            del reports[run]
        long_ago = asyncio.get_running_loop().time() - TOLD_AFTER
        told = dict.fromkeys(islice(self._begun_before(long_ago), MOST_TOLD))
        told.update(dict.fromkeys(run for run, report in list(reports.items()) if report.beaten_at))
        return sorted(told, key=lambda run: run.started)[:MOST_TOLD]

    def _begun_before(self, moment: float) -> Iterator[JobRun]:
        for run in self._runner.deadlines.runs():
            if run.started > moment:
                return
            if isinstance(run, JobRun):
                yield run

    def _describe(self, run: JobRun) -> RunningJob:
        report: Report | None = self._runner.reports.get(run)
        said: dict[str, Any] = {} if report is None else {"progress": report.progress, "note": _clean(report.note)}
        return RunningJob(
            batch_id=run.chunk.batch_id,
            index=run.index,
            key=run.job.key,
            function=run.job.function,
            attempt=run.attempt,
            started_at=round(self._runner.clock.at(run.started), 6),
            limit=run.limit,
            **said,
        )


def _clean(note: str) -> str:
    """Put a note on one line, without what no terminal should be sent and no UTF-8 can hold."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in note).split())
