"""Find jobs by their number, their key, or a part of it: among the results that have been read, and the jobs that run.

Jobs that wait are not looked through: their keys stand in Redis only, with their arguments.
"""

from __future__ import annotations

from collections.abc import Sequence

from dashboard.follower import Follower
from dashboard.keytexts import holds
from dashboard.table import MOST_FOUND
from producer.producer import Producer
from producer.records import read_results
from protocol.running import RunningJob

_CANDIDATES = 25


async def find_jobs(producer: Producer, follower: Follower, wanted: str) -> Sequence[int]:
    """Find the job of this key, or of this number, or else the jobs whose key holds it; two stand for many.

    Raises:
        ProtocolError: If the stream is not ours.
    """
    if not wanted:
        return []
    index = follower.digest.index
    rows = index.keys.find(wanted, MOST_FOUND)
    # Those that may be the very key stand last.
    results = await read_results(
        producer.redis, follower.batch_id, [index.position(row) for row in rows[-_CANDIDATES:]]
    )
    running = running_with(follower, wanted)
    exact = [result.index for result in results if result is not None and result.key == wanted]
    exact += [job.index for job in running if job.key == wanted]
    if exact:
        return exact[:1]
    number = wanted.removeprefix("#")
    if number.isdecimal() and int(number) < follower.status.total:
        return [int(number)]
    return list(dict.fromkeys([*index.jobs(rows[:2]), *(job.index for job in running[:2])]))


def running_with(follower: Follower, part: str) -> list[RunningJob]:
    """Find running jobs whose key holds this, those that run for the longest first."""
    return [job for job in follower.running if holds(job.key, part)]


def searched(follower: Follower) -> str:
    """Say where keys were looked for."""
    index, status = follower.digest.index, follower.status
    told = f"the keys of {len(index.keys):,} of {status.done:,} results"
    if status.complete:
        return told
    return f"{told} and of the jobs that have run for a second; not those of the {status.queued:,} that wait"
