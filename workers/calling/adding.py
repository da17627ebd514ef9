"""Let jobs add jobs to their own batch: `current_job().add(...)`.

A job may run again, on another worker, at any moment: so what it adds has a name, its key or which of its additions it
is, and what has been added under that name before is not added again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextvars import Context
from typing import Any, Protocol

from pydantic_core import from_json, to_json
from redis.exceptions import RedisError

from protocol.adding import Adder
from protocol.connection import Scripts
from protocol.errors import BatchClosedError, StragglerError
from protocol.newjobs import NewJob, cut, name_by_key


class Adds(Protocol):
    """A run of a job that adds."""

    index: int
    outcome: Any

    @property
    def batch_id(self) -> str:
        """Its batch."""


class Additions:
    """Add jobs for the jobs of a worker.

    Args:
        scripts: The scripts of the Redis that holds the queue.
        queue: The queue's name.
        limit_bytes: Longest arguments of one job, bytes of JSON.

    Attributes:
        limit_bytes: As given.
    """

    def __init__(self, scripts: Scripts, queue: str, limit_bytes: int) -> None:
        self._scripts = scripts
        self._queue = queue
        self.limit_bytes = limit_bytes
        self._loop = asyncio.get_running_loop()
        # How many jobs without a key each run has added so far.
        self._counts: dict[Adds, int] = {}
        self._tasks: set[asyncio.Task[list[int]]] = set()

    async def close(self) -> None:
        """Break off what is being added."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def add(self, run: Adds, jobs: Sequence[NewJob]) -> list[int]:
        """Add jobs to a run's batch; returns the index of each.

        Once begun it goes on, whatever becomes of the job: the job's cancel reaches no connection of the worker's.

        Raises:
            BatchClosedError: If the batch takes no more jobs.
            StragglerError: If it is gone, or not ours; or the job is over.
        """
        if run.outcome is not None:
            raise StragglerError(f"job {run.batch_id}:{run.index} is over, and adds no more jobs")
        adding = self._add(run.batch_id, jobs, [self._name(run, new) for new in jobs])
        task = self._loop.create_task(adding, name="straggler-add", context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return await asyncio.shield(task)

    def add_from_thread(self, run: Adds, jobs: Sequence[NewJob]) -> list[int]:
        """Do as `add`, from a thread, which waits for it."""
        return asyncio.run_coroutine_threadsafe(self.add(run, jobs), self._loop).result()

    def _name(self, run: Adds, new: NewJob) -> str:
        if new.key is not None:
            return name_by_key(new)
        if run not in self._counts:
            self._counts = {other: count for other, count in self._counts.items() if other.outcome is None}
        count = self._counts.get(run, 0)
        self._counts[run] = count + 1
        return f"#{run.index}.{count}"

    async def _add(self, batch_id: str, jobs: Sequence[NewJob], names: Sequence[str]) -> list[int]:
        adder = Adder(self._scripts, batch_id, self._queue)
        indexes: list[int] = []
        for portion in cut(jobs):
            some = iter(names[len(indexes) : len(indexes) + len(portion)])
            indexes += await adder.add(portion, lambda _, some=some: next(some))  # type: ignore[misc]  # bound now
        return indexes

    def _forget(self, task: asyncio.Task[list[int]]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # the job may have been cancelled meanwhile, and take no note of it


async def answer(run: Any, request: bytes) -> bytes:
    """Add what a job in a process of its own asks for; returns what it is told (see `workers.calling.child`)."""
    jobs = [NewJob(key, text.encode()) for key, text in from_json(request)["add"]]
    try:
        return to_json({"indexes": await run.add(jobs)})
    except BatchClosedError as error:
        return to_json({"closed": error.total})
    except (StragglerError, RedisError) as error:
        return to_json({"problem": str(error)})
