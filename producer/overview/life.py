"""One job: what it was called with, its attempts, what it ended in, and when what happened; found by number or key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from producer.arguments import read_job
from producer.overview.attempts import read_attempts
from producer.overview.running import read_running
from producer.records import START, Position, read_page, read_results
from producer.redrives.origins import scan_chunks
from protocol import keys
from protocol.attempts import Attempt
from protocol.batches import BatchStatus
from protocol.chunks import decode_chunk
from protocol.connection import ArqRedis
from protocol.facts import Facts
from protocol.jobs import JobSpec
from protocol.results import Result
from protocol.running import RunningJob

_ENTRIES_A_READ = 32


class Event(NamedTuple):
    """Something that happened to a job, Unix s on Redis' clock."""

    at: float
    what: str


@dataclass(frozen=True, slots=True)
class Life:
    """What is known of a job.

    Args:
        batch_id: Its batch.
        index: Its place in the batch, from 0.
        spec: What it was called with; None if that is no longer kept.
        attempts: Those that did not become its result, oldest first.
        result: What it ended in, if it has.
        recorded_at: When that was recorded.
        running: What its worker tells of it, if it runs.
    """

    batch_id: str
    index: int
    spec: JobSpec[Any] | None
    attempts: Sequence[Attempt]
    result: Result[Any] | None
    recorded_at: float | None
    running: RunningJob | None

    @property
    def status(self) -> str:
        """Its result's status, or where it is before it has one."""
        if self.result is not None:
            return self.result.status
        return "running" if self.running is not None else "queued"

    @property
    def key(self) -> str | None:
        """What the producer called it."""
        known = self.result or self.running or self.spec
        return known.key if known is not None else None

    @property
    def function(self) -> str:
        """What it calls."""
        known = self.result or self.running or self.spec
        return known.function if known is not None else ""

    @property
    def not_kept(self) -> int:
        """Of how many earlier attempts that have counted nothing is kept but that there were."""
        last = self.result or self.running
        if last is None:
            return 0
        kept = [attempt for attempt in self.attempts if attempt.counts or self.status == "lost"]
        return max(0, last.attempt - 1 - len(kept))

    @property
    def events(self) -> list[Event]:
        """What happened, in order."""
        result, last, found = self.result, self.result or self.running, []
        if result is not None and result.enqueued_at is not None:
            found.append(Event(result.enqueued_at, "submitted"))
        for attempt in self.attempts:
            if attempt.started_at is not None:
                found.append(Event(attempt.started_at, _started(attempt)))
            found.append(Event(attempt.finished_at, f"attempt {attempt.attempt} {_ENDED[attempt.status]}"))
        if last is not None and last.started_at is not None:
            found.append(Event(last.started_at, _started(last)))
        if result is not None and result.finished_at is not None:
            found.append(Event(result.finished_at, f"attempt {result.attempt} ended"))
        found.sort(key=lambda event: event.at)
        if self.recorded_at is not None:  # told in whole milliseconds, so it may seem to be before its end
            found.append(Event(max(self.recorded_at, *(event.at for event in found[-1:])), "result recorded"))
        return found


_ENDED = {
    "failure": "failed",
    "timeout": "timed out",
    "died": "ended as its worker died",
    "handed back": "was handed back",
}


async def read_life(
    redis: ArqRedis, batch_id: str, index: int, place: Position | None, running: RunningJob | None
) -> Life:
    """Read what is known of a job.

    Args:
        redis: Its Redis.
        batch_id: Its batch.
        index: Its place in the batch.
        place: Where its result stands, if it has one.
        running: What its worker tells.

    Raises:
        ProtocolError: If one of its keys is not ours.
    """
    [result] = await read_results(redis, batch_id, [place]) if place is not None else [None]
    attempts = [attempt for attempt in await read_attempts(redis, batch_id, index) if not _is_told_by(result, attempt)]
    spec = await read_job(redis, batch_id, index)
    if result is None:
        return Life(batch_id, index, spec, attempts, None, None, running)
    return Life(batch_id, index, spec, attempts, result, place.recorded_at if place else None, None)


async def find_life(redis: ArqRedis, status: BatchStatus, wanted: str) -> Life | None:
    """Find the first job of this key, or else the one of this number, and read what is known of it.

    Reads a page at a time: all results until it is found, and, where none of them is its, what waits.

    Raises:
        ProtocolError: If one of the batch's keys is not ours.
    """
    batch_id = status.batch_id
    number = int(wanted) if wanted.isdecimal() and int(wanted) < status.total else None
    found = await _find_place(redis, batch_id, wanted, number)
    running = await read_running(redis, status.queue, batch_id) if status.running else []
    if found is None or found[0] == number:
        keyed = next((job.index for job in running if job.key == wanted), None)
        if keyed is None and found is None:
            keyed = await _find_waiting(redis, batch_id, wanted)
        if keyed is not None:
            found = keyed, None
    if found is None and number is not None:
        found = number, None
    if found is None:
        return None
    index, place = found
    return await read_life(redis, batch_id, index, place, next((job for job in running if job.index == index), None))


async def _find_place(
    redis: ArqRedis, batch_id: str, key: str, number: int | None
) -> tuple[int, Position | None] | None:
    after, found = START, None
    while True:
        page = await read_page(redis, batch_id, after, _ENTRIES_A_READ)
        for record in page.records:
            for offset, index, its_key in _jobs(record.facts):
                if its_key == key:
                    return index, Position(record.entry, offset)
                if index == number:
                    found = index, Position(record.entry, offset)
        if page.is_last or not page.records:
            return found
        after = page.records[-1].entry


def _jobs(facts: Facts) -> list[tuple[int, int, str | None]]:
    """List the jobs of an entry: where each stands, its index, its key."""
    found: list[tuple[int, int, str | None]] = []
    for columns, offsets, texts in facts.successes:
        found += zip(offsets, columns.indexes, texts or [None] * len(offsets), strict=True)
    return found + [(offset, result.index, result.key) for offset, result in facts.others]


async def _find_waiting(redis: ArqRedis, batch_id: str, key: str) -> int | None:
    async for first, data in scan_chunks(redis, batch_id):
        for index, job in enumerate(decode_chunk(first, data, keys.chunks(batch_id)), first):
            if job.key == key:
                return index
    return None


def _started(last: Attempt | RunningJob | Result[Any]) -> str:
    return f"attempt {last.attempt} started{f' on {last.worker}' if last.worker else ''}"


def _is_told_by(result: Result[Any] | None, attempt: Attempt) -> bool:
    """Whether it is none beside the result: a lost job's last death, or that of a worker which lived after all."""
    return result is not None and attempt.status == "died" and attempt.worker == result.worker
