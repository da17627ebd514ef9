"""The README's short table, written from the results, so that it says what was measured and nothing else.

It stands between two marks; `python -m benchmarks` writes it anew, and a test compares it with `results.json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from benchmarks.figures import table
from benchmarks.goals import written
from benchmarks.harness import HERE
from benchmarks.peers.catalogue import STRAGGLER
from benchmarks.results import Outcome, Outcomes, figures

README = HERE.parent / "README.md"
BEGIN, END = "<!-- benchmarks: begin, written by `make bench` -->", "<!-- benchmarks: end -->"

# What is said of a Python: where, and by which figures. A row whose figures are not all there is left out.
_ROWS = {
    "no-op jobs a second, 100,000 of them, two workers": "{throughput: jobs/s}",
    "the same by `asyncio.gather` over `wait_for`, in one process": "{throughput: gather jobs/s}",
    "the ratio of the two": "{throughput: ratio to gather}",
    "10,000 no-op jobs: over the fastest of eight other queues": "{beside_peers: ratio to best peer}",
    "one job on an idle worker, submit to result, ms: median, 99th percentile": "{latency: p50 ms}, {latency: p99 ms}",
    "10,000 jobs of which 1 % hang: last success, over that without them": "{stragglers: last success ratio}",
    "10,000 jobs of 20 ms on 200 slots: share of the ideal": "{slots: share of ideal}",
    "Redis: µs of its CPU a job, bytes a queued job, bytes a kept result": (
        "{server: cpu µs a job}, {server: bytes queued}, {server: bytes a result}"
    ),
    "a batch of {growth: largest} jobs: producer's and worker's growth, MiB": (
        "{growth: producer MiB}, {growth: worker MiB}"
    ),
    "embedded, in one process without Redis: over `gather`": "{embedded: ratio to gather}",
}


# Pictures: by which question they are drawn, and what they show.
_SHOWN = {
    "throughput": ("beside_peers", "No-op jobs a second, straggler and eight other queues"),
    "stragglers": ("stragglers", "Jobs done over time where some hang: with a timeout all others succeed"),
    "latency": ("beside_peers", "One job, submit to result, straggler and eight other queues"),
    "growth": ("growth", "Time a job, and memory, from 1,000 to 1,000,000 jobs"),
}


class _Numbers(dict[str, str]):
    """Numbers in words, for a text in which their names stand in braces."""

    def fill(self, text: str) -> str | None:
        """Put the numbers into a text; None if one of them is not there."""
        for name, value in self.items():
            text = text.replace("{" + name + "}", value)
        return None if "{" in text else text


def block(outcomes: Outcomes) -> str:
    """Write the part of the README between its marks."""
    numbers = {
        python: _Numbers({name: written(value) for name, value in figures(questions).items()})
        for python, questions in sorted(outcomes.items())
    }
    rows = []
    for what, how in _ROWS.items():
        cells = {f"Python {python}": found.fill(how) or "" for python, found in numbers.items()}
        said = next((text for found in numbers.values() if (text := found.fill(what))), None)
        if said is not None and any(cells.values()):
            rows.append({"": said, **cells})
    places = [_place(python, questions) for python, questions in sorted(outcomes.items())]
    parts = [BEGIN, *_pictures(outcomes), table(rows), *places, END]
    return "\n\n".join(part for part in parts if part)


def _pictures(outcomes: Outcomes) -> list[str]:
    measured = {question for questions in outcomes.values() for question, one in questions.items() if one.answer}
    return [
        f'<picture><source media="(prefers-color-scheme: dark)" srcset="docs/images/{name}-dark.svg">'
        f'<img alt="{said}" src="docs/images/{name}-light.svg"></picture>'
        for name, (question, said) in _SHOWN.items()
        if question in measured
    ]


def _place(python: str, questions: Mapping[str, Outcome]) -> str:
    """Tell when and on what a Python's figures were measured, each kind of place once."""
    measured = [one for one in questions.values() if one.answer is not None]
    if not measured:
        return ""
    newest = max(measured, key=lambda one: one.measured)
    on = newest.machine
    days = " to ".join(sorted({min(one.measured[:10] for one in measured), newest.measured[:10]}))
    place = f"{on.get('cores')} cores of {on.get('processor')}, Redis {on.get('Redis')}, {STRAGGLER.name} on Python"
    return f"Measured on {place} {on.get('Python', python)}, {days}."


def update(outcomes: Outcomes, path: Path = README) -> None:
    """Put the newest figures between the marks."""
    text = path.read_text()
    before, mark, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not mark or not end:
        raise ValueError(f"{path} has no {BEGIN} followed by {END}: put both where the table is to stand")
    path.write_text(before + block(outcomes) + after)
