"""One job, found by what is known of its batch's results."""

from __future__ import annotations

from dashboard.follower import Follower
from producer.overview.life import Life, read_life
from producer.producer import Producer


async def read_job_of(producer: Producer, follower: Follower, index: int) -> Life:
    """Read what is known of a job.

    Raises:
        ProtocolError: If one of its keys is not ours.
    """
    row = follower.digest.index.row_of(index)
    place = None if row is None else follower.digest.index.position(row)
    running = next((job for job in follower.running if job.index == index), None)
    return await read_life(producer.redis, follower.batch_id, index, place, running)
