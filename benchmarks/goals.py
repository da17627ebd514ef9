"""The goals, and what was measured beside each.

    python -m benchmarks.goals

Prints the table from the newest results (`results.json`); `python -m benchmarks` measures anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.figures import table
from benchmarks.results import Outcomes, figures, load


@dataclass(frozen=True, slots=True)
class Goal:
    """One number that is to be reached.

    Args:
        what: What is measured.
        goal: What is wanted, for people.
        figure: The number's name: question and figure.
        at_least: Its lower limit; or
        at_most: its upper one.
        unit: Stands behind the number.
        at_least_on: Another lower limit for some Python.
    """

    what: str
    goal: str
    figure: str
    at_least: float | None = None
    at_most: float | None = None
    unit: str = ""
    at_least_on: tuple[str, float] | None = None

    def is_met(self, value: float, python: str) -> bool:
        """Whether a number is good enough."""
        at_least = self.at_least
        if self.at_least_on is not None and self.at_least_on[0] == python:
            at_least = self.at_least_on[1]
        return (at_least is None or value >= at_least) and (self.at_most is None or value <= self.at_most)

    def cell(self, found: Mapping[str, float], python: str) -> str:
        """Write down the number, and whether it is good enough."""
        value = found.get(self.figure)
        if value is None:
            return "not measured"
        return f"{written(value)}{self.unit} {'met' if self.is_met(value, python) else '**missed**'}"


GOALS = (
    Goal(
        "100,000 no-op jobs end to end, two workers", "at least 2 x `gather(wait_for)`, 1 x on 3.13",
        "throughput: ratio to gather", at_least=2, at_least_on=("3.13", 1), unit=" x",
    ),
    Goal(
        "10,000 no-op jobs beside other queues", "at least 20 x the best peer",
        "beside_peers: ratio to best peer", at_least=20, unit=" x",
    ),
    Goal("submit alone, 100,000 jobs", "at least 10 x end to end", "throughput: submit ratio", at_least=10, unit=" x"),
    Goal(
        "no-op jobs with keywords, end to end", "at least 0.7 x plain rows", "kinds: keywords, to plain rows",
        at_least=0.7, unit=" x",
    ),
    Goal(
        "with a key or a timeout each, of two functions in turn", "at least 0.5 x plain rows",
        "kinds: slowest usual kind, to plain rows", at_least=0.5, unit=" x",
    ),
    Goal("10,000 jobs of 20 ms on 200 slots", "at least 97 % of the ideal", "slots: share of ideal", at_least=0.97),
    Goal(
        "one job on an idle worker, p50", "at most 3 x a bare round trip", "latency: p50 to bare", at_most=3, unit=" x"
    ),
    Goal("one job on an idle worker, p99", "at most 3 x its p50", "latency: p99 to p50", at_most=3, unit=" x"),
    Goal(
        "10,000 jobs, 1 % hang: last success", "at most 1.05 x without them",
        "stragglers: last success ratio", at_most=1.05, unit=" x",
    ),
    Goal(
        "10,000 jobs, 1 % hang: last result", "within timeout + 0.1 s of the last success",
        "stragglers: last result over timeout s", at_most=0.1, unit=" s over",
    ),
    Goal(
        "growth: time a job, largest batch to 10,000", "at most 1.1 x at 1,000,000",
        "growth: time ratio", at_most=1.1, unit=" x",
    ),
    Goal("growth: producer's memory", "within 30 MiB of its start", "growth: producer MiB", at_most=30, unit=" MiB"),
    Goal("growth: worker's memory", "flat (20 MiB)", "growth: worker MiB", at_most=20, unit=" MiB"),
    Goal("Redis: its CPU a no-op job", "at most 3 µs", "server: cpu µs a job", at_most=3, unit=" µs"),
    Goal("Redis: a queued no-op job", "at most 60 bytes", "server: bytes queued", at_most=60),
    Goal("Redis: a kept result", "at most 120 bytes", "server: bytes a result", at_most=120),
    Goal("Redis: an idle worker", "at most 2 commands a second", "server: idle commands/s", at_most=2),
    Goal(
        "Redis: a claim, 1,000,000 queued, 200 chunks in progress", "not slower (1.1 x) than with few",
        "server: claim ratio", at_most=1.1, unit=" x",
    ),
    Goal("`straggler --help`", "under 0.25 s", "startup: help s", at_most=0.25, unit=" s"),
    Goal("a worker ready: first result", "under 0.8 s", "startup: ready s", at_most=0.8, unit=" s"),
    Goal("`import straggler`", "under 0.25 s", "startup: import s", at_most=0.25, unit=" s"),
    Goal(
        "embedded, 10,000 no-op jobs", "at least 0.5 x `gather`", "embedded: ratio to gather", at_least=0.5, unit=" x"
    ),
    Goal(
        "one long batch on two workers: slots filled", "all the time (97 %)", "scheduling: filled", at_least=0.97
    ),
    Goal(
        "one long batch on two workers: its time", "within one chunk of the ideal",
        "scheduling: over ideal in chunks", at_most=1, unit=" chunks",
    ),
    Goal(
        "dashboard: a page on 1,000,000 results", "at most 5 ms of Redis", "dashboard: Redis ms a page", at_most=5,
        unit=" ms",
    ),
    Goal(
        "dashboard: its page open on a running batch", "at least 0.97 of the throughput without",
        "dashboard: throughput with the page open", at_least=0.97,
    ),
)  # fmt: skip


def written(value: float) -> str:
    """Write a number with three digits or so."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"


def goals_table(outcomes: Outcomes) -> str:
    """Write down all goals, with a column for each Python that was measured."""
    found = {python: figures(questions) for python, questions in sorted(outcomes.items())}
    return table(
        [
            {"what": goal.what, "goal": goal.goal}
            | {f"Python {python}": goal.cell(numbers, python) for python, numbers in found.items()}
            for goal in GOALS
        ]
    )


if __name__ == "__main__":
    print(goals_table(load()))
