"""The table at the end of a run of chaos."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from tests.chaos.evidence import Evidence
from tests.chaos.running import Report

# So many findings of a rule are told; all of them stand in a file.
_TOLD = 8


def lines(report: Report) -> Iterator[str]:
    """Write the table."""
    yield ""
    yield f"{'fault':<18}{'times':>6}{'jobs':>8}{'worst recovery, s':>20}{'without other faults':>24}"
    for kind, times in sorted(Counter(fault.kind for fault in report.faults).items()):
        yield f"{kind:<18}{times:>6}{_worst(report, kind)}"
    yield f"{'all':<18}{len(report.faults):>6}"
    yield ""
    yield from _jobs(report.evidence)
    rate = sum(len(planned.kinds) for planned in report.evidence.planned) / report.took
    yield f"took {report.took:.0f} s, {rate:.0f} jobs a second from start to end, seed {report.options.seed}"
    yield ""
    yield from _findings(report)


def _worst(report: Report, kind: str) -> str:
    measured = [recovery for recovery in report.recoveries if recovery.disturbance.kind == kind]
    if not measured:
        return ""
    jobs = sum(recovery.jobs for recovery in measured)
    whole, seconds = max(one.whole for one in measured), max(one.seconds for one in measured)
    return f"{jobs or '':>8}{whole:>20.1f}{seconds:>24.1f}"


def _jobs(evidence: Evidence) -> Iterator[str]:
    submitted = sum(len(planned.kinds) for planned in evidence.planned)
    statuses = Counter(found[0].result["status"] for found in evidence.deliveries.values())
    attempts = Counter(found[0].result["attempt"] for found in evidence.deliveries.values())
    started = len({(run.batch_id, run.index) for run in evidence.runs})
    yield f"jobs {submitted:,} in {len(evidence.planned)} batches, with a result {sum(statuses.values()):,}"
    yield f"runs {len(evidence.runs):,}, duplicates run {len(evidence.runs) - started:,}"
    yield "results " + ", ".join(f"{status} {count:,}" for status, count in statuses.most_common())
    yield _steered(evidence)
    yield "attempts " + ", ".join(f"{attempt}: {count:,}" for attempt, count in sorted(attempts.items()))


def _steered(evidence: Evidence) -> str:
    added = sum(planned.adding != "" for planned in evidence.planned)
    whole = sum(planned.is_cancelled for planned in evidence.planned)
    some = sum(bool(planned.cancelled) for planned in evidence.planned)
    return f"batches added to {added}, with cancelled jobs {some}, cancelled {whole}"


def _findings(report: Report) -> Iterator[str]:
    if not report.findings:
        yield "no findings: nothing lost, nothing twice"
        return
    rules = Counter(finding.rule for finding in report.findings)
    yield f"{len(report.findings):,} findings: " + ", ".join(f"{rule} {count:,}" for rule, count in rules.items())
    told: Counter[str] = Counter()
    for finding in report.findings:
        told[finding.rule] += 1
        if told[finding.rule] <= _TOLD:
            yield f"  {finding}"
    for rule, count in rules.items():
        if count > _TOLD:
            yield f"  {rule}: {count - _TOLD:,} more"
    yield f"all of them in {report.folder / 'findings.txt'}"
