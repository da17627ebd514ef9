"""The worker: arq's, with a one-step claim, a wake-up in place of polling, and slots counted per job.

One of the two modules that know arq. `StragglerWorker` keeps arq's life cycle, counters, health key and queue format;
`WorkerSettings` (in `workers.settings`) runs the same chunks on arq's own worker, only slower to notice them.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Sequence
from typing import Any

from arq.connections import ArqRedis, RedisSettings
from arq.worker import RetryJob, Worker, func
from pydantic_core import from_json, to_json
from redis.exceptions import RedisError

from protocol import keys
from protocol.connection import CHUNK_FUNCTION, connect
from workers.chunks import ChunkRun
from workers.claims import LOOK_AGAIN, Claimed, Found
from workers.crew import Crew, WorkerOptions
from workers.leases import FAREWELL, health_key, say_goodbye
from workers.vitals import forks
from workers.vitals.eviction import warn_of_eviction
from workers.vitals.pulse import STOPS, Pulse
from workers.vitals.stopping import Stopping, within

logger = logging.getLogger(__name__)

# An idle worker looks by itself this often, s: a wake-up token can be lost with the worker that took it.
_LONGEST_SLEEP = 5.0


class StragglerWorker(Worker):
    """A worker process's heart.

    Args:
        redis: The connection, from `protocol.connection.connect`; closed with the worker.
        options: How it works.
        handle_signals: Whether SIGTERM and SIGINT stop it; needs the main thread.
        pulse: The memory that is shared with a supervisor, if there is one.

    Attributes:
        exhausted: Whether it leaves because too many jobs were left behind.
        drained: Whether it leaves because somebody wants it to.
    """

    def __init__(
        self, redis: ArqRedis, options: WorkerOptions, *, handle_signals: bool = True, pulse: Pulse | None = None
    ) -> None:
        super().__init__(redis_pool=redis, handle_signals=False, poll_delay=0, **_arq_options(options))
        self.options = options
        self._signals: tuple[signal.Signals, ...] = (signal.SIGTERM, signal.SIGINT) if handle_signals else ()
        self._pulse = pulse
        self.exhausted = False
        self.drained = False
        self._stopping = Stopping()
        self._hurry = asyncio.Event()
        # How long, s, the next claim may wait for a token.
        self._may_wait = 0.0

    async def main(self) -> None:
        """Claim and run chunks until told to stop, or in burst mode until the queue is empty."""
        self.crew = Crew(self.pool, self.options, self._pulse, self._retire, self._be_orphaned, self._leave)
        for signum in self._signals:
            self.loop.add_signal_handler(signum, self.stop)
        forks.reset(self._signals)
        await self.crew.start()
        logger.info(
            "worker %s takes jobs from queue %r, %d at a time",
            self.crew.worker_id, self.options.queue, self.options.concurrency,
            extra={"event": "worker.started", "worker": self.crew.worker_id},
        )  # fmt: skip
        look = self.loop.create_task(warn_of_eviction(self.pool), name="straggler-eviction")
        try:
            # A claim that is on its way is better known of: what it brings would wait until its lease lapses.
            await self._stopping.until_set(self._poll(), FAREWELL)
            await self._drain()
        finally:
            look.cancel()
            await asyncio.wait({look})
            await self.crew.close()
            logger.info(
                "worker %s has stopped", self.crew.worker_id,
                extra={"event": "worker.stopped", "worker": self.crew.worker_id},
            )  # fmt: skip

    def stop(self) -> None:
        """Take nothing new, let running jobs finish for a while, hand back the rest; a second call hurries.

        A signal to all processes of a service comes twice, straight and from the supervisor: only the supervisor knows
        which is a second.
        """
        if self._stopping.is_set and (self._pulse is None or self._pulse.cells[STOPS] > 1):
            self._hurry.set()
        self._stopping.set()
        self.allow_pick_jobs = False

    def _retire(self) -> None:
        if not self.exhausted and not self._stopping.is_set:
            left = len(self.crew.deadlines.left_behind)
            logger.warning(
                "%d jobs were left behind: this worker drains and leaves", left,
                extra={"event": "worker.exhausted", "abandoned": left},
            )  # fmt: skip
            self.exhausted = True
            self.stop()

    def _leave(self) -> None:
        if not self._stopping.is_set:
            logger.info(
                "this worker was told to drain: it stops, and is not replaced", extra={"event": "worker.drained"}
            )
            self.drained = True
            self.stop()

    def _be_orphaned(self) -> None:
        if not self._stopping.is_set:
            logger.warning("the supervisor is gone: this worker stops", extra={"event": "worker.orphaned"})
            self.stop()

    async def close(self) -> None:
        """Take leave of Redis."""
        if self._pool is not None:
            if self._pulse is None:  # else others of this host may go on; the supervisor says goodbye for all
                await say_goodbye(self.pool, self.options.queue)
            await self.pool.aclose(close_connection_pool=True)
            self._pool = None

    async def _poll(self) -> None:
        while not self._stopping.is_set:
            try:
                await self._poll_iteration()
                if self.burst and not self.tasks and not await self.pool.zcard(self.queue_name):
                    return
            except RedisError as error:  # Redis is there, and says what only people can mend
                logger.warning("no chunks can be taken: %s", error, extra={"event": "worker.claim_failed"})
                await asyncio.sleep(1.0)

    async def _poll_iteration(self) -> None:
        """Claim what fits, start it, and wait until there may be more. While Redis is away, all of this waits."""
        await self.heart_beat()
        if not self.crew.slots.has_room:
            await self._stopping.unless_set(self._wait_room(1))
            return
        found = await self._claim()
        for chunk in found.chunks:
            if self.crew.hold(chunk, found.until):
                self._start_chunk(chunk)
        # In three turns a job that ends at once has brought its result to the recorder, which sends it first. By then
        # it is known, too, how many jobs wait here: the next claim would hoard what others have room for.
        for _ in range(3):
            await asyncio.sleep(0)
        # Where nothing more is due there is no need to ask: what comes puts down a token.
        if not found.chunks or found.next_due or found.lacks_processes:
            await self._wait_for_work(found)

    async def _claim(self) -> Found:
        claims, slots = self.crew.claims, self.crew.slots
        may_wait, self._may_wait = self._may_wait, 0.0
        if not may_wait:
            return await claims.due(slots)
        return await self._stopping.unless_set(claims.when_woken(slots, may_wait)) or await claims.recall()

    async def _wait_room(self, count: int) -> None:
        """Wait for room for jobs, but no longer than arq's health key lives: a worker that is full is healthy."""
        await within(self.crew.slots.no_longer(self.options.lease / 2), self.crew.slots.wait_room, count)

    def _start_chunk(self, chunk: Claimed) -> None:
        task = self.loop.create_task(self.crew.run(chunk), name=f"straggler-chunk-{chunk.chunk_id}")
        self.tasks[chunk.chunk_id] = task
        task.add_done_callback(lambda task: self._chunk_ended(chunk.chunk_id, task))

    def _chunk_ended(self, chunk_id: str, task: asyncio.Task[str]) -> None:
        if self.tasks.get(chunk_id) is task:
            del self.tasks[chunk_id]
        if task.cancelled() or task.exception() is not None:
            self.jobs_failed += 1
            logger.error(
                "chunk %s broke", chunk_id, exc_info=None if task.cancelled() else task.exception(),
                extra={"event": "chunk.broke", "batch": chunk_id.rpartition(":")[0], "chunk": chunk_id},
            )  # fmt: skip
        else:
            self.jobs_complete += 1

    async def _wait_for_work(self, found: Found) -> None:
        slots, next_due = self.crew.slots, found.next_due
        if found.lacks_processes:
            # No token is waited for: there is one, for others. What needs no process is looked for instead.
            places = self.crew.processes.places
            await self._stopping.unless_set(within(LOOK_AGAIN, places.wait_room, 1))
            return
        if found.did_not_fit:
            await self._stopping.unless_set(self._wait_room(min(found.did_not_fit, max(1, slots.total // 2))))
            return
        if self.burst:
            await asyncio.sleep(0.02)
            return
        # A claim that waits for a worker which stands still must not renew what it has: it ends before that lapses.
        longest = min(_LONGEST_SLEEP, self.options.lease / 2)
        sleep = longest if next_due < 0 else min(longest, max(0.001, next_due / 1000))
        if slots.free > slots.waiting:
            self._may_wait = sleep  # the next claim itself waits
        else:  # a token is for who can start what it tells of
            await self._stopping.unless_set(within(sleep, slots.wait_empty))

    async def _drain(self) -> None:
        """Let running jobs end for `shutdown_wait`, then hand the rest back.

        A Redis that is away is not waited for: what it could not be told, the lapse of the leases will.
        """
        tasks = set(self.tasks.values())
        if not tasks:
            return
        logger.info("worker stops: %d chunks in progress", len(tasks), extra={"event": "worker.draining"})
        chunks = list(self.crew.chunks.values())
        for chunk in chunks:
            chunk.stop()
        hurry = self.loop.create_task(self._hurry.wait())
        ending = asyncio.ensure_future(asyncio.wait(tasks))
        both: set[asyncio.Future[Any]] = {hurry, ending}
        await asyncio.wait(both, timeout=self.options.shutdown_wait, return_when=asyncio.FIRST_COMPLETED)
        await self._stop_jobs(chunks)
        _, late = await asyncio.wait(tasks, timeout=FAREWELL)
        for task in (hurry, *late):
            task.cancel()
        await asyncio.wait({hurry, ending, *late})

    async def _stop_jobs(self, chunks: Sequence[ChunkRun]) -> None:
        """Hand back what runs, and wait for its cleanup; of jobs that have ended nothing is waited for."""
        grace = max((chunk.longest_grace for chunk in chunks), default=0.0)
        jobs = [task for chunk in chunks for task in chunk.job_tasks]
        for chunk in chunks:
            chunk.hand_back()
        if jobs:
            await asyncio.wait(jobs, timeout=grace)


def arq_settings(url: str, options: WorkerOptions) -> dict[str, Any]:
    """Make what arq's own command line runs a worker by."""

    async def on_startup(ctx: dict[str, Any]) -> None:
        ctx["crew"] = crew = Crew(connect(url), options)  # patient, as arq's own connection is not
        crew.giving_back.least = 1  # what arq has taken it lets go of by itself, and then it must be ours still
        await ctx["crew"].start()

    async def on_shutdown(ctx: dict[str, Any]) -> None:
        await ctx["crew"].close()
        await ctx["crew"].scripts.redis.aclose(close_connection_pool=True)

    return {
        "redis_settings": RedisSettings.from_dsn(url),
        "on_startup": on_startup,
        "on_shutdown": on_shutdown,
        "max_jobs": options.concurrency,
        "job_completion_wait": options.shutdown_wait,
        **_arq_options(options),
    }


def _arq_options(options: WorkerOptions) -> dict[str, Any]:
    return {
        "functions": [func(run_chunk, name=CHUNK_FUNCTION, max_tries=1_000_000, keep_result=0)],
        "queue_name": keys.queue(options.queue),
        "burst": options.burst,
        # No clock of arq's over a chunk, as each job has its own. With a single function arq's in-progress key then
        # lives for 10 s, so even a chunk whose worker dies before it has made the key a lease of ours is soon free.
        "job_timeout": None,
        "keep_result": 0,
        "health_check_interval": options.lease,
        # Replicas of a service have hosts of their own, so each can be asked after its own health.
        "health_check_key": health_key(options.queue),
        "job_serializer": to_json,
        "job_deserializer": from_json,
    }


async def run_chunk(ctx: dict[str, Any], batch_id: str, first: int, count: int, index: int | None = None) -> str:
    """Run a chunk that arq's own worker has taken: make its in-progress key a lease of ours, then as in our worker."""
    crew: Crew = ctx["crew"]
    claimed, until = await crew.claims.named(ctx["job_id"], crew.slots)
    if claimed is None:
        return "no such batch"
    if not crew.hold(claimed, until):
        raise RetryJob
    outcome = await crew.run(claimed)
    # Else arq would take it for done: so is what was forgotten, but not what Redis, which knew of less, put back.
    if outcome == "again" or await crew.scripts.redis.exists(keys.ARQ_JOB + claimed.chunk_id):
        raise RetryJob
    return outcome
