"""What the checker goes by: the plan, the journal, and what collectors have written. Imports nothing of straggler."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos import journal, plan
from tests.chaos.journal import Run
from tests.chaos.plan import KINDS, Kind, Planned

Result = dict[str, Any]
JobName = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Delivery:
    """A result as a collector got it.

    Args:
        seen: When, Unix s.
        result: The result's fields.
    """

    seen: float
    result: Result


@dataclass(frozen=True, slots=True)
class Disturbance:
    """A time in which a node could not be expected to work in order.

    Args:
        began: Unix s.
        healed: Unix s.
        nodes: Whom it touched.
        kind: The fault's kind.
        workers: Process ids of the workers that it touched; empty: all of the nodes.
    """

    began: float
    healed: float
    nodes: tuple[str, ...]
    kind: str = ""
    workers: tuple[int, ...] = ()

    def touches(self, run: Run) -> bool:
        """Whether it befell the worker of a run."""
        return run.worker in self.workers if self.workers else run.node in self.nodes


@dataclass(slots=True)
class Job:
    """All that is known of one job; `deaths` are of the workers of all jobs, `cancelled` is when it certainly was."""

    planned: Planned
    index: int
    runs: Sequence[Run] = ()
    deliveries: Sequence[Delivery] = ()
    again: Sequence[Result] = ()
    deaths: Mapping[int, float] = field(default_factory=dict)
    cancelled: float | None = None

    def __str__(self) -> str:
        return f"batch {self.planned.batch_id}, job {self.index} ({self.kind.function})"

    @property
    def kind(self) -> Kind:
        """What was submitted."""
        return KINDS[self.planned.kinds[self.index]]

    @property
    def result(self) -> Result | None:
        """The first result that was seen."""
        return self.deliveries[0].result if self.deliveries else None


@dataclass(slots=True)
class Evidence:
    """All that is known of one run of chaos.

    Args:
        planned: What was submitted.
        runs: The journal.
        deliveries: What collectors got, in the order in which they did.
        again: What was read at the very end, from the beginning.
        totals: How many jobs each batch said that it has, at the very end.
        added: Of each batch that was added to, which places its jobs were given, by their places in the plan.
        cancelled: When who cancelled jobs of a batch was first told that it is done.
        disturbances: Faults, by the time when they began.
        lease: The workers' setting, s.
    """

    planned: list[Planned]
    runs: list[Run] = field(default_factory=list)
    deliveries: dict[JobName, list[Delivery]] = field(default_factory=dict)
    again: dict[JobName, list[Result]] = field(default_factory=dict)
    totals: dict[str, int] = field(default_factory=dict)
    added: dict[str, dict[int, int]] = field(default_factory=dict)
    cancelled: dict[str, float] = field(default_factory=dict)
    disturbances: list[Disturbance] = field(default_factory=list)
    lease: float = 10.0

    def runs_by_job(self) -> dict[JobName, list[Run]]:
        """Sort the journal by jobs."""
        found: dict[JobName, list[Run]] = defaultdict(list)
        for run in self.runs:
            found[run.batch_id, run.index].append(run)
        return found

    def deaths(self) -> dict[int, float]:
        """Tell when each worker was last heard of under which a run came to no end."""
        heard: dict[int, float] = {}
        for run in self.runs:
            heard[run.worker] = max(heard.get(run.worker, 0.0), run.ended or run.started)
        died = {run.worker for run in self.runs if run.ended is None}
        return {worker: last for worker, last in heard.items() if worker in died}

    def jobs(self) -> Iterator[Job]:
        """Put together what is known of each job."""
        runs, deaths = self.runs_by_job(), self.deaths()
        for planned in self.planned:
            for index in range(self.total(planned)):
                name = (planned.batch_id, index)
                deliveries, again = self.deliveries.get(name, ()), self.again.get(name, ())
                cancelled = self.cancelled.get(planned.batch_id) if planned.is_cancelled_by_request(index) else None
                yield Job(planned, index, runs.get(name, ()), deliveries, again, deaths, cancelled)

    def total(self, planned: Planned) -> int:
        """Tell how many jobs a batch must have: all that were planned, unless it was cancelled while they came."""
        if not planned.is_cancelled:
            return len(planned.kinds)
        return min(len(planned.kinds), self.totals.get(planned.batch_id, len(planned.kinds)))

    def strangers(self) -> list[JobName]:
        """Name what has runs or results and was never submitted."""
        known = {(planned.batch_id, index) for planned in self.planned for index in range(self.total(planned))}
        return sorted({*self.runs_by_job(), *self.deliveries, *self.again} - known)


def read(folder: Path, disturbances: list[Disturbance], lease: float) -> Evidence:
    """Read what a run of chaos has left in its folder."""
    runs = journal.read(folder / journal.NAME) if (folder / journal.NAME).exists() else []
    deliveries: dict[JobName, list[Delivery]] = defaultdict(list)
    for line in _lines(folder / "results"):
        result = line["result"]
        deliveries[_name(result)].append(Delivery(line["seen"], result))
    again: dict[JobName, list[Result]] = defaultdict(list)
    totals: dict[str, int] = {}
    for batch_id, line in _named_lines(folder / "again"):
        if "total" in line:
            totals[batch_id] = line["total"]
        else:
            again[_name(line["result"])].append(line["result"])
    added: dict[str, dict[int, int]] = defaultdict(dict)
    for batch_id, line in _named_lines(folder / "added"):
        added[batch_id] |= dict(enumerate(line["indexes"], line["from"]))
    cancelled: dict[str, float] = {}
    for line in _lines(folder, "cancelled.jsonl"):
        cancelled.setdefault(line["batch_id"], line["returned"])
    planned = plan.read(folder / "plan.jsonl")
    return Evidence(planned, runs, deliveries, again, totals, added, cancelled, disturbances, lease)


def _name(result: Result) -> JobName:
    return str(result["job_id"]).rpartition(":")[0], int(result["index"])


def _lines(folder: Path, names: str = "*.jsonl") -> Iterator[dict[str, Any]]:
    for _, line in _named_lines(folder, names):
        yield line


def _named_lines(folder: Path, names: str = "*.jsonl") -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted(folder.glob(names)):
        with path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):  # else a kill has torn it, and nobody has gone on from it
                    yield path.stem, json.loads(line)
