"""The independent checker: believes the journal and the results, knows the plan, and imports nothing of straggler.

Each rule yields a line for whatever breaks it. `RULES` are asked about each job.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from tests.chaos.evidence import Disturbance, Evidence, Job, Result
from tests.chaos.findings import Finding
from tests.chaos.journal import Run
from tests.chaos.plan import CRASHES

# A job's own clock and the journal's differ by what it takes to start a job and to write a line, s.
_FINENESS = 0.1
# What runs in a process of its own writes its line only once that has started, s later on a busy machine.
_PROCESS_START = 1.0
# What runs in a process of its own.
_PLAIN = frozenset({"compute", "stick"})
# A worker that can reach Redis learns within 0.3 of a lease that it has lost a chunk; grace and a busy machine come on
# top, s.
_SLACK = 5.0


def check(evidence: Evidence) -> Iterator[Finding]:
    """Yield all that must not be."""
    for batch_id, index in evidence.strangers():
        yield Finding("submitted", f"batch {batch_id}, job {index}: has runs or results, and was never submitted")
    yield from _counts(evidence)
    for job in evidence.jobs():
        for rule, judge in RULES.items():
            for seen in judge(job):
                yield Finding(rule, f"{job}: {seen}")
        for seen in ran_on_beside(job, evidence):
            yield Finding("ran on", f"{job}: {seen}")
        for seen in started_though_cancelled(job, evidence):
            yield Finding("started", f"{job}: {seen}")


def _counts(evidence: Evidence) -> Iterator[Finding]:
    """A batch has the jobs that were planned, each where it was added; one that was cancelled has what it had taken."""
    for planned in evidence.planned:
        name, total = planned.batch_id, evidence.totals.get(planned.batch_id)
        if total is not None and total != evidence.total(planned):
            yield Finding("submitted", f"batch {name}: has {total} jobs in place of {evidence.total(planned)}")
        for place, index in evidence.added.get(name, {}).items():
            if index != place or (total is not None and index >= total):
                yield Finding("added", f"batch {name}: job {place} was added as number {index} of {total}")


def has_one_result(job: Job) -> Iterator[str]:
    """Every job has exactly one result, delivered once, and the batch holds it once."""
    if len(job.deliveries) != 1:
        statuses = [delivery.result["status"] for delivery in job.deliveries]
        yield f"{len(statuses)} results were delivered: {statuses}"
    if len(job.again) != 1:
        yield f"the batch held {len(job.again)} results at the end: {[result['status'] for result in job.again]}"


def keeps_its_result(job: Job) -> Iterator[str]:
    """No result changes once it was seen."""
    for later in [*(delivery.result for delivery in job.deliveries[1:]), *job.again]:
        if job.result is not None and later != job.result:
            changed = {name: (job.result.get(name), later.get(name)) for name in later}
            yield f"its result changed: { {name: pair for name, pair in changed.items() if pair[0] != pair[1]} }"
            return


def returned_what_is_told(job: Job) -> Iterator[str]:
    """No success without a run that returned that value, no failure without one that raised that error."""
    result = job.result
    if result is None:
        return
    if result["status"] == "success":
        if not any(run.how == "returned" and run.text == result["value"] for run in job.runs):
            yield f"success of the value {result['value']!r}, which no run has returned ({len(job.runs)} runs)"
    elif result["status"] == "failure":
        raised = [run.text for run in job.runs if run.how == "raised"]
        if not any(text.partition(": ")[2] == result["message"] for text in raised):
            yield f"failure {result['error_type']}: {result['message']!r}, which no run has raised ({len(raised)} have)"


def ended_as_planned(job: Job) -> Iterator[str]:
    """A job ends in what it was made for."""
    result, kind = job.result, job.kind
    if result is None or result["status"] in (kind.status, "cancelled"):
        return
    status = result["status"]
    if status == "timeout" and any(_length(job, at) >= kind.limit - _FINENESS for at in range(len(job.runs))):
        return  # it really took that long
    if status == "lost" and len(job.runs) > CRASHES:
        return
    told = {name: result[name] for name in ("message", "reason", "phase", "stopped", "limit") if name in result}
    yield f"{status} in place of {kind.status}, {told}, {len(job.runs)} runs"


def had_its_time(job: Job) -> Iterator[str]:
    """A timeout comes after the limit, and only to a job that ran."""
    result = job.result
    if result is None or result["status"] != "timeout" or result["phase"] != "running":
        return
    longest = max((_length(job, at) for at in range(len(job.runs))), default=0.0)
    margin = _PROCESS_START if result["stopped"] == "killed" else _FINENESS
    if longest < result["limit"] - margin:
        yield f"timeout after {result['limit']:g} s, and its longest run took {longest:.3f} s"


def _length(job: Job, at: int) -> float:
    # A run that was killed told no end: it went on until the result at the latest.
    run = job.runs[at]
    seen = job.deliveries[0].seen if job.deliveries else run.started
    return (seen if run.ended is None else run.ended) - run.started


def is_lost_for_a_reason(job: Job) -> Iterator[str]:
    """Only the third crash under a job loses it."""
    result = job.result
    if result is None or result["status"] != "lost":
        return
    crashes = sum(run.ended is None for run in job.runs)
    if crashes <= CRASHES or result["attempt"] <= CRASHES:
        yield f"lost at attempt {result['attempt']} after {crashes} runs that came to no end"


def stays_within_its_attempts(job: Job) -> Iterator[str]:
    """An attempt is burnt by a crash under the job or a failure with retries left, and by nothing else."""
    result = job.result
    if result is None:
        return
    attempt, bound = result["attempt"], 1 + job.planned.retries + CRASHES
    if attempt > bound:
        yield f"attempt {attempt}, {bound} at most"
    elif attempt > max(1, len(job.runs) + _never_began(result) + _died_untold(job, result)):
        yield f"attempt {attempt}, and {len(job.runs)} runs have started"
    else:
        burnt = sum(_burns_an_attempt(job, at) for at in range(len(job.runs))) + _died_untold(job, result)
        if attempt - 1 > burnt:
            yield f"attempt {attempt}, and {burnt} of {len(job.runs)} runs crashed or failed"


def _never_began(result: Result) -> bool:
    """Whether the attempt that a result names was cancelled while it waited."""
    return bool(result["status"] == "cancelled" and result["started_at"] is None)


def _died_untold(job: Job, result: Result) -> bool:
    """Whether a run may have died before it could say that it had started: a process takes a moment to begin."""
    return job.kind.function in _PLAIN and min(job.deaths.values(), default=math.inf) < (result["started_at"] or 0.0)


def _burns_an_attempt(job: Job, at: int) -> bool:
    run = job.runs[at]
    if run.ended is None or (run.how == "raised" and not run.was_cancelled):
        return True
    # It had ended, and its worker died before that was recorded; so it ran again, or was cancelled before it did.
    again = job.runs[at + 1].started if at + 1 < len(job.runs) else 0.0
    if job.result is not None and not again and _never_began(job.result):
        again = job.result["finished_at"]
    return job.deaths.get(run.worker, math.inf) < again


def is_known_by_its_key(job: Job) -> Iterator[str]:
    """A job's result names the job that was planned in its place."""
    if job.result is not None and job.result["key"] != f"k{job.index}":
        yield f"it is another job, of key {job.result['key']}"


def was_cancelled_by_request(job: Job) -> Iterator[str]:
    """Only who was asked to be cancelled is; and once that has been done nothing else comes of it."""
    result = job.result
    if result is None:
        return
    if result["status"] == "cancelled":
        if not job.planned.is_cancelled_by_request(job.index):
            yield "cancelled, and nobody has asked for it"
    elif job.cancelled is not None and result["finished_at"] > job.cancelled + _FINENESS:
        late = result["finished_at"] - job.cancelled
        yield f"{result['status']} {late:.3f} s after it had been cancelled"


def ran_on_beside(job: Job, evidence: Evidence) -> Iterator[str]:
    """A worker that has lost its lease stops the job: it does not run on beside the one that has it now.

    For as long as a fault keeps it from knowing, it may.
    """
    for earlier, later in zip(job.runs, job.runs[1:], strict=False):
        if earlier.ended is None or earlier.ended < later.started or earlier.worker == later.worker:
            continue
        seconds = _free_to_know(earlier, later.started, earlier.ended, evidence.disturbances)
        if seconds > evidence.lease * 0.3 + _SLACK:
            yield (
                f"worker {earlier.worker} of {earlier.node} ran it for {seconds:.1f} s beside worker {later.worker} "
                f"of {later.node}, which had it by then"
            )


def started_though_cancelled(job: Job, evidence: Evidence) -> Iterator[str]:
    """A job that has been cancelled never starts; but by a worker that a fault keeps from knowing."""
    if job.cancelled is None:
        return
    for run in job.runs:
        if run.started > job.cancelled:
            seconds = _free_to_know(run, job.cancelled, run.started, evidence.disturbances)
            if seconds > evidence.lease * 0.3 + _SLACK:
                yield f"worker {run.worker} of {run.node} has started it {seconds:.1f} s after it had been cancelled"


def _free_to_know(run: Run, since: float, until: float, disturbances: Sequence[Disturbance]) -> float:
    """Tell the longest time without a fault that kept the run's worker from hearing of its lease, s."""
    longest = 0.0
    for disturbance in disturbances:
        if (
            disturbance.kind != "lease-loss"
            and disturbance.touches(run)
            and since < disturbance.healed
            and disturbance.began < until
        ):
            longest = max(longest, disturbance.began - since)
            since = disturbance.healed
    return max(longest, until - since)


RULES: dict[str, Callable[[Job], Iterator[str]]] = {
    "one result": has_one_result,
    "changed": keeps_its_result,
    "made up": returned_what_is_told,
    "outcome": ended_as_planned,
    "too early": had_its_time,
    "lost": is_lost_for_a_reason,
    "attempts": stays_within_its_attempts,
    "cancelled": was_cancelled_by_request,
    "key": is_known_by_its_key,
}
