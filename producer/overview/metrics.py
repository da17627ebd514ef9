"""What Redis knows, for Prometheus: batches that are open, what waits in the queues, who is there to run it.

For whoever serves HTTP and has a producer, such as the dashboard; what jobs came to is told by the workers that ran
them (`workers.vitals.exposition`). Needs prometheus_client (`pip install straggler[metrics]`).
"""

# ruff: noqa: PLC0415  # prometheus_client is an extra: it is imported where it is needed

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from producer.overview.floor import QueueState, read_queues_in_use
from producer.producer import Producer
from protocol.batches import BatchStatus

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# Batches that are looked at, from the newest: a batch that is open and older than so many others is not counted.
_BATCHES = 1000


async def exposition(producer: Producer) -> bytes:
    """Write the metrics in Prometheus' text format: four small reads of Redis.

    Raises:
        ProtocolError: If a key is not ours.
    """
    from prometheus_client import CollectorRegistry, generate_latest

    statuses = [status for status in await producer.batches(_BATCHES) if not status.complete]
    floor = await read_queues_in_use(
        producer.redis, {producer.queue, *(status.queue for status in statuses)}, producer.clock.now()
    )
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Once(list(_metrics(statuses, floor))))
    return generate_latest(registry)


class _Once:
    """Hand over metrics that are made already."""

    def __init__(self, metrics: Sequence[Any]) -> None:
        self._metrics = metrics

    def collect(self) -> Sequence[Any]:
        return self._metrics


def _metrics(statuses: Sequence[BatchStatus], floor: Sequence[QueueState]) -> Iterator[Any]:
    batches = Counter(status.queue for status in statuses)
    queued: Counter[str] = Counter()
    for status in statuses:
        queued[status.queue] += status.queued
    names = [queue.name for queue in floor]
    yield _gauge("straggler_batches_open", "Batches that are not complete.", {name: batches[name] for name in names})
    yield _gauge("straggler_jobs_queued", "Jobs that no worker has taken.", {name: queued[name] for name in names})
    yield _gauge("straggler_queue_chunks", "Chunks that wait.", {queue.name: queue.waiting for queue in floor})
    yield _gauge(
        "straggler_queue_oldest_wait_seconds", "How long the oldest chunk has waited.",
        {queue.name: queue.oldest_wait if queue.waiting else 0.0 for queue in floor},
    )  # fmt: skip
    yield _gauge("straggler_queue_workers", "Workers that live.", {queue.name: len(queue.workers) for queue in floor})
    yield _gauge(
        "straggler_queue_slots", "Jobs that may run at a time.",
        {queue.name: sum(worker.slots or 0 for worker in queue.workers) for queue in floor},
    )  # fmt: skip


def _gauge(name: str, told: str, by_queue: dict[str, float]) -> Any:
    from prometheus_client.core import GaugeMetricFamily

    family = GaugeMetricFamily(name, told, labels=("queue",))
    for queue, value in by_queue.items():
        family.add_metric((queue,), value)
    return family
