"""A batch as Jupyter shows it: a bar of its results, and the counts; nothing of it is anything but text."""

from __future__ import annotations

import time
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from protocol.batches import BatchStatus

# Readable on light and on dark.
_COLOURS = {
    "success": ("succeeded", "#3fa45b"), "timeout": ("timed out", "#d29922"), "failure": ("failed", "#d1343b"),
    "cancelled": ("cancelled", "#8a63d2"), "lost": ("lost", "#8b1a2b"), "running": ("running", "#4393e6"),
    "queued": ("queued", "#9aa4ae"),
}  # fmt: skip
_MOST_TOLD = 3


def status_html(status: BatchStatus) -> str:
    """Draw how far a batch is."""
    counts = {name: getattr(status, name) for name in _COLOURS}
    bar = "".join(
        f'<div title="{count:,} {_COLOURS[name][0]}" style="flex:{count} 0 2px;background:{_COLOURS[name][1]}"></div>'
        for name, count in counts.items()
        if count
    )
    told = " · ".join(
        f'<span style="color:{_COLOURS[name][1]}">{count:,} {_COLOURS[name][0]}</span>'
        for name, count in counts.items()
        if count
    )
    return _box(
        _head(status.name, status.batch_id, f"{status.done:,} of {status.total:,} jobs done, {_state(status)}"),
        f'<div style="display:flex;height:10px;margin:6px 0;border-radius:5px;overflow:hidden">{bar}</div>',
        f"<div>{told or 'no jobs'}</div>",
        *(_line(job.key or f"job {job.index}", job.elapsed, job.limit) for job in status.slowest[:_MOST_TOLD]),
    )


def handle_html(name: str | None, batch_id: str, queue: str) -> str:
    """Draw a batch of which nothing more is known here."""
    hint = "<code>await batch.status()</code> tells how far it is"
    return _box(_head(name, batch_id, f"on queue {queue}"), f'<div style="opacity:.7">{hint}</div>')


def _box(*parts: str) -> str:
    return f'<div style="max-width:640px;font-size:13px;line-height:1.5">{"".join(parts)}</div>'


def _head(name: str | None, batch_id: str, about: str) -> str:
    title = f"<b>{escape(name)}</b> {escape(batch_id)}" if name else f"<b>{escape(batch_id)}</b>"
    return f'<div>batch {title} <span style="opacity:.7">· {escape(about)}</span></div>'


def _state(status: BatchStatus) -> str:
    if status.finished_at is not None:
        return f"complete after {status.finished_at - status.created_at:,.1f} s"
    since = f"for {max(0.0, time.time() - status.created_at):,.0f} s"
    return f"in progress {since}" if status.closed else f"open {since}"


def _line(name: str, elapsed: float, limit: float) -> str:
    return f'<div style="opacity:.7">at work: {escape(name)}, {elapsed:,.1f} s of {limit:,.1f} s</div>'
