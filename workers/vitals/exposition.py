"""Serve what worker processes have counted, for Prometheus; needs prometheus_client (`pip install straggler[metrics]`).

Each process writes its counts to a file (`workers.vitals.metrics`); here they are added up when somebody asks. What a
process has counted stays counted when it is gone: no counter goes down because a worker was replaced.
"""

# ruff: noqa: PLC0415  # prometheus_client is an extra: it is imported where it is needed

from __future__ import annotations

import fcntl
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import accumulate
from operator import add
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from protocol.errors import OptionError
from workers.vitals.metrics import Signs
from workers.vitals.tally import BUCKETS, Row, read_tally

# The processes' gauges that are added up.
_SUMS = {
    "slots": "Jobs that may run at a time.",
    "slots_in_use": "Jobs that run.",
    "abandoned_jobs": "Jobs that ignored their cancellation and still run on.",
    "results_held": "Results that wait to be written to Redis.",
    "memory_bytes": "Resident memory of the worker processes.",
}


def require() -> None:
    """Make sure that metrics can be served.

    Raises:
        OptionError: If prometheus_client is not installed.
    """
    if find_spec("prometheus_client") is None:
        raise OptionError("metrics need prometheus_client: pip install 'straggler[metrics]'")


@dataclass(slots=True)
class Counts:
    """What processes have counted, added up: of each function, and beside jobs."""

    rows: dict[str, Row] = field(default_factory=dict)
    beside: Counter[str] = field(default_factory=Counter)

    def add(self, rows: Iterable[Row], beside: Mapping[str, int]) -> None:
        """Add what another process has counted."""
        for row in rows:
            self.rows[row.function] = _sum(self.rows[row.function], row) if row.function in self.rows else row
        self.beside.update(beside)


class Ledger:
    """Add up what processes have counted: those that live, and those that are gone.

    Args:
        folder: Where their files are.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._gone = Counts()
        self._lock = threading.Lock()

    def read(self) -> tuple[Counts, list[Signs]]:
        """Return what has been counted in all, and how each process is that lives."""
        with self._lock:
            living = []
            for path in sorted(self._folder.glob("*.alive")):
                # Asked first: what is read of one that is gone by then is all that there will be.
                is_alive = _lives(path)
                rows, signs = _read(path)
                if is_alive:
                    living.append((rows, signs))
                else:
                    self._gone.add(rows, signs.counted)
                    self._forget(path)
            total = Counts()
            total.add(self._gone.rows.values(), self._gone.beside)
            for rows, signs in living:
                total.add(rows, signs.counted)
            return total, [signs for _, signs in living]

    def _forget(self, path: Path) -> None:
        for suffix in (".json", ".new", ".jobs", ".alive"):
            path.with_suffix(suffix).unlink(missing_ok=True)


class Collector:
    """Tell Prometheus what the ledger holds, under the names of docs/metrics.md.

    Args:
        ledger: The worker processes' counts.
        recorded: Results that the supervisor has recorded itself: (function, status) -> how many.
        deaths: How worker processes ended that did not end in order -> how many.
    """

    def __init__(self, ledger: Ledger, recorded: Counter[tuple[str, str]], deaths: Counter[str]) -> None:
        self._ledger = ledger
        self._recorded = recorded
        self._deaths = deaths

    def collect(self) -> Iterator[Any]:
        """Make the metrics anew."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        counts, living = self._ledger.read()
        counts.add((Row.of(function, {status: number}) for (function, status), number in [*self._recorded.items()]), {})
        rows = [row for _, row in sorted(counts.rows.items())]
        jobs = CounterMetricFamily("straggler_jobs", "Jobs that have their result.", labels=("function", "result"))
        for row in rows:
            for status, number in sorted(row.results.items()):
                jobs.add_metric((row.function, status), number)
        yield jobs
        runs, waits = [(row.function, row.run) for row in rows], [(row.function, row.wait) for row in rows]
        yield _histogram("straggler_job_run_seconds", "How long jobs ran.", runs)
        yield _histogram("straggler_job_wait_seconds", "How long jobs waited before they started.", waits)
        leases = CounterMetricFamily("straggler_lease_renewals", "Leases that were to be renewed.", labels=("outcome",))
        for outcome in ("renewed", "lost"):
            leases.add_metric((outcome,), counts.beside[f"leases_{outcome}"])
        yield leases
        retries = counts.beside["redis_retries"]
        yield CounterMetricFamily("straggler_redis_retries", "Calls of Redis made again.", value=retries)
        deaths = CounterMetricFamily(
            "straggler_worker_deaths", "Worker processes that ended otherwise than in order.", labels=("cause",)
        )
        for cause in ("died", "killed"):
            deaths.add_metric((cause,), self._deaths[cause])
        yield deaths
        yield GaugeMetricFamily("straggler_worker_processes", "Worker processes that live.", value=len(living))
        for name, told in _SUMS.items():
            value = sum(process.now.get(name, 0.0) for process in living)
            yield GaugeMetricFamily(f"straggler_worker_{name}", told, value=value)
        batches = len({batch for process in living for batch in process.batches})
        yield GaugeMetricFamily("straggler_worker_batches", "Batches of which chunks are held.", value=batches)
        lag = max((process.now.get("loop_lag_seconds", 0.0) for process in living), default=0.0)
        yield GaugeMetricFamily(
            "straggler_worker_loop_lag_seconds", "Longest lag of an event loop in the last seconds.", value=lag
        )


@contextmanager
def serving(host: str, port: int, collector: Collector) -> Iterator[int]:
    """Serve `/metrics` from a thread; yields the port.

    Raises:
        OptionError: If the address cannot be had.
    """
    from prometheus_client import CollectorRegistry, start_http_server

    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    try:
        server, thread = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise OptionError(f"metrics cannot be served at {host}:{port}: {error.strerror or error}") from None
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _histogram(name: str, told: str, found: Sequence[tuple[str, list[float]]]) -> Any:
    from prometheus_client.core import HistogramMetricFamily

    family = HistogramMetricFamily(name, told, labels=("function",))
    for function, (*counts, total) in found:
        bounds = (*map(str, BUCKETS), "+Inf")
        family.add_metric((function,), list(zip(bounds, accumulate(counts), strict=True)), total)
    return family


def _sum(one: Row, other: Row) -> Row:
    """Add up what two processes have counted of the same function."""
    results = {status: one.results[status] + other.results[status] for status in one.results}
    return Row(one.function, results, list(map(add, one.run, other.run)), list(map(add, one.wait, other.wait)))


def _read(path: Path) -> tuple[list[Row], Signs]:
    rows, signs = [], Signs()
    with suppress(OSError):
        rows = list(read_tally(path.with_suffix(".jobs")))
    with suppress(OSError, ValidationError):  # it has just begun
        signs = Signs.model_validate_json(path.with_suffix(".json").read_bytes())
    return rows, signs


def _lives(path: Path) -> bool:
    """Whether the process that made this file holds it still."""
    with suppress(FileNotFoundError), path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False
