"""Numbers, times and values as people read them; what a template prints goes through here or is escaped as it is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup
from pydantic_core import to_json

from producer.pictures.durations import seconds
from protocol.batches import BatchStatus

LABELS = {
    "success": "succeeded",
    "timeout": "timed out",
    "failure": "failed",
    "cancelled": "cancelled",
    "lost": "lost",
    "running": "running",
    "queued": "queued",
}
"""Status, or where a job is before it has one -> what people read."""

NONE = "\N{EN DASH}"

_SECRET = re.compile(r"passw|secret|token|api[-_]?key|authorization|cookie|credential|private[-_]?key", re.IGNORECASE)
_CONTROLS = (*range(9), 11, 12, *range(14, 32), *range(127, 160))
_TURNING = (0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_INVISIBLE = dict.fromkeys((*_CONTROLS, *_TURNING), "\N{REPLACEMENT CHARACTER}")
_USERINFO = re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^/\s@]+@", re.IGNORECASE)
_HIDDEN = "•••"
_LONGEST_VALUE = 20_000
_LINE = 160
_FEW = 8
_UNITS = (("d", 86_400), ("h", 3600), ("min", 60))


def number(count: int | None) -> str:
    """Write a count: `1,234,567`."""
    return NONE if count is None else f"{count:,}"


def duration(length: float | None) -> str:
    """Write a duration, s: `3.2 ms`, `1.25 s`, `4 min 10 s`."""
    return NONE if length is None else seconds(max(0.0, length)).replace("us", "µs")


def brief(length: float | None) -> str:
    """Write a duration, s, by its greatest unit only, for what changes all the time: `12 s`, `4 min`, `3 d`."""
    if length is None:
        return NONE
    for unit, size in _UNITS:
        if length >= 2 * size:
            return f"{length / size:.0f} {unit}"
    return f"{max(0.0, length):.0f} s"


def share(count: int, total: int) -> str:
    """Write a share such that only all is 100 % and only none is 0 %."""
    if not total:
        return NONE
    percent = 100 * count / total
    if 0 < count < total:
        percent = min(99.9, max(0.1, percent))
    return f"{percent:.1f} %" if 0 < percent < 100 else f"{percent:.0f} %"


def rate(per_second: float | None) -> str:
    """Write a rate: `1,234/s`, `0.5/s`."""
    if per_second is None:
        return NONE
    return f"{per_second:,.0f}/s" if per_second >= 10 else f"{per_second:.2g}/s"


def size(count: int | None) -> str:
    """Write a size, bytes: `85 MiB`."""
    if not count:
        return NONE
    for unit, length in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= length:
            return f"{count / length:.3g} {unit}"
    return f"{count} B"


def moment(at: float | None) -> str:
    """Write a time, Unix s: `2026-11-24 09:12:03.250 UTC`."""
    return NONE if at is None else f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S.%f}"[:-3] + " UTC"


def iso(at: float) -> str:
    """Write a time for machines."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")


def value(anything: Any) -> str:
    """Write a value as JSON, cut where it is long, with what looks like a secret hidden."""
    text = to_json(hide(anything), indent=2, inf_nan_mode="constants", fallback=repr).decode()
    return cut(text, _LONGEST_VALUE)


def glimpse(anything: Any) -> str:
    """Write the beginning of a value in a line, however large it is, with what looks like a secret hidden."""
    if isinstance(anything, str):
        return line(_hide_userinfo(anything[: 2 * _LINE]))
    return line(to_json(_top(anything, 3), inf_nan_mode="constants", fallback=repr).decode())


def visible(anything: Any) -> Any:
    """Show letters that nobody sees, and those that turn a line around: a key may pass for another by them."""
    if not isinstance(anything, str) or isinstance(anything, Markup) or anything.isprintable():
        return anything
    return anything.translate(_INVISIBLE)


def cut(text: str, longest: int) -> str:
    """Cut a text, and say how much of it."""
    return text if len(text) <= longest else f"{text[:longest]}… ({len(text) - longest:,} more characters)"


def line(text: str, longest: int = _LINE) -> str:
    """Write the first line of a text, cut where it is long."""
    first, _, rest = text.strip().partition("\n")
    return first if len(first) <= longest and not rest else f"{first[:longest]}…"


def hide(anything: Any) -> Any:
    """Hide what is named like a secret, at any depth, and the user's part of URLs."""
    if isinstance(anything, Mapping):
        return {key: _HIDDEN if _SECRET.search(str(key)) else hide(item) for key, item in anything.items()}
    if isinstance(anything, list | tuple):
        return [hide(item) for item in anything]
    return _hide_userinfo(anything) if isinstance(anything, str) else anything


def _hide_userinfo(text: str) -> str:
    return _USERINFO.sub(rf"\1{_HIDDEN}@", text)


def _top(anything: Any, depth: int) -> Any:
    """Take the first few items of a value, at each depth."""
    if isinstance(anything, Mapping):
        few = list(anything.items())[:_FEW] if depth else []
        return {key: _HIDDEN if _SECRET.search(str(key)) else _top(item, depth - 1) for key, item in few}
    if isinstance(anything, list | tuple):
        return [_top(item, depth - 1) for item in anything[:_FEW]] if depth else []
    return _hide_userinfo(anything[:_LINE]) if isinstance(anything, str) else anything


def state(status: BatchStatus) -> str:
    """Tell in a word where a batch is."""
    if status.complete:
        return "done"
    return "in progress" if status.closed else "open"
