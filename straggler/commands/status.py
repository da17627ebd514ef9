"""`status`: how far one batch is, or the newest batches are."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from producer.summary import LABELS, seconds
from protocol.batches import STATUSES, BatchStatus
from straggler.commands.place import Place
from straggler.commands.process import SUCCEEDED, run_loop

# A table in a pipe or a log is not to be cut to a terminal's width.
_PIPE_WIDTH = 200


def status(place: Place, batch_id: str | None, *, as_json: bool, limit: int) -> int:
    """Print one batch's status, or a table of the newest batches."""
    return run_loop(_status(place, batch_id, as_json=as_json, limit=limit))


async def _status(place: Place, batch_id: str | None, *, as_json: bool, limit: int) -> int:
    async with place.producer() as producer:
        if batch_id is not None:
            found = [await (await producer.attach(batch_id)).status()]
        else:
            found = await producer.batches(limit)
    if as_json:
        rows = [_as_json(batch) for batch in found]
        json.dump(rows if batch_id is None else rows[0], sys.stdout, indent=2)
        sys.stdout.write("\n")
        return SUCCEEDED
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH)
    if batch_id is not None:
        console.print(_card(found[0]))
    elif found:
        console.print(_table(found))
    else:
        console.print("no batches in this Redis")
    return SUCCEEDED


def _as_json(batch: BatchStatus) -> dict[str, Any]:
    counted = {"done": batch.done, "queued": batch.queued, "running": batch.running, "complete": batch.complete}
    return {**batch.model_dump(mode="json"), **counted}


def _card(batch: BatchStatus) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    table.add_row("batch", batch.batch_id)
    if batch.name:
        table.add_row("name", Text(batch.name))
    if batch.metadata:
        table.add_row("metadata", Text(json.dumps(batch.metadata, ensure_ascii=False)))
    table.add_row("queue", batch.queue)
    table.add_row("state", _state(batch))
    table.add_row("created", _when(batch.created_at))
    if batch.finished_at is not None:
        table.add_row("finished", _when(batch.finished_at))
    table.add_row("jobs", f"{batch.total:,}")
    for name, count in (("queued", batch.queued), ("running", batch.running)):
        if count:
            table.add_row(f"  {name}", f"{count:,}")
    for name in STATUSES:
        label, colour = LABELS[name]
        count = getattr(batch, name)
        if count:
            table.add_row(f"  {label}", Text(f"{count:,}", colour))
    return table


def _table(batches: list[BatchStatus]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for heading in ("batch", "name", "queue", "created", "state"):
        table.add_column(heading, overflow="fold")
    for heading in ("jobs", "queued", "running", *(LABELS[name][0] for name in STATUSES)):
        table.add_column(heading, justify="right")
    for batch in batches:
        counts = [batch.total, batch.queued, batch.running, *(getattr(batch, name) for name in STATUSES)]
        table.add_row(
            batch.batch_id, Text(batch.name or ""), batch.queue, _when(batch.created_at), _state(batch),
            *(Text(f"{count:,}", "" if count else "dim") for count in counts),
        )  # fmt: skip
    return table


def _state(batch: BatchStatus) -> str:
    if batch.finished_at is not None:
        return f"done in {seconds(batch.finished_at - batch.created_at)}"
    return "in progress" if batch.closed else "open"


def _when(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))
