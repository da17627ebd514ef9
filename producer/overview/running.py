"""The jobs at work, as their workers tell: for people who ask what a batch is waiting for."""

from __future__ import annotations

import logging

from producer.spoilt import naming
from protocol import keys
from protocol.connection import ArqRedis
from protocol.errors import ProtocolError
from protocol.running import RunningJob, decode_running

logger = logging.getLogger(__name__)

# How many of the slowest jobs a batch's status names.
SLOWEST_TOLD = 5
# Workers asked in one read: each tells some 10 KB at most.
_WORKERS_A_READ = 100


async def read_running(redis: ArqRedis, queue: str, batch_id: str | None = None) -> list[RunningJob]:
    """Read what the workers of a queue tell, of one batch or of all, the longest at work first.

    What one worker has told and cannot be read is logged and passed over.

    Raises:
        ProtocolError: If the list of workers is not ours.
    """
    with naming(keys.workers(queue)):
        # One that is gone is no more told of than it is listed: both lapse after the same time.
        workers = await redis.zrange(keys.workers(queue), 0, -1)
    names = [worker.decode(errors="backslashreplace") for worker in workers]
    found: list[RunningJob] = []
    for at in range(0, len(names), _WORKERS_A_READ):
        found += await _read_page(redis, names[at : at + _WORKERS_A_READ])
    return sorted((job for job in found if batch_id in (None, job.batch_id)), key=lambda job: job.started_at)


async def _read_page(redis: ArqRedis, workers: list[str]) -> list[RunningJob]:
    async with redis.pipeline(transaction=False) as pipe:
        pipe.time()
        pipe.mget([keys.running(worker) for worker in workers])
        (seconds, microseconds), told = await pipe.execute()
    found = []
    for worker, data in zip(workers, told, strict=True):
        try:
            found += decode_running(data or b"[]", keys.running(worker), worker, seconds + microseconds / 1e6)
        except ProtocolError as error:
            logger.warning("%s", error, extra={"event": "running.unreadable", "worker": worker})
    return found
