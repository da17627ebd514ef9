"""`status BATCH --job`: one job's attempts, result, value and arguments."""

from __future__ import annotations

import time
from typing import Any

from pydantic_core import to_json
from rich.console import Console
from rich.table import Table
from rich.text import Text

from producer.overview.life import Life, find_life
from producer.pictures.durations import seconds
from producer.pictures.summary import LABELS
from protocol.attempts import Attempt
from protocol.errors import UsageError
from protocol.results import CancelledResult, FailureResult, LostResult, Result, SuccessResult, TimeoutResult
from protocol.running import RunningJob
from straggler.commands.output import print_json
from straggler.commands.place import Place
from straggler.commands.process import SUCCEEDED, run_loop

# A value is cut on a terminal; `--json` has all of it.
_LONGEST = 2_000
_LABELS = {**LABELS, "running": ("running", ""), "queued": ("queued", "")}


def job(place: Place, batch_id: str, wanted: str, *, as_json: bool) -> int:
    """Print what is known of one job, found by its key or number."""
    return run_loop(_job(place, batch_id, wanted, as_json=as_json))


async def _job(place: Place, batch_id: str, wanted: str, *, as_json: bool) -> int:
    async with place.producer() as producer:
        status = await (await producer.attach(batch_id)).status()
        life = await find_life(producer.redis, status, wanted)
    if life is None:
        raise UsageError(f"batch {batch_id} has no job of key or number {wanted!r}: {status.total:,} jobs, from 0 on")
    if as_json:
        print_json(_as_json(life))
        return SUCCEEDED
    console = Console(emoji=False, highlight=False)
    console.print(_card(life))
    console.print()
    console.print(_attempts(life))
    if isinstance(life.result, FailureResult) and life.result.traceback:
        console.print(Text(f"\n{_plain(life.result.traceback)}", "dim"))
    return SUCCEEDED


def _as_json(life: Life) -> dict[str, Any]:
    return {
        "job_id": f"{life.batch_id}:{life.index}",
        "index": life.index,
        "key": life.key,
        "function": life.function,
        "status": life.status,
        "args": None if life.spec is None else life.spec.args,
        "kwargs": None if life.spec is None else life.spec.kwargs,
        "attempts": [attempt.model_dump(mode="json", exclude_none=True) for attempt in life.attempts],
        "attempts_not_kept": life.not_kept,
        "running": None if life.running is None else life.running.model_dump(mode="json"),
        "result": None if life.result is None else life.result.model_dump(mode="json"),
        "recorded_at": life.recorded_at,
    }


def _card(life: Life) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    label, colour = _LABELS[life.status]
    told: dict[str, str | Text] = {
        "job": f"{life.batch_id}:{life.index}",
        "key": _cut(life.key or ""),
        "function": life.function,
        "state": Text(label, colour),
        "arguments": _arguments(life),
        "what": _what(life),
    }
    for name, text in told.items():
        if text:
            table.add_row(name, text if isinstance(text, Text) else Text(text))
    return table


def _arguments(life: Life) -> str:
    if life.spec is None:
        return "no longer kept"
    by_place = [_value(argument) for argument in life.spec.args]
    return _cut(", ".join([*by_place, *(f"{name}={_value(given)}" for name, given in life.spec.kwargs.items())]))


def _what(life: Life) -> str:
    match life.result:
        case SuccessResult(value=value):
            return _cut(_value(value))
        case TimeoutResult(limit=limit, phase=phase, stopped=stopped):
            return f"after {limit:g} s ({phase}, {stopped})"
        case FailureResult(error_type=kind, message=message):
            return _cut(f"{kind}: {message}")
        case CancelledResult(reason=reason) | LostResult(reason=reason):
            return _cut(reason)
    return "" if life.running is None else _cut(life.running.note)


def _attempts(life: Life) -> Table:
    """Draw a line for each attempt, the last of which is the result's or goes on."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("attempt", "started", "took", "worker"):
        table.add_column(heading, no_wrap=True)
    table.add_column("ended", overflow="fold")
    if life.not_kept:
        table.add_row("…", "", "", "", f"{life.not_kept} more, of which nothing is kept")
    for attempt in life.attempts:
        _add(table, attempt, attempt.worker, attempt.duration, Text(_plain(attempt.details)))
    if life.result is not None:
        label, colour = LABELS[life.status]
        _add(table, life.result, life.result.worker, life.result.duration, Text(label, colour))
    elif life.running is not None:
        _add(table, life.running, life.running.worker, life.running.elapsed, Text("running"))
    return table


def _add(
    table: Table, run: Attempt | RunningJob | Result[Any], worker: str | None, took: float | None, ended: Text
) -> None:
    at = run.started_at
    started = "-" if at is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
    table.add_row(str(run.attempt), started, "-" if took is None else seconds(took), Text(worker or "-"), ended)


def _value(anything: Any) -> str:
    return to_json(anything, inf_nan_mode="constants", fallback=repr).decode()


def _cut(text: str) -> str:
    cut = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(text) - _LONGEST:,} more characters)"
    return _plain(cut)


def _plain(text: str) -> str:
    """Leave out what would command the terminal: keys and messages are whatever jobs make them."""
    kept = (letter if letter.isprintable() or letter in "\n\t" else "\N{REPLACEMENT CHARACTER}" for letter in text)
    return "".join(kept)
