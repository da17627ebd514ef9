"""Draw a batch as SVG: a row for each worker slot over time, and how long its jobs waited and ran.

One file that needs no other, for a report; it is light or dark as the reader's screen is.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from html import escape

from producer.pictures.durations import Bar, Histogram, rate_words, seconds
from producer.pictures.portrait import Portrait
from producer.pictures.summary import LABELS
from producer.pictures.taskstream import Cell, Picture, Row
from protocol.batches import STATUSES
from protocol.errors import shorten

WIDTH = 1080
_LEFT, _RIGHT = 132, 24
_PLOT = WIDTH - _LEFT - _RIGHT
_HEAD = 104
# The stream's rows share this height, but none is lower or higher than these.
_STREAM = 420
_LOWEST, _HIGHEST = 3.5, 16.0
_ROWS = 110
_BARS = 150
# What did not succeed is seen, however short or rare it was.
_LEAST_WIDTH, _LEAST_HEIGHT = 1.6, 1.4

STYLE = """
  .paper { fill: #ffffff } text { fill: #3d444d; font: 12px system-ui, "Segoe UI", Helvetica, Arial, sans-serif }
  .title { font-size: 20px; font-weight: 600; fill: #1f2328 } .head { font-size: 13px; font-weight: 600; fill: #1f2328 }
  .dim { fill: #6e7781 } .grid { stroke: #d8dee4; stroke-width: 1 } .lane { fill: #f3f5f7 }
  .success { fill: #3fa45b } .timeout { fill: #e3a008 } .failure { fill: #d1343b } .cancelled { fill: #8a63d2 }
  .lost { fill: #6b1020 } .end { text-anchor: end } .mid { text-anchor: middle }
  @media (prefers-color-scheme: dark) {
    .paper { fill: #0d1117 } text { fill: #c9d1d9 } .title, .head { fill: #f0f6fc } .dim { fill: #8b949e }
    .grid { stroke: #30363d } .lane { fill: #161b22 } .success { fill: #3fb950 } .timeout { fill: #e3b341 }
    .failure { fill: #f85149 } .cancelled { fill: #a371f7 } .lost { fill: #ff9aa8 }
  }
"""


def words(text: str) -> str:
    """Write a text so that it stands in XML and HTML as what it is; what neither can hold is seen to be missing."""
    return escape("".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text))


def draw(portrait: Portrait) -> str:
    """Draw a batch; an SVG document."""
    picture = portrait.stream.picture(columns=_PLOT // 4, rows=_ROWS)
    height = min(_HIGHEST, max(_LOWEST, _STREAM / max(1, len(picture.rows))))
    bottom = _HEAD + height * len(picture.rows)
    below = bottom + 74
    parts = [
        f'<rect class="paper" width="{WIDTH}" height="{below + _BARS + 66:.0f}" rx="6"/>',
        *_header(portrait, picture),
        *_stream(picture, height),
        *_axis(picture, bottom),
        *_histogram("wait in the queue", portrait.wait, 24, below),
        *_histogram("run time", portrait.run, WIDTH / 2 + 12, below),
    ]
    size = f'viewBox="0 0 {WIDTH} {below + _BARS + 66:.0f}" width="{WIDTH}" height="{below + _BARS + 66:.0f}"'
    body = "\n".join(parts)
    named = f"<title>{words(portrait.title)}</title>"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">{named}\n<style>{STYLE}</style>\n{body}\n</svg>\n'
    )


def _header(portrait: Portrait, picture: Picture) -> Iterator[str]:
    workers = len({row.worker for row in picture.rows})
    slots = sum(row.slots for row in picture.rows)
    told = [f"{portrait.tally.total:,} jobs in {seconds(portrait.elapsed)}"]
    if portrait.elapsed:
        told.append(rate_words(portrait.tally.total / portrait.elapsed))
    told.append(f"{workers:,} worker{'' if workers == 1 else 's'}, {slots:,} slots used")
    yield _text(24, 36, shorten(portrait.title, 90), "title")
    yield _text(24, 58, " · ".join(told), "dim")
    left = 24.0
    for status in STATUSES:
        count = portrait.tally.counts[status]
        if count:
            label = f"{count:,} {LABELS[status][0]}"
            yield f'<rect class="{status}" x="{left:.0f}" y="71" width="11" height="11" rx="2"/>'
            yield _text(left + 17, 81, label)
            left += 44 + 6.6 * len(label)


def _axis(picture: Picture, bottom: float) -> Iterator[str]:
    length = picture.end - picture.begin
    if not picture.rows:
        yield _text(WIDTH / 2, bottom + 20, "no job has run", "dim mid")
        return
    for moment in _ticks(length):
        x = _LEFT + _PLOT * moment / max(length, 1e-9)
        yield f'<path class="grid" d="M{x:.1f} {bottom:.1f}v5M{x:.1f} {_HEAD - 6}v4"/>'
        yield _text(x, bottom + 20, f"{moment:g} s", "dim mid")


def _ticks(length: float) -> list[float]:
    """Choose round moments from 0 on, some eight of them."""
    rough = max(length, 1e-3) / 8
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough)
    return [round(step * number, 9) for number in range(int(length / step + 1e-9) + 1)]


def _stream(picture: Picture, height: float) -> Iterator[str]:
    scale = _PLOT / max(picture.end - picture.begin, 1e-9)
    gap = 1.0 if height >= 6 else 0.4
    top = float(_HEAD)
    worker, since = None, top
    for row in picture.rows:
        if row.worker != worker:
            if worker is not None:
                yield _worker(worker, since, top)
            worker, since = row.worker, top
        yield f'<rect class="lane" x="{_LEFT}" y="{top:.1f}" width="{_PLOT}" height="{height - gap:.1f}"/>'
        yield from _cells(row, top, height - gap, scale, is_exact=picture.is_exact)
        top += height
    if worker is not None:
        yield _worker(worker, since, top)


def _worker(worker: str, since: float, top: float) -> str:
    return _text(_LEFT - 10, (since + top) / 2 + 4, shorten(worker, 18), "end dim")


def _cells(row: Row, top: float, height: float, scale: float, *, is_exact: bool) -> Iterator[str]:
    """Draw a row: successes as one path for all, what else there is with its name where it is one job."""
    paths: defaultdict[str, list[str]] = defaultdict(list)
    filled: defaultdict[float, float] = defaultdict(float)
    named = []
    for cell in row.cells:
        least = 0.0 if cell.status == "success" else _LEAST_HEIGHT
        tall = max(height * cell.share, min(least, height))
        x, wide = _LEFT + cell.start * scale, max((cell.end - cell.start) * scale, _least_width(cell))
        y = top + height - min(height, filled[cell.start] + tall)
        filled[cell.start] += tall
        if is_exact and cell.name is not None and (cell.status != "success" or wide > _PLOT / 50):
            about = words(f"{shorten(cell.name, 120)}: {LABELS[cell.status][0]} in {seconds(cell.end - cell.start)}")
            box = f'x="{x:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{tall:.1f}"'
            named.append(f'<rect class="{cell.status}" {box}><title>{about}</title></rect>')
        else:
            paths[cell.status].append(f"M{x:.1f} {y:.1f}h{wide:.1f}v{tall:.1f}h-{wide:.1f}z")
    for status, path in paths.items():
        yield f'<path class="{status}" d="{"".join(path)}"/>'
    yield from named


def _least_width(cell: Cell) -> float:
    return 0.6 if cell.status == "success" else _LEAST_WIDTH


def _histogram(title: str, times: Histogram, left: float, top: float) -> Iterator[str]:
    width = WIDTH / 2 - 36
    yield _text(left, top, title, "head")
    bars = times.bars(48)
    if not bars:
        yield _text(left, top + 24, "no job has run", "dim")
        return
    found = {"p50": times.all.percentile(0.5), "p95": times.all.percentile(0.95), "max": times.all.longest}
    told = " · ".join(f"{name} {seconds(time)}" for name, time in found.items())
    yield _text(left + width, top, told, "end dim")
    base = top + 24 + _BARS
    yield f'<path class="grid" d="M{left:.1f} {base:.1f}h{width:.1f}"/>'
    highest = max(bar.count for bar in bars)
    step = width / len(bars)
    for number, bar in enumerate(bars):
        yield from _bar(bar, left + number * step, base, step, highest)
    yield _text(left, top + 16, "heights go with the square root", "dim")
    low, high = math.log(bars[0].low), math.log(bars[-1].high)
    for moment in _decades(bars[0].low, bars[-1].high):
        x = left + width * (math.log(moment) - low) / (high - low)
        yield f'<path class="grid" d="M{x:.1f} {base:.1f}v5"/>'
        yield _text(x, base + 18, _short(moment), "dim mid")


def _bar(bar: Bar, x: float, base: float, step: float, highest: int) -> Iterator[str]:
    """Draw a stack; its height goes with the square root, so that a few stragglers are seen beside thousands."""
    whole = _BARS * math.sqrt(bar.count / highest)
    for status in STATUSES:
        if status in bar.counts:
            tall = max(whole * bar.counts[status] / bar.count, 1.5)
            base -= tall
            about = words(f"{seconds(bar.low)} to {seconds(bar.high)}: {bar.counts[status]:,} {LABELS[status][0]}")
            box = f'x="{x + 0.5:.1f}" y="{base:.1f}" width="{step - 1:.1f}" height="{tall:.1f}"'
            yield f'<rect class="{status}" {box}><title>{about}</title></rect>'


def _decades(low: float, high: float) -> list[float]:
    """Choose the marks of a logarithmic scale: powers of ten, and their halves and doubles where there is room."""
    whole = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1.0, 2.0, 5.0) if len(whole) <= 4 else (1.0,)
    return [mark for power in whole for factor in factors if low <= (mark := factor * 10.0**power) <= high]


def _short(moment: float) -> str:
    for unit, name in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
        if moment >= unit * 0.999:
            return f"{moment / unit:,.3g} {name}"
    return f"{moment * 1e6:.1g} us"


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text{named} x="{x:.1f}" y="{y:.1f}">{words(text)}</text>'
