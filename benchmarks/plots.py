"""The pictures, drawn from the results: each as SVG for a light page and for a dark one.

    python -m benchmarks.plots [FOLDER]

A question that was not measured has no picture, and the one that is there stays.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import StrMethodFormatter

from benchmarks.harness import HERE
from benchmarks.peers.catalogue import STRAGGLER
from benchmarks.results import Outcomes, load
from benchmarks.stragglers import WITH_TIMEOUT, WITHOUT_TIMEOUT


@dataclass(frozen=True, slots=True)
class Theme:
    """Colours for one kind of page: of text and lines, of what is ours, of the others, of what goes wrong."""

    name: str
    page: str
    text: str
    faint: str
    ours: str
    others: str
    wrong: str


THEMES = (
    Theme("light", "#ffffff", "#1f2328", "#d1d9e0", "#0a7d5a", "#6e7781", "#cf222e"),
    Theme("dark", "#0d1117", "#e6edf3", "#30363d", "#3fb68b", "#7d8590", "#f47067"),
)

Draw = Callable[[Mapping[str, Any], Theme], Figure]


def throughput(answers: Mapping[str, Any], theme: Theme) -> Figure:
    """Draw bars: no-op jobs a second."""
    figures = answers["beside_peers"].figures
    speeds = _peers(figures, " jobs/s")
    figure, axes = _page(theme, 7.6, 0.36 * len(speeds) + 1.5)
    _bars(axes, theme, speeds, lambda value: f"{value:,.0f}")
    axes.set_xlim(0, max(speeds.values()) * 1.14)
    axes.xaxis.set_visible(False)
    _title(axes, theme, "No-op jobs a second, first submit to last result", _conditions(answers["beside_peers"]))
    return figure


def latency(answers: Mapping[str, Any], theme: Theme) -> Figure:
    """Draw bars: one job, submit to result, the median."""
    times = dict(reversed(_peers(answers["beside_peers"].figures, " p50 ms").items()))
    figure, axes = _page(theme, 7.6, 0.36 * len(times) + 1.5)
    _bars(axes, theme, times, lambda value: f"{value:.1f} ms")
    axes.set_xlim(0, max(times.values()) * 1.16)
    axes.xaxis.set_visible(False)
    _title(
        axes, theme, "One job on an idle worker, submit to result (median)", "two worker processes; shorter is better"
    )
    return figure


def stragglers(answers: Mapping[str, Any], theme: Theme) -> Figure:
    """Draw two lines: how many jobs had succeeded after how long, with a timeout and without."""
    answer = answers["stragglers"]
    jobs, hanging = answer.figures["picture jobs"], answer.figures["picture hanging"]
    figure, axes = _page(theme, 7.6, 3.9)
    for (name, points), colour in zip(answer.series.items(), (theme.ours, theme.wrong), strict=True):
        seconds, done = zip(*points, strict=True)
        axes.plot(seconds, done, color=colour, linewidth=2.4)
        _say(axes, f"{name}: {_SAID[name]}", (seconds[-1], done[-1]), colour, above=name == WITH_TIMEOUT)
    axes.axhline(jobs - hanging, color=theme.text, linewidth=0.8, linestyle=(0, (2, 3)))
    axes.set_ylim(0, jobs * 1.12)
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.set_xlim(left=0)
    _label(axes, "seconds since submit", "jobs that have succeeded")
    title = f"{jobs:,.0f} jobs of 20 ms on {hanging:.0f} slots; {hanging:.0f} of them hang for ever"
    _title(axes, theme, title, f"dotted: the {jobs - hanging:,.0f} that do not hang")
    return figure


_SAID = {WITH_TIMEOUT: "all others succeed", WITHOUT_TIMEOUT: "the batch stands still for ever"}


def growth(answers: Mapping[str, Any], theme: Theme) -> Figure:
    """Draw two panels over the size of the batch: the time a job, and by how much the processes' memory grew."""
    series = answers["growth"].series
    figure = _figure(theme, 7.6, 3.5)
    time, memory = figure.subplots(1, 2)
    for axes in (time, memory):
        _dress(axes, theme)
        axes.set_xscale("log")
        axes.grid(axis="y", color=theme.faint, linewidth=0.8)
    _line(time, series["µs a job"], theme.ours, "")
    time.set_ylim(0, max(value for _, value in series["µs a job"]) * 1.15)
    _label(time, "jobs in the batch", "")
    _title(time, theme, "Time a job, µs", "a small batch pays for its fixed costs")
    higher = max(("producer MiB", "worker MiB"), key=lambda name: series[name][-1][1])
    for name, colour in (("producer MiB", theme.ours), ("worker MiB", theme.others)):
        _line(memory, series[name], colour, name.partition(" ")[0], above=name == higher)
    values = [value for name in ("producer MiB", "worker MiB") for _, value in series[name]]
    memory.set_ylim(min(-5.0, 1.2 * min(values)), max(33.0, 1.2 * max(values)))
    _label(memory, "jobs in the batch", "")
    _title(memory, theme, "Memory over the start, MiB", "an iterable in, `as_completed` out")
    return figure


PICTURES: dict[str, tuple[str, Draw]] = {
    "throughput": ("beside_peers", throughput),
    "latency": ("beside_peers", latency),
    "stragglers": ("stragglers", stragglers),
    "growth": ("growth", growth),
}


def draw_all(outcomes: Outcomes, folder: Path) -> list[Path]:
    """Draw each picture that there are answers for; returns the files.

    Of several Pythons the oldest is shown: the one that all of them can be compared on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, (question, draw) in PICTURES.items():
        answers = _oldest(outcomes, question)
        if answers is not None:
            for theme in THEMES:
                path = folder / f"{name}-{theme.name}.svg"
                with _style():
                    draw(answers, theme).savefig(path, metadata={"Date": None})
                written.append(path)
    return written


def _style() -> AbstractContextManager[None]:
    # Salted, so that the same results make the same bytes.
    return mpl.rc_context({"svg.hashsalt": "straggler", "font.size": 11, "font.family": "DejaVu Sans"})


def _oldest(outcomes: Outcomes, question: str) -> dict[str, Any] | None:
    for _, questions in sorted(outcomes.items(), key=lambda pair: [int(part) for part in pair[0].split(".")]):
        answers = {name: one.answer for name, one in questions.items() if one.answer is not None}
        if question in answers and answers[question].figures:
            return answers
    return None


def _peers(figures: Mapping[str, float], ending: str) -> dict[str, float]:
    """Pick each library's number, the least first, as bars are drawn from below."""
    found = {name.removesuffix(ending): value for name, value in figures.items() if name.endswith(ending)}
    return dict(sorted(found.items(), key=lambda pair: pair[1]))


def _conditions(answer: Any) -> str:
    return f"{answer.settings['no-op jobs']} jobs, two worker processes, one Redis, every value checked"


def _page(theme: Theme, width: float, height: float) -> tuple[Figure, Axes]:
    figure = _figure(theme, width, height)
    axes = figure.subplots()
    _dress(axes, theme)
    return figure, axes


def _figure(theme: Theme, width: float, height: float) -> Figure:
    engine = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12)
    return Figure(figsize=(width, height), facecolor=theme.page, layout=engine)


def _dress(axes: Axes, theme: Theme) -> None:
    axes.set_facecolor(theme.page)
    axes.tick_params(colors=theme.text, length=0)
    axes.xaxis.label.set_color(theme.text)
    axes.yaxis.label.set_color(theme.text)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(theme.faint)


def _bars(axes: Axes, theme: Theme, values: Mapping[str, float], written: Callable[[float], str]) -> None:
    colours = [theme.ours if name == STRAGGLER.name else theme.others for name in values]
    bars = axes.barh(list(values), list(values.values()), color=colours, height=0.68)
    axes.bar_label(bars, [written(value) for value in values.values()], padding=5, color=theme.text)
    axes.spines["bottom"].set_visible(False)
    for label in axes.get_yticklabels():
        label.set_fontweight("bold" if label.get_text() == STRAGGLER.name else "normal")


def _line(axes: Axes, points: list[list[float]], colour: str, name: str, *, above: bool = True) -> None:
    sizes, values = zip(*points, strict=True)
    axes.plot(sizes, values, color=colour, linewidth=2.2, marker="o", markersize=5)
    if name:
        _say(axes, name, (sizes[-1], values[-1]), colour, above=above)


def _say(axes: Axes, text: str, at: tuple[float, float], colour: str, *, above: bool = True) -> None:
    offset, hangs = ((-2, 8), "bottom") if above else ((-2, -10), "top")
    axes.annotate(
        text, at, xytext=offset, textcoords="offset points", ha="right", va=hangs, color=colour, fontweight="bold"
    )


def _label(axes: Axes, across: str, up: str) -> None:
    axes.set_xlabel(across)
    axes.set_ylabel(up)


def _title(axes: Axes, theme: Theme, title: str, below: str) -> None:
    axes.set_title(title, loc="left", fontsize=12.5, color=theme.text, fontweight="bold", pad=24)
    axes.text(0, 1.0, below, transform=axes.transAxes, color=theme.others, va="bottom", ha="left", fontsize=9.5)


if __name__ == "__main__":
    for drawn in draw_all(load(), Path(sys.argv[1]) if sys.argv[1:] else HERE.parent / "docs" / "images"):
        print(drawn)
