"""Batches of a run of chaos: each with a producer and a collector of its own, run again when they are killed."""

from __future__ import annotations

import asyncio
import math
import random
from pathlib import Path

from tests.chaos import cancel, plan, produce
from tests.chaos.findings import Findings
from tests.chaos.plan import Planned
from tests.chaos.programs import Program
from tests.chaos.store import Store

# So many batches are open at a time at least, and at most as many as come in this time, s: a job may take 20, and its
# batch a while more after a fault.
_MOST_OPEN, _LONGEST_OPEN = 8, 60.0
# A producer or collector that dies by itself so often is not started again.
_MOST_DEATHS = 30


class Pair:
    """A batch's producer and collector, and who cancels jobs of it, if anybody does.

    Args:
        planned: The batch.
        url: How they reach Redis.
        folder: The run's folder.
        store: Redis; while it is down nothing is started.
        findings: Where it is told that one died by itself.
    """

    def __init__(self, planned: Planned, url: str, folder: Path, store: Store, findings: Findings) -> None:
        self.planned = planned
        self.producer = self._program("produce", url, folder)
        self.collector = self._program("collect", url, folder)
        self.canceller = self._program("cancel", url, folder)
        self._store = store
        self._findings = findings

    @property
    def programs(self) -> tuple[Program, ...]:
        """All of them."""
        return self.producer, self.collector, self.canceller

    def _program(self, module: str, url: str, folder: Path) -> Program:
        batch_id = self.planned.batch_id
        words = [f"tests.chaos.{module}", url, str(folder), batch_id]
        return Program(f"{module} {batch_id}", words, folder / "logs" / f"{module}-{batch_id}.log", {})

    @property
    def submits(self) -> bool:
        """Whether its producer is in the middle of submitting."""
        return self.producer.is_running and produce.BEGINS in self.producer.output()

    @property
    def cancels(self) -> bool:
        """Whether somebody is in the middle of cancelling."""
        return self.canceller.is_running and cancel.BEGINS in self.canceller.output()

    async def run(self) -> None:
        """Submit and collect the batch, to its end."""
        programs = [self.producer, self.collector] + [self.canceller] * self.planned.cancels
        await asyncio.gather(*map(self._persist, programs))

    async def _persist(self, program: Program) -> None:
        deaths = 0
        while deaths < _MOST_DEATHS:
            await self._store.is_up.wait()
            await program.start()
            if await program.wait() == 0:
                return
            if not program.was_killed and not program.found_no_redis:
                deaths += 1
                self._findings.add("died", f"{program.name} died by itself: {program.last_words()}")
            await asyncio.sleep(0.1)
        self._findings.add("died", f"{program.name} died {deaths} times and is given up")

    async def end(self) -> None:
        """Leave nothing behind."""
        for program in self.programs:
            await program.end()


class Batches:
    """Keep batches coming at a rate, several open at a time.

    Args:
        folder: The run's folder.
        store: Redis.
        rng: Draws what is in them.
        size: Jobs of a batch.
        rate: Jobs a second.
        findings: Where it is told what went wrong.
    """

    def __init__(
        self, folder: Path, store: Store, rng: random.Random, size: int, rate: float, findings: Findings
    ) -> None:
        self.planned: list[Planned] = []
        self.open: list[Pair] = []
        self._folder = folder
        self._store = store
        self._rng = rng
        self._size = size
        self._rate = rate
        self._findings = findings
        self._tasks: set[asyncio.Task[None]] = set()
        self._room = asyncio.Semaphore(max(_MOST_OPEN, math.ceil(_LONGEST_OPEN * rate / size)))

    @property
    def jobs(self) -> int:
        """How many jobs there are so far."""
        return sum(len(planned.kinds) for planned in self.planned)

    async def feed(self) -> None:
        """Start batches for ever."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            await self._room.acquire()
            self._start()
            due = max(due + self._size / self._rate, loop.time() - 10.0)  # what a fault has held up is caught up with
            await asyncio.sleep(max(0.1, due - loop.time()))

    def _start(self) -> None:
        # Work in progress at every moment: some batch is always being submitted.
        seconds = 2 * self._size / self._rate
        planned = plan.draw(self._rng, f"b{len(self.planned) + 1:04}", self._size, seconds)
        plan.append(self._folder / "plan.jsonl", planned)
        self.planned.append(planned)
        pair = Pair(planned, self._store.url, self._folder, self._store, self._findings)
        self.open.append(pair)
        task = asyncio.create_task(self._run(pair), name=f"batch-{planned.batch_id}")
        self._tasks.add(task)
        task.add_done_callback(self._end)

    async def _run(self, pair: Pair) -> None:
        try:
            await pair.run()
        finally:
            await pair.end()
            self.open.remove(pair)
            self._room.release()

    def _end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._findings.add("broken", f"the harness itself, {task.get_name()}: {task.exception()!r}")

    async def close(self, longest: float) -> None:
        """Wait for all batches to end; one that has not after so many seconds is a finding."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=longest)
        for pair in self.open:
            alive = [program.name for program in pair.programs if program.is_running]
            self._findings.add(
                "open", f"batch {pair.planned.batch_id} not closed {longest:g} s after the last fault; runs: {alive}"
            )
        await self.end()

    async def end(self) -> None:
        """Leave nothing behind."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
