"""What a worker works with: connection, slots, recorder, leases, what jobs share, and the chunks in progress.

Both kinds of worker have one crew: ours (`workers.worker`), and arq's own with `workers.settings.WorkerSettings`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from protocol.clock import RedisClock
from protocol.connection import ArqRedis, Scripts
from protocol.settings import DEFAULT_MAX_ARGUMENTS_BYTES, Settings
from workers.calling.adding import Additions
from workers.calling.resources import Resources
from workers.calling.runs import JobRun, Runner
from workers.calling.threads import Threads
from workers.calling.tracing import find_tracing
from workers.chunks import ChunkRun
from workers.claims import Claimed, Claims
from workers.control import Control
from workers.ending.retries import Retries
from workers.interrupts import Interrupts
from workers.leases import FAREWELL, Leases
from workers.processes import Processes
from workers.recorder import ROWS_A_CALL, Recorder
from workers.starting.givingback import GivingBack
from workers.starting.slots import Slots
from workers.starting.tasks import Tasks
from workers.timing.deadlines import Deadlines
from workers.vitals import forks
from workers.vitals.heart import Heart, resident_memory
from workers.vitals.metrics import Metrics, Signs
from workers.vitals.pulse import Pulse
from workers.vitals.running import Running

logger = logging.getLogger(__name__)

# A worker that is alone takes chunks of 1,000 jobs: the next one once half of the last have started.
_AHEAD_ALONE = 500
# And writes the results of a chunk in one call: 256 in each took a tenth more of the time of no-op jobs.
_ROWS_ALONE = 1000


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """How a worker works.

    Args:
        queue: The queue it takes chunks from.
        concurrency: Its slots: jobs that run at a time.
        lease: How long a chunk is held without a sign of life, s.
        shutdown_wait: How long running jobs may finish after SIGTERM, s.
        max_result_bytes: Longest value of one job, bytes of JSON.
        max_arguments_bytes: Longest arguments of one job that a job adds, bytes of JSON.
        job_processes: Processes for plain functions.
        max_abandoned: Runs left behind that a worker bears with before it drains and leaves.
        burst: Whether to leave once the queue is empty.
        is_alone: Whether there is no other worker, nor anybody else on its Redis: nobody could start sooner what it has
            taken, nor waits while a script runs.
        metrics: The folder in which to write down what is counted, if anybody asks for it.
    """

    queue: str = "default"
    concurrency: int = 100
    lease: float = 10.0
    shutdown_wait: float = 10.0
    max_result_bytes: int = 1 << 20
    max_arguments_bytes: int = DEFAULT_MAX_ARGUMENTS_BYTES
    job_processes: int = os.cpu_count() or 1
    max_abandoned: int = 16
    burst: bool = False
    is_alone: bool = False
    metrics: Path | None = None

    @classmethod
    def of(cls, settings: Settings, *, burst: bool = False) -> WorkerOptions:
        """Take what the settings say of workers."""
        return cls(
            queue=settings.queue,
            concurrency=settings.concurrency,
            lease=settings.lease,
            shutdown_wait=settings.shutdown_wait,
            max_result_bytes=settings.max_result_bytes,
            max_arguments_bytes=settings.max_arguments_bytes,
            job_processes=settings.job_processes,
            max_abandoned=settings.max_abandoned,
            burst=burst,
        )


class Crew:
    """Run leased chunks and let go of them.

    Args:
        redis: The worker's connection.
        options: How the worker works.
        pulse: The memory that is shared with a supervisor, if there is one.
        on_exhausted: Called when more runs than `max_abandoned` were left behind.
        on_orphaned: Called when the parent process is gone.
        on_drain: Called when somebody wants this worker to leave.
    """

    def __init__(
        self,
        redis: ArqRedis,
        options: WorkerOptions,
        pulse: Pulse | None = None,
        on_exhausted: Callable[[], None] = lambda: None,
        on_orphaned: Callable[[], None] = lambda: None,
        on_drain: Callable[[], None] = lambda: None,
    ) -> None:
        self.options = options
        self._pulse = pulse
        self.worker_id = f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:6]}"
        cells: Any = pulse.cells if pulse else None
        self.scripts = Scripts(redis)
        self.clock = RedisClock()
        self.slots = Slots(options.concurrency, _AHEAD_ALONE if options.is_alone else 0)
        self.recorder = Recorder(
            self.scripts, self.clock, options.queue, self.worker_id, is_busy=lambda: self.slots.used > 0,
            rows_a_call=_ROWS_ALONE if options.is_alone else ROWS_A_CALL,
        )  # fmt: skip
        self.leases = Leases(
            self.scripts, options.queue, self.worker_id, self.clock,
            self._describe, self._stop_chunk, options.lease, cells, on_drain, is_alone=options.is_alone,
        )  # fmt: skip
        self.processes = Processes(options.job_processes)
        places = None if options.is_alone else self.processes.places
        self.claims = Claims(self.scripts, options.queue, self.worker_id, self.clock, options.lease, places)
        self.retries = Retries(self.scripts, options.queue, self.worker_id)
        self.deadlines = Deadlines(cells)
        self.threads = Threads(options.concurrency + options.max_abandoned, self.deadlines.left_behind)
        self.additions = Additions(self.scripts, options.queue, options.max_arguments_bytes)
        tracing = find_tracing()
        self.runner = Runner(
            self.worker_id, self.slots, self.recorder, self.retries, self.leases, self.clock,
            options.max_result_bytes, self.deadlines, self.processes, self.threads, {}, self.additions,
            tracing.runs_of if tracing else lambda options: JobRun,
        )  # fmt: skip
        self.running = Running(redis, self.runner)
        self.interrupts = Interrupts(self.deadlines)
        self.heart = Heart(self.deadlines, options.max_abandoned, on_exhausted, on_orphaned, self.interrupts.keep)
        self.tasks = Tasks()
        self.resources = Resources()
        self.chunks: dict[str, ChunkRun] = {}
        self.giving_back = GivingBack(self.chunks, self.slots, self.leases.give_back)
        self._came_again: set[str] = set()
        self.control = Control(self.scripts, self.chunks, options.lease * 0.3)
        self._lag = 0.0
        self.metrics = Metrics(options.metrics, self.clock, self._observe) if options.metrics else None
        self.recorder.on_written = self.metrics.count if self.metrics else None

    async def start(self) -> None:
        """Start to record and to renew, and tell the producers of our slots."""
        self.tasks.start(asyncio.get_running_loop())
        forks.watch(self.deadlines)
        self.recorder.start()
        self.leases.start()
        self.control.start()
        self.running.start()
        self.interrupts.start()
        if self._pulse is not None:
            self._pulse.worker_id = self.worker_id
        self.heart.start()
        if self.metrics is not None:
            self.metrics.start()

    async def close(self) -> None:
        """Record what is held, then let go of it and of what the jobs shared."""
        await self.control.close()
        await self.giving_back.close()
        await self.additions.close()
        await self.recorder.close()
        self.interrupts.stop()
        self.deadlines.close()
        await self.running.stop()
        await self.leases.close()
        self.heart.stop()
        await self.processes.close()
        self.threads.close()
        await self.resources.close()
        self.tasks.stop()
        if self.metrics is not None:
            await self.metrics.stop()

    def hold(self, claimed: Claimed, until: float) -> bool:
        """Renew a claimed chunk's lease, which ends at `until`; returns whether it is to be run.

        One that is with us again while its earlier run, which had lost its lease, still cleans up, is let go of when
        that ends, for whoever comes first. One whose lease was over before this process heard of it (it stood still) is
        others' to run, where there may be others.
        """
        if until <= time.monotonic() and not self.options.is_alone:
            return False
        self.leases.hold(claimed.chunk_id, until)
        if claimed.chunk_id not in self.chunks:
            return True
        self._came_again.add(claimed.chunk_id)
        return False

    async def run(self, claimed: Claimed) -> str:
        """Run a chunk that this worker holds; returns what became of it."""
        started = time.monotonic()
        self.resources.enter()
        row = self._pulse.hold(claimed.chunk_id) if self._pulse else -1
        begun = self._pulse.begun if self._pulse else None
        chunk = self.chunks[claimed.chunk_id] = ChunkRun(claimed, self.runner, row, begun)
        self.control.took(chunk.batch_id)
        if not self.options.is_alone:
            self.giving_back.watch()
        try:
            outcome = await chunk.run()
            await self._release(chunk, outcome)
        except asyncio.CancelledError:  # arq's own worker shuts down so, and ours when Redis is away then
            chunk.hand_back()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(chunk.longest_grace + FAREWELL):
                    await self._release(chunk, await chunk.finish())
                    self._drop(claimed)
            raise
        else:
            self._drop(claimed)
        finally:
            del self.chunks[claimed.chunk_id]
            self.leases.forget(claimed.chunk_id)
        logger.info(
            "chunk %s %s in %.3f s", claimed.chunk_id, outcome, time.monotonic() - started,
            extra={"event": "chunk.done", "chunk": claimed.chunk_id, "batch": chunk.batch_id, "outcome": outcome},
        )  # fmt: skip
        return outcome

    async def _release(self, chunk: ChunkRun, outcome: str) -> None:
        claimed = chunk.claimed
        if not chunk.is_released:
            await self.leases.release(claimed, outcome, chunk.handed_back)
        # Claimed by ourselves once it was back in the queue, before we had heard that it is.
        while claimed.chunk_id in self._came_again:
            self._came_again.discard(claimed.chunk_id)
            await self.leases.release(claimed, "again")

    def _drop(self, claimed: Claimed) -> None:
        # What could not be released stays in the shared memory: the supervisor hands it back.
        if self._pulse is not None:
            self._pulse.drop(claimed.chunk_id)

    def _describe(self) -> dict[str, Any]:
        self._lag = self.heart.take_lag()
        return {
            "slots": self.slots.total,
            "running": self.slots.used,
            "abandoned": len(self.deadlines.left_behind),
            "loop_lag": round(self._lag, 6),
            "memory": resident_memory(),
        }

    def _observe(self, signs: Signs) -> None:
        patience = getattr(self.scripts.redis, "patience", None)  # arq's own client has none
        signs.counted = {
            "redis_retries": patience.retries if patience else 0,
            "leases_renewed": self.leases.renewed,
            "leases_lost": self.leases.lost,
        }
        signs.batches = list({chunk.batch_id for chunk in self.chunks.values()})
        signs.now = {
            "slots": self.slots.total,
            "slots_in_use": self.slots.used,
            "abandoned_jobs": len(self.deadlines.left_behind),
            "results_held": self.recorder.held,
            "memory_bytes": resident_memory(),
            "loop_lag_seconds": self._lag,
        }

    def _stop_chunk(self, chunk_id: str) -> None:
        if chunk_id in self.chunks:
            self.chunks[chunk_id].hand_back()
