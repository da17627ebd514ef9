"""`top` and `workers`: queues, workers and batches as they are now; live on a terminal."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from producer.overview.floor import QueueState, read_floor, read_queues_in_use
from producer.overview.running import read_running
from producer.pace import Pace
from producer.producer import Producer
from protocol.batches import BatchStatus
from protocol.running import RunningJob
from straggler.commands.board import draw_batches, draw_queues, draw_workers
from straggler.commands.logs import set_up_logs
from straggler.commands.output import print_json
from straggler.commands.place import Place
from straggler.commands.process import SUCCEEDED, run_loop
from straggler.commands.status import as_json_of
from straggler.commands.watching import draw_running

# Where there is no terminal, lines are whole and may be long.
_WIDTH = 300
_AT_WORK = 10


@dataclass(frozen=True, slots=True)
class Look:
    """What there is at a moment; `now` is Redis' time, Unix s."""

    now: float
    queues: list[QueueState]
    batches: list[BatchStatus]
    running: list[RunningJob]

    def as_json(self) -> dict[str, Any]:
        """Write it for programs."""
        return {
            "time": self.now,
            "queues": [queue_as_json(queue) for queue in self.queues],
            "batches": [as_json_of(batch) for batch in self.batches],
            "running": [job.model_dump(mode="json") for job in self.running],
        }


def top(place: Place, *, interval: float, limit: int, once: bool, as_json: bool) -> int:
    """Show queues, workers, batches and the slowest jobs, live; once where there is no terminal."""
    set_up_logs(place.settings)
    console = Console(emoji=False, highlight=False)
    if as_json or once or not console.is_terminal:
        return run_loop(_once(place, limit, as_json=as_json))
    return run_loop(_live(place, console, interval, limit))


def workers(place: Place, *, as_json: bool) -> int:
    """Print the queue's workers."""
    set_up_logs(place.settings)
    return run_loop(_workers(place, as_json=as_json))


def queue_as_json(queue: QueueState) -> dict[str, Any]:
    """Write a queue and its workers for programs."""
    return {
        "queue": queue.name,
        "chunks_waiting": queue.waiting,
        "chunks_in_progress_or_later": queue.later,
        "oldest_wait": queue.oldest_wait,
        "workers": [worker.model_dump(mode="json") for worker in queue.workers],
    }


async def look(producer: Producer, limit: int) -> Look:
    """Read what there is: a few small reads, however large the batches are."""
    batches = await producer.batches(limit)
    now = producer.clock.now()
    queues = await read_queues_in_use(producer.redis, {producer.queue}, now)
    running = [job for queue in queues if queue.workers for job in await read_running(producer.redis, queue.name)]
    return Look(now, queues, batches, sorted(running, key=lambda job: job.started_at)[:_AT_WORK])


async def _once(place: Place, limit: int, *, as_json: bool) -> int:
    async with place.producer() as producer:
        found = await look(producer, limit)
    if as_json:
        print_json(found.as_json())
    else:
        Console(emoji=False, highlight=False, width=_WIDTH).print(draw(found, {}))
    return SUCCEEDED


async def _live(place: Place, console: Console, interval: float, limit: int) -> int:
    paces: dict[str, Pace] = {}
    async with place.producer() as producer:
        with Live(console=console, screen=True, auto_refresh=False) as screen:
            while True:
                found = await look(producer, limit)
                for batch in found.batches:
                    paces.setdefault(batch.batch_id, Pace()).see(batch.done, time.monotonic())
                screen.update(draw(found, paces), refresh=True)
                await asyncio.sleep(interval)


async def _workers(place: Place, *, as_json: bool) -> int:
    async with place.producer() as producer:
        [queue] = await read_floor(producer.redis, [producer.queue], producer.clock.now())
        now = producer.clock.now()
    console = Console(emoji=False, highlight=False, width=_WIDTH)
    if as_json:
        print_json(queue_as_json(queue))
    elif queue.workers:
        console.print(draw_workers([queue], now))
    else:
        console.print(f"no worker is alive on queue {queue.name!r}")
    return SUCCEEDED


def draw(found: Look, paces: dict[str, Pace]) -> RenderableType:
    """Draw what there is."""
    parts: list[RenderableType] = [draw_queues(found.queues)]
    if any(queue.workers for queue in found.queues):
        parts += [Text(), draw_workers(found.queues, found.now)]
    if found.batches:
        parts += [Text(), draw_batches(found.batches, paces, found.now)]
    if found.running:
        parts += [Text(), draw_running(tuple(found.running))]
    return Group(*parts)
