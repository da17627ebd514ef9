"""Tables of queues, workers and batches, as `top` shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.table import Table
from rich.text import Text

from producer.overview.floor import QueueState, WorkerState
from producer.pace import Pace
from producer.pictures.durations import rate_words, seconds
from producer.pictures.summary import LABELS
from producer.progress import left_words
from protocol.batches import STATUSES, BatchStatus
from protocol.errors import shorten

_BAR = 20
_LONGEST_NAME = 30
# A loop that lags so much, s, hinders what runs on it; a batch whose oldest chunk waits so long lacks workers.
_LAG_WORTH_SEEING = 0.1


def draw_queues(queues: Sequence[QueueState]) -> Table:
    """Draw a line for each queue."""
    table = _table("queue", workers=1, slots=1, running=1, chunks_waiting=1, oldest_wait=1)
    for queue in queues:
        workers = queue.workers
        count = Text(f"{len(workers):,}", "" if workers else "bold red" if queue.waiting else "dim")
        table.add_row(
            Text(queue.name, "bold"),
            count,
            f"{sum(worker.slots or 0 for worker in workers):,}",
            f"{sum(worker.running or 0 for worker in workers):,}",
            f"{queue.waiting:,}",
            seconds(queue.oldest_wait) if queue.waiting else "-",
        )
    return table


def draw_workers(queues: Sequence[QueueState], now: float) -> Table:
    """Draw a line for each worker."""
    table = _table("worker", "queue", "", running=1, abandoned=1, loop_lag=1, memory=1, seen=1)
    for worker in [worker for queue in queues for worker in queue.workers]:
        table.add_row(
            Text(worker.worker_id),
            Text(worker.queue),
            _slots(worker),
            f"{worker.running or 0:,} of {worker.slots or 0:,}",
            Text(f"{worker.abandoned or 0:,}", "yellow" if worker.abandoned else "dim"),
            _lag(worker.loop_lag),
            "-" if worker.memory is None else f"{worker.memory / (1 << 20):,.0f} MiB",
            f"{max(0.0, now - worker.seen_at):.0f} s ago",
        )
    return table


def draw_batches(batches: Sequence[BatchStatus], paces: Mapping[str, Pace], now: float) -> Table:
    """Draw a line for each batch, with a bar of its results."""
    table = _table("batch", "name", "age", "state", "", done=1, jobs=1, running=1, rate=1, left=1)
    for batch in batches:
        pace = paces.get(batch.batch_id, Pace())
        left = None if batch.complete else pace.left(batch.total - batch.done)
        table.add_row(
            Text(batch.batch_id),
            Text(shorten(batch.name or "", _LONGEST_NAME)),
            age(now - batch.created_at),
            state(batch),
            _results(batch),
            f"{batch.done:,}",
            f"{batch.total:,}",
            f"{batch.running:,}",
            "-" if batch.complete or pace.rate is None else rate_words(pace.rate),
            "-" if left is None else left_words(left),
        )
    return table


def age(elapsed: float) -> str:
    """Write how long ago something was, in its largest unit."""
    elapsed = max(0.0, elapsed)
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if elapsed >= 2 * length:
            return f"{elapsed / length:.0f} {unit}"
    return f"{elapsed:.0f} s"


def state(batch: BatchStatus) -> str:
    """Say in a few words whether a batch is done."""
    if batch.finished_at is not None:
        return f"done in {seconds(batch.finished_at - batch.created_at)}"
    return "in progress" if batch.closed else "open"


def _table(*words: str, **numbers: int) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in words:
        table.add_column(heading, no_wrap=True, overflow="ellipsis")
    for heading in numbers:
        table.add_column(heading.replace("_", " "), justify="right", no_wrap=True)
    return table


def _slots(worker: WorkerState) -> Text:
    total, used = worker.slots or 1, worker.running or 0
    full = min(_BAR // 2, -(-used * _BAR // 2 // total))
    return Text.assemble(("█" * full, "cyan"), ("░" * (_BAR // 2 - full), "dim"))


def _lag(lag: float | None) -> Text:
    if lag is None:
        return Text("-")
    return Text(seconds(lag), "yellow" if lag > _LAG_WORTH_SEEING else "")


def _results(batch: BatchStatus) -> Text:
    """Draw a stacked bar; a kind of result that is there at all is seen."""
    bar = Text()
    for status in STATUSES:
        count = getattr(batch, status)
        if count:
            bar.append("█" * max(1, _BAR * count // max(1, batch.total)), LABELS[status][1])
    bar.truncate(_BAR)
    return bar.append("░" * (_BAR - len(bar)), "dim")
