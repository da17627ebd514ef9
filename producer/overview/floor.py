"""The floor: which queues there are, which workers are alive, how full they are, and what waits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from producer.spoilt import naming, raise_named
from protocol import keys
from protocol.connection import ArqRedis


class WorkerState(BaseModel):
    """What one worker says of itself; what it does not say is None.

    Args:
        worker_id: Its id.
        seen_at: When it last said that it is alive, Unix s on Redis' clock.
        loop_lag: The longest that its event loop has lately stood still, s.
        memory: Its process' resident memory, bytes.
        draining: Whether it was told to leave.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    worker_id: str
    queue: str
    seen_at: float
    host: str | None = None
    pid: int | None = None
    slots: int | None = Field(default=None, ge=0)
    running: int | None = Field(default=None, ge=0)
    abandoned: int | None = Field(default=None, ge=0)
    loop_lag: float | None = None
    memory: int | None = None
    draining: bool = False


class QueueState(NamedTuple):
    """A queue: chunks that are due and wait, those that run or are due later, and how long the oldest has waited, s."""

    name: str
    waiting: int
    later: int
    oldest_wait: float
    workers: list[WorkerState]


async def list_queues(redis: ArqRedis) -> set[str]:
    """Name the queues that were in use within the last days, by workers or producers, at most 1,000 of them.

    Raises:
        ProtocolError: If the list is not ours.
    """
    with naming(keys.QUEUES):
        names = await redis.zrange(keys.QUEUES, 0, -1)
    return {name.decode(errors="backslashreplace") for name in names}


async def read_queues_in_use(redis: ArqRedis, wanted: set[str], now: float) -> list[QueueState]:
    """Look at all queues that have workers or chunks, and at those that are wanted in any case, in three round trips.

    Args:
        redis: Where they are.
        wanted: Names of the latter.
        now: Redis' time, Unix s.

    Raises:
        ProtocolError: If a key is not ours.
    """
    found = await read_floor(redis, sorted(wanted | await list_queues(redis)), now)
    return [queue for queue in found if queue.workers or queue.waiting or queue.later or queue.name in wanted]


async def read_floor(redis: ArqRedis, queues: Sequence[str], now: float) -> list[QueueState]:
    """Look at queues and their workers, in two round trips.

    Args:
        redis: Where they are.
        queues: Their names.
        now: Redis' time, Unix s.

    Raises:
        ProtocolError: If a key is not ours.
    """
    asked = [key for queue in queues for key in (keys.workers(queue), *[keys.queue(queue)] * 3)]
    async with redis.pipeline(transaction=False) as pipe:
        for queue in queues:
            pipe.zrangebyscore(keys.workers(queue), now - keys.WORKER_LIFETIME, "+inf", withscores=True)
            pipe.zcount(keys.queue(queue), "-inf", now * 1000)
            pipe.zcard(keys.queue(queue))
            pipe.zrange(keys.queue(queue), 0, 0, withscores=True)
        replies = await pipe.execute(raise_on_error=False)
    for key, reply in zip(asked, replies, strict=True):
        raise_named(reply, key)
    told = [replies[at : at + 4] for at in range(0, len(replies), 4)]
    workers = await _read_workers(
        redis, [(q, *seen) for q, (alive, *_) in zip(queues, told, strict=True) for seen in alive]
    )
    return [
        QueueState(queue, due, held - due, _wait(head, now), [worker for worker in workers if worker.queue == queue])
        for queue, (_, due, held, head) in zip(queues, told, strict=True)
    ]


async def drain(redis: ArqRedis, worker_id: str, now: float) -> bool:
    """Tell a worker to drain: within seconds it takes no more jobs, ends those that run as after SIGTERM, and leaves.

    Its supervisor starts no other in its place, and leaves with its last one.

    Args:
        redis: Where it is.
        worker_id: Its id.
        now: Redis' time, Unix s.

    Returns:
        Whether there is such a worker.

    Raises:
        ProtocolError: If what stands at its key is not ours.
    """
    with naming(keys.worker(worker_id)):
        is_there = await redis.hexists(keys.worker(worker_id), "queue")  # type: ignore[misc]  # typed for both clients
    if is_there:
        await redis.set(keys.drain(worker_id), f"{now:.3f}", px=int(keys.DRAIN_LIFETIME * 1000))
    return bool(is_there)


async def _read_workers(redis: ArqRedis, seen: Sequence[tuple[str, bytes, float]]) -> list[WorkerState]:
    names = [(queue, name.decode(errors="backslashreplace"), seen_at) for queue, name, seen_at in seen]
    async with redis.pipeline(transaction=False) as pipe:
        for _, name, _ in names:
            pipe.hgetall(keys.worker(name))
            pipe.exists(keys.drain(name))
        replies = await pipe.execute(raise_on_error=False)
    said = zip(names, replies[::2], replies[1::2], strict=True)
    return [_parse(*about, says, is_draining=bool(is_told)) for about, says, is_told in said]


def _parse(queue: str, worker_id: str, seen_at: float, said: Any, *, is_draining: bool) -> WorkerState:
    """Read what a worker says; a field that makes no sense is as good as none."""
    known = {"worker_id": worker_id, "queue": queue, "seen_at": seen_at, "draining": is_draining}
    fields = {name.decode(errors="replace"): value for name, value in said.items()} if isinstance(said, Mapping) else {}
    try:
        return WorkerState.model_validate({**fields, **known}, strict=False)
    except ValidationError as error:
        bad = {str(problem["loc"][0]) for problem in error.errors()}
        return WorkerState.model_validate({**{name: fields[name] for name in fields if name not in bad}, **known})


def _wait(head: Sequence[tuple[bytes, float]], now: float) -> float:
    return max(0.0, now - head[0][1] / 1000) if head else 0.0
