"""What changes a batch after its submission: more jobs, its close, more time, a cancel."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from uuid import uuid4

from producer.control.cancel import Cancellation, checked_indexes, checked_reason
from producer.control.extension import Extension
from producer.watch import Watch
from protocol import keys
from protocol.adding import Adder
from protocol.batches import BatchOptions
from protocol.connection import Scripts
from protocol.errors import BatchLostError
from protocol.newjobs import Jobs, name_by_key, portions
from protocol.settings import DEFAULT_MAX_ARGUMENTS_BYTES


class Steering:
    """Steer a batch that is in Redis. Several may do so at the same time, from several processes.

    Args:
        scripts: The scripts of its Redis.
        batch_id: Its id.
        queue: The queue that its jobs wait in.
        options: As it was submitted with.
        watch: Looks at it.
        limit_bytes: Longest arguments of one job, bytes of JSON.
    """

    def __init__(
        self,
        scripts: Scripts,
        batch_id: str,
        queue: str,
        options: BatchOptions,
        watch: Watch,
        limit_bytes: int = DEFAULT_MAX_ARGUMENTS_BYTES,
    ) -> None:
        self._scripts = scripts
        self._redis = scripts.redis
        self.id = batch_id
        self.queue = queue
        self.options = options
        self._watch = watch
        self._limit_bytes = limit_bytes
        self._adder = Adder(scripts, batch_id, queue, uuid4().hex)
        self._adding = asyncio.Lock()

    async def add(self, jobs: Jobs, *, unique: bool = False) -> list[int]:
        """Add jobs to an open batch, which `Producer.open_batch` has made: from any process, until it is closed.

        They are appended in one step for each 1,000 jobs, or for each job of an async iterable, and may start at once.
        A call whose answer is lost on its way is sent again, and adds nothing twice. One that was cancelled may have
        been done or not: where it matters, give keys and `unique=True`.

        Args:
            jobs: Jobs, an iterable or an async iterable of them, or one job.
            unique: Whether each job is known by its `key`: one whose key was added to this batch before, by
                `unique=True` too, whoever did it, is not added again.

        Returns:
            The index of each job in the batch, in order; of one that was there already, that one's.

        Raises:
            UsageError: If a job cannot be: ArgumentsError, PayloadTooLargeError, ... Those before its 1,000 are added.
            OptionError: If a job has no key with `unique=True`; as above.
            BatchClosedError: If the batch takes no more jobs. (That all of them were added before is no error.)
            BatchLostError: If the batch is gone.
            ProtocolError: If one of its keys is not ours.
        """
        indexes: list[int] = []
        async with self._adding:
            async for portion in portions(jobs, self._limit_bytes, unique=unique):
                indexes += await self._adder.add(portion, name_by_key)
        return indexes

    async def close(self, *, when_idle: bool = False) -> None:
        """Take no more jobs: the batch is complete once all that it has are done. Closing it twice is no error.

        Args:
            when_idle: Leave it open to its own jobs (`current_job().add`), and let it close by itself with the last of
                them: as soon as each job has its result, nobody is left to add.

        Raises:
            BatchLostError: If the batch is gone.
            ProtocolError: If one of its keys is not ours.
        """
        await self._close("when idle" if when_idle else "now")

    async def cancel(self, indexes: Iterable[int] | None = None, reason: str = "") -> int:
        """Cancel jobs: those that wait never start, those that run are cancelled, with cleanup within `grace`.

        Each ends in a CancelledResult with the reason; results that are recorded stay. Within 0.5 s that holds for all
        that wait, and for all that run and end when they are cancelled, even if no worker is alive. Without indexes the
        whole batch is cancelled and closed: it takes no more jobs, and ends.

        Args:
            indexes: The jobs; None for all.
            reason: Why, for people; at most 200 characters. A job that is cancelled twice keeps its first.

        Returns:
            How many of these jobs had no result yet.

        Raises:
            OptionError: If the batch has no such job, or the reason is too long; nothing is cancelled then.
            BatchLostError: If the batch is gone.
            ProtocolError: If one of its keys is not ours.
        """
        status = await self._watch.status()
        wanted, why = checked_indexes(status, indexes), checked_reason(reason)
        return await Cancellation(self._scripts, status, self.options, why).run(wanted)

    async def extend(self, *, deadline: float) -> None:
        """Give the batch more time: its deadline is so many seconds from now.

        Jobs that run have that time as well, on all workers, as far as their own clocks allow. A worker hears of it
        within milliseconds, or within seconds if it is just connecting anew: do not wait for the last moment. A batch
        without a deadline gets one.

        Args:
            deadline: Seconds from now; not before the deadline that the batch has.

        Raises:
            OptionError: If it is no time, or the batch has more time than that.
            BatchEndedError: If the batch is complete, was cancelled, or its deadline has passed.
            BatchLostError: If the batch is gone.
            ProtocolError: If its header is not ours.
        """
        self._watch.is_new = False
        self.options = await Extension(self._scripts, self.id, deadline).run()

    async def _close(self, how: str) -> None:
        """Close the batch; `how` is what close.lua says."""
        await self._watch.status()  # names what is not ours
        names = (keys.batch(self.id), keys.results(self.id))
        if await self._scripts.run("close", names, (int(keys.OPEN_BATCH_LIFETIME * 1000), how)) < 0:
            raise BatchLostError(self.id)
