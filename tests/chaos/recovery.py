"""How long jobs were held up by a fault, from the journal and the times at which collectors saw results."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from tests.chaos.evidence import Disturbance, Evidence, JobName
from tests.chaos.findings import Finding
from tests.chaos.journal import Run

# A dead worker's jobs run elsewhere 12 s later at the latest, with a lease of 10 s. The rest is for a busy machine, and
# for jobs of the same chunk that have become suspicious and run alone first: some take 8 s.
_BEYOND_LEASE = 20.0
# A worker that leaves lets its jobs run for `shutdown_wait` (1 s here) and hands the rest back at once.
_AFTER_TERM = 6.0
# After a fault workers find their way back within this, s.
_LONGEST_RECONNECT = 5.0
# A job of which so many runs were cut short is taken for one that kills its workers.
_SUSPICIOUS = 2
# No run that was going on at a fault began earlier, s: no job's timeout is longer, but for grace.
_LONGEST_RUN = 70.0


@dataclass(frozen=True, slots=True)
class Recovery:
    """How long it took until all jobs that a fault befell were well again.

    Args:
        disturbance: The fault.
        whole: From the fault to the moment at which the last of its jobs had its result or ran elsewhere, s.
        seconds: The same, without the time in which other faults were not healed: what is judged.
        jobs: How many jobs there were.
        worst: The one that took the longest.
        is_alone: Whether no other fault can have been in the way.
    """

    disturbance: Disturbance
    whole: float = 0.0
    seconds: float = 0.0
    jobs: int = 0
    worst: JobName | None = None
    is_alone: bool = True


def recoveries(evidence: Evidence) -> list[Recovery]:
    """Measure each fault that befell workers or Redis."""
    measure = _Measure(evidence)
    found = []
    for disturbance in evidence.disturbances:
        if disturbance.nodes:
            is_redis = disturbance.kind.startswith("redis")
            found.append(measure.of_redis(disturbance) if is_redis else measure.of_workers(disturbance))
    return found


def slow_ones(measured: Sequence[Recovery], lease: float) -> Iterator[Finding]:
    """Yield a finding for each fault from which it took too long to recover."""
    for recovery in measured:
        kind = recovery.disturbance.kind
        # A worker that is cut off when it is told to stop can hand nothing back: then its leases lapse.
        bound = _AFTER_TERM if kind == "node-term" and recovery.is_alone else lease + _BEYOND_LEASE
        if recovery.seconds > bound:
            batch_id, index = recovery.worst or ("", -1)
            which = f"batch {batch_id}, job {index}" if recovery.worst else "no job started on one node"
            yield Finding("recovery", f"{which}: {recovery.seconds:.1f} s after {kind}, {bound:g} s at most")


class _Measure:
    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self._runs = evidence.runs
        self._starts = [run.started for run in evidence.runs]
        self._by_job = evidence.runs_by_job()

    def of_workers(self, fault: Disturbance) -> Recovery:
        """Wait for the jobs that ran on the workers that it befell."""
        measured = Recovery(fault)
        for run in self._running_at(fault):
            time = self._held_up(run, fault)
            if time is not None:
                measured = self._worse(measured, *time, (run.batch_id, run.index))
        return replace(measured, is_alone=self._is_alone(fault, fault.began + measured.whole))

    def of_redis(self, fault: Disturbance) -> Recovery:
        """Wait until jobs start again on every node."""
        measured = Recovery(fault)
        for node in fault.nodes:
            later = self._runs[bisect_left(self._starts, fault.healed) :]
            first = next((run.started for run in later if run.node == node), None)
            if first is not None:
                measured = self._worse(measured, fault.healed, first, None)
        return measured

    def _running_at(self, fault: Disturbance) -> Iterator[Run]:
        first = bisect_left(self._starts, fault.began - _LONGEST_RUN)
        for run in self._runs[first : bisect_left(self._starts, fault.began)]:
            if fault.touches(run) and (run.ended is None or run.ended > fault.began):
                yield run

    def _held_up(self, run: Run, fault: Disturbance) -> tuple[float, float] | None:
        """Tell from when until when a job was held up by the fault; None if that is not why it waited."""
        name = (run.batch_id, run.index)
        before = [other for other in self._by_job[name] if other.started <= fault.began]
        interrupted = sum(other.ended is None or other.was_cancelled for other in before)
        if run is not before[-1] or interrupted >= _SUSPICIOUS:
            return None  # it ran elsewhere by then; or it runs alone from now on, and waits for others that do
        deliveries = self._evidence.deliveries.get(name)
        if not deliveries or deliveries[0].seen <= fault.began:
            return None
        seen = deliveries[0].seen
        if run.ended is not None and deliveries[0].result.get("value") == run.text:
            # It went on undisturbed: what counts is how long its result took after that.
            return run.ended, seen
        later = [other.started for other in self._by_job[name] if other.started > fault.began]
        return fault.began, min([seen, *later])

    def _worse(self, measured: Recovery, began: float, until: float, job: JobName | None) -> Recovery:
        """Take account of one more job that was held up in this time."""
        seconds = self._undisturbed(measured.disturbance, began, until)
        is_worse = seconds > measured.seconds
        return Recovery(
            measured.disturbance,
            max(measured.whole, until - began),
            max(measured.seconds, seconds),
            measured.jobs + (job is not None),
            job if is_worse else measured.worst,
        )

    def _is_alone(self, fault: Disturbance, until: float) -> bool:
        """Tell whether no other fault was in the way, or had been shortly before; other nodes' restarts never are."""
        return not any(
            other.began < until and other.healed > fault.began - _LONGEST_RECONNECT
            for other in self._evidence.disturbances
            if other is not fault and (other.kind != "node-term" or set(other.nodes) & set(fault.nodes))
        )

    def _undisturbed(self, fault: Disturbance, began: float, until: float) -> float:
        """Tell how much of a time no other fault was going on, s."""
        seconds = 0.0
        for other in self._evidence.disturbances:  # by the time when they began
            if other is not fault and other.healed > began:
                seconds += max(0.0, min(other.began, until) - began)
                began = other.healed
        return seconds + max(0.0, until - began)
