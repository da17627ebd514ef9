"""`status`: how far one batch is, or the newest batches are."""

from __future__ import annotations

import json
import time
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from producer.batch import Batch
from producer.pictures.durations import seconds
from producer.pictures.summary import LABELS
from protocol.batches import STATUSES, BatchStatus
from protocol.errors import shorten
from protocol.running import RunningJob
from straggler.commands.board import age, state
from straggler.commands.output import print_json
from straggler.commands.place import Place
from straggler.commands.process import SUCCEEDED, run_loop

# A narrow terminal, a pipe or a log gets whole lines, which may wrap; nothing is cut out of the table.
_WIDTH = 300
_LONGEST_NAME = 30


def status(place: Place, batch_id: str | None, *, as_json: bool, limit: int) -> int:
    """Print one batch's status, or a table of the newest batches."""
    return run_loop(_status(place, batch_id, as_json=as_json, limit=limit))


async def _status(place: Place, batch_id: str | None, *, as_json: bool, limit: int) -> int:
    async with place.producer() as producer:
        if batch_id is not None:
            return await _one(await producer.attach(batch_id), as_json=as_json)
        found = await producer.batches(limit)
    console = Console(emoji=False, highlight=False, width=_WIDTH)
    if as_json:
        print_json([as_json_of(batch) for batch in found])
    elif found:
        console.print(_table(found))
    else:
        console.print("no batches in this Redis")
    return SUCCEEDED


async def _one(batch: Batch[Any], *, as_json: bool) -> int:
    found, workers = await batch.status(), await batch.workers()
    if as_json:
        print_json({**as_json_of(found), "workers": workers})
    else:
        Console(emoji=False, highlight=False, width=_WIDTH).print(_card(found, workers))
    return SUCCEEDED


def as_json_of(batch: BatchStatus) -> dict[str, Any]:
    """Write a batch for programs."""
    counted = {"done": batch.done, "queued": batch.queued, "running": batch.running, "complete": batch.complete}
    return {**batch.model_dump(mode="json"), **counted}


def _card(batch: BatchStatus, workers: int) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    for name, text in _about(batch).items():
        table.add_row(name, Text(text))
    table.add_row("queue", batch.queue)
    if not batch.complete:
        table.add_row("workers", f"{workers:,}" if workers else _missed(batch))
    table.add_row("state", state(batch))
    if batch.stopped is not None:
        table.add_row("stopped", Text(batch.stopped or "cancelled"))
    for name, moment in _times(batch).items():
        table.add_row(name, _when(moment))
    _add_counts(table, batch)
    for number, job in enumerate(batch.slowest):
        table.add_row("" if number else "slowest", Text(_at_work(job)))
    return table


def _add_counts(table: Table, batch: BatchStatus) -> None:
    table.add_row("jobs", f"{batch.total:,}")
    for name, count in (("queued", batch.queued), ("running", batch.running)):
        if count:
            table.add_row(f"  {name}", f"{count:,}")
    for name in STATUSES:
        label, colour = LABELS[name]
        count = getattr(batch, name)
        if count:
            table.add_row(f"  {label}", Text(f"{count:,}", colour))


def _missed(batch: BatchStatus) -> Text:
    """Say that no worker is there, and how to start one."""
    return Text(f"none is alive: start one with 'straggler worker --jobs MODULE --queue {batch.queue}'", "bold red")


def _at_work(job: RunningJob) -> str:
    """Say in a line which job is at work, for how long, and how far it says it is."""
    key = f" ({shorten(job.key, _LONGEST_NAME)})" if job.key else ""
    attempt = f", attempt {job.attempt}" if job.attempt > 1 else ""
    progress = f", {100 * job.progress:.0f} %" if job.progress is not None else ""
    note = f", {job.note}" if job.note else ""
    time = f"{seconds(job.elapsed)} of {seconds(job.limit)}"
    return f"job {job.index}{key}, {job.function}: {time}{attempt}{progress}{note}"


def _about(batch: BatchStatus) -> dict[str, str]:
    about = {
        "batch": batch.batch_id,
        "name": batch.name,
        "metadata": json.dumps(batch.metadata, ensure_ascii=False) if batch.metadata else None,
        "redrive of": batch.parent,
        "redriven in": ", ".join(batch.children),
        "on complete": batch.callback,
        "after": batch.callback_of,
    }
    return {name: text for name, text in about.items() if text}


def _times(batch: BatchStatus) -> dict[str, float]:
    times = {"created": batch.created_at, "deadline": batch.deadline, "finished": batch.finished_at}
    return {name: moment for name, moment in times.items() if moment is not None}


def _table(batches: list[BatchStatus]) -> Table:
    """Draw a line for each batch, without the columns that tell nothing, so that it fits a terminal."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    words = {
        "batch": [batch.batch_id for batch in batches],
        "name": [shorten(batch.name or "", _LONGEST_NAME) for batch in batches],
        "queue": [batch.queue for batch in batches] if len({batch.queue for batch in batches}) > 1 else [],
        "age": [age(time.time() - batch.created_at) for batch in batches],
        "state": [state(batch) for batch in batches],
    }
    numbers = {
        "jobs": [batch.total for batch in batches],
        "queued": [batch.queued for batch in batches],
        "running": [batch.running for batch in batches],
        **{LABELS[name][0]: [getattr(batch, name) for batch in batches] for name in STATUSES},
    }
    told = {heading: cells for heading, cells in words.items() if any(cells)}
    counted = {heading: cells for heading, cells in numbers.items() if any(cells) or heading == "jobs"}
    for heading in told:
        table.add_column(heading, no_wrap=True)
    for heading in counted:
        table.add_column(heading, justify="right", no_wrap=True)
    for number in range(len(batches)):
        cells = [Text(column[number]) for column in told.values()]
        counts = [Text(f"{column[number]:,}", "" if column[number] else "dim") for column in counted.values()]
        table.add_row(*cells, *counts)
    return table


def _when(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))
