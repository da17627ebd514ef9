"""Each rule of the checker fires on a made-up journal that breaks it, and only that rule; a clean one passes."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.chaos import checker, evidence, journal, plan, recovery
from tests.chaos.evidence import Delivery, Disturbance, Evidence
from tests.chaos.journal import Run
from tests.chaos.plan import KINDS, Planned

LETTERS = "".join(KINDS)
BATCH = "b1"


def result(index: int, status: str, **fields: Any) -> dict[str, Any]:
    common = {"job_id": f"{BATCH}:{index}", "index": index, "key": f"k{index}", "status": status, "attempt": 1}
    return {**common, "started_at": 100.0, "finished_at": 101.0, **fields}


def run(index: int, at: float = 100.0, *, name: str | None = None, **fields: Any) -> Run:
    made = Run(name or f"run{index}", BATCH, index, 1, 7, "n1", at, at + 1.0, "returned", name or f"run{index}")
    return replace(made, **fields)


def crashed(index: int, at: float, name: str) -> Run:
    return run(index, at, name=name, ended=None, how="", text="")


def clean() -> Evidence:
    """Make what a run without any trouble leaves: one job of each kind."""
    made = Evidence([Planned(BATCH, LETTERS)])
    for index, letter in enumerate(LETTERS):
        kind = KINDS[letter]
        match kind.status:
            case "success":
                runs, told = [run(index)], result(index, "success", value=f"run{index}")
            case "failure":
                runs = [run(index, how="raised", text="PlannedError: no")]
                told = result(index, "failure", error_type="tests.PlannedError", message="no")
            case "timeout":
                runs = [run(index, how="raised", text="CancelledError: ")]
                told = result(index, "timeout", phase="running", stopped="cancelled", limit=kind.limit)
            case _:
                runs = [crashed(index, 100.0 + at, f"run{index}-{at}") for at in range(3)]
                told = result(index, "lost", reason="it died", attempt=3)
        made.runs += runs
        made.deliveries[BATCH, index] = [Delivery(103.0, told)]
        made.again[BATCH, index] = [dict(told)]
    return made


def rules_broken(found: Evidence) -> list[str]:
    return [finding.rule for finding in checker.check(found)]


def tell(found: Evidence, index: int, **fields: Any) -> None:
    """Let the job's result say something else, wherever it is told."""
    told = {**found.deliveries[BATCH, index][0].result, **fields}
    found.deliveries[BATCH, index] = [Delivery(103.0, told)]
    found.again[BATCH, index] = [dict(told)]


def runs_of(found: Evidence, index: int, *runs: Run) -> None:
    """Put these in place of the job's runs."""
    found.runs = [run for run in found.runs if run.index != index] + list(runs)


NAP, HANG, FAIL, DIE, COMPUTE = (LETTERS.index(letter) for letter in "shfxp")


def test_a_clean_journal_passes() -> None:
    assert rules_broken(clean()) == []


def test_checker_and_what_it_reads_import_nothing_of_straggler() -> None:
    ours = {"checker", "evidence", "findings", "journal", "plan", "recovery"}
    for name in ours:
        tree = ast.parse(Path(__file__).with_name(f"{name}.py").read_text())
        for node in ast.walk(tree):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for module in modules:
                assert module.split(".")[0] not in {"straggler", "protocol", "producer", "workers"}, (name, module)
            if isinstance(node, ast.ImportFrom) and node.module == "tests.chaos":
                assert {alias.name for alias in node.names} <= ours
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tests.chaos."):
                assert (node.module or "").removeprefix("tests.chaos.") in ours


def no_result(found: Evidence) -> None:
    del found.deliveries[BATCH, NAP]


def two_deliveries(found: Evidence) -> None:
    found.deliveries[BATCH, NAP] *= 2


def gone_at_the_end(found: Evidence) -> None:
    del found.again[BATCH, NAP]


def twice_in_the_batch(found: Evidence) -> None:
    found.again[BATCH, NAP] *= 2


def changed_at_the_end(found: Evidence) -> None:
    found.again[BATCH, NAP] = [result(NAP, "success", value="another")]


def never_submitted(found: Evidence) -> None:
    found.runs.append(run(len(LETTERS)))


def value_of_nobody(found: Evidence) -> None:
    tell(found, NAP, value="nobody's")


def value_of_another_job(found: Evidence) -> None:
    tell(found, NAP, value=f"run{LETTERS.index('m')}")


def value_of_a_run_without_end(found: Evidence) -> None:
    runs_of(found, NAP, crashed(NAP, 100.0, f"run{NAP}"))


def error_of_nobody(found: Evidence) -> None:
    tell(found, FAIL, message="another")


def failure_in_place_of_success(found: Evidence) -> None:
    runs_of(found, NAP, run(NAP, how="raised", text="PlannedError: no"))
    tell(found, NAP, status="failure", error_type="tests.PlannedError", message="no")


def success_in_place_of_timeout(found: Evidence) -> None:
    runs_of(found, HANG, run(HANG))
    tell(found, HANG, status="success", value=f"run{HANG}")


def timeout_without_a_run(found: Evidence) -> None:
    runs_of(found, HANG)


def timeout_before_its_time(found: Evidence) -> None:
    runs_of(found, HANG, run(HANG, ended=100.3, how="raised", text="CancelledError: "))


def timeout_of_a_quick_job(found: Evidence) -> None:
    tell(found, NAP, status="timeout", phase="queued", stopped="not started", limit=1.0)


def lost_after_two_crashes(found: Evidence) -> None:
    runs_of(found, DIE, crashed(DIE, 100.0, "one"), crashed(DIE, 101.0, "two"), run(DIE, 102.0, name="three"))


def lost_at_the_second_attempt(found: Evidence) -> None:
    tell(found, DIE, attempt=2)


def too_many_attempts(found: Evidence) -> None:
    runs_of(found, NAP, *(crashed(NAP, 100.0 + at, f"crash{at}") for at in range(3)), run(NAP, 104.0))
    tell(found, NAP, attempt=4)


def more_attempts_than_runs(found: Evidence) -> None:
    tell(found, NAP, attempt=2)


def died_before_the_process_of_a_job_began(found: Evidence) -> None:
    runs_of(found, COMPUTE, run(COMPUTE, 105.0, worker=8))
    found.runs.append(replace(crashed(DIE, 100.5, "killed beside it"), worker=9))
    tell(found, COMPUTE, attempt=2, started_at=105.0)


def more_attempts_of_a_process_than_deaths(found: Evidence) -> None:
    runs_of(found, COMPUTE, run(COMPUTE, 105.0, worker=8))
    tell(found, COMPUTE, attempt=2, started_at=99.0)


def attempt_burnt_by_a_shutdown(found: Evidence) -> None:
    handed_back = run(NAP, name="first", ended=100.5, how="raised", text="CancelledError: ")
    runs_of(found, NAP, handed_back, run(NAP, 101.0))
    tell(found, NAP, attempt=2)


def cancelled_by_nobody(found: Evidence) -> None:
    runs_of(found, NAP)
    tell(found, NAP, status="cancelled", reason="", started_at=None)


def another_job_of_a_batch_is_cancelled(found: Evidence) -> None:
    found.planned = [Planned(BATCH, LETTERS, cancelled=(HANG,))]
    tell(found, NAP, status="cancelled", reason="")


def succeeded_though_cancelled(found: Evidence) -> None:
    found.planned = [Planned(BATCH, LETTERS, cancelled=(NAP,))]
    found.cancelled = {BATCH: 100.5}


def started_though_cancelled(found: Evidence) -> None:
    found.planned = [Planned(BATCH, LETTERS, cancelled=(NAP,))]
    found.cancelled = {BATCH: 90.0}
    tell(found, NAP, status="cancelled", reason="")


def another_job_in_its_place(found: Evidence) -> None:
    tell(found, NAP, key=f"k{HANG}")


def fewer_jobs_than_planned(found: Evidence) -> None:
    found.totals = {BATCH: len(LETTERS) - 1}


def more_jobs_than_planned(found: Evidence) -> None:
    found.planned = [Planned(BATCH, LETTERS, is_cancelled=True)]
    found.totals = {BATCH: len(LETTERS) + 1}


def added_twice(found: Evidence) -> None:
    found.added = {BATCH: {0: 0, 1: 2}}


def added_and_gone(found: Evidence) -> None:
    found.planned = [Planned(BATCH, LETTERS[:-1], is_cancelled=True)]
    found.totals = {BATCH: len(LETTERS) - 1}
    index = len(LETTERS) - 1
    found.added = {BATCH: {index: index}}
    runs_of(found, index)
    del found.deliveries[BATCH, index], found.again[BATCH, index]


def ran_on_after_its_lease_was_lost(found: Evidence) -> None:
    runs_of(found, NAP, run(NAP, 100.0, name="old", ended=125.0), run(NAP, 110.0, worker=8))


def ran_on_past_further_losses(found: Evidence) -> None:
    ran_on_after_its_lease_was_lost(found)
    found.disturbances = [Disturbance(at, at, ("n1", "n2"), "lease-loss") for at in (109.0, 113.0, 117.0, 121.0)]


@pytest.mark.parametrize(
    ("spoil", "rules"),
    [
        (no_result, ["one result"]),
        (two_deliveries, ["one result"]),
        (gone_at_the_end, ["one result"]),
        (twice_in_the_batch, ["one result"]),
        (changed_at_the_end, ["changed"]),
        (never_submitted, ["submitted"]),
        (value_of_nobody, ["made up"]),
        (value_of_another_job, ["made up"]),
        (value_of_a_run_without_end, ["made up"]),
        (error_of_nobody, ["made up"]),
        (failure_in_place_of_success, ["outcome"]),
        (success_in_place_of_timeout, ["outcome"]),
        (timeout_without_a_run, ["too early"]),
        (timeout_before_its_time, ["too early"]),
        (timeout_of_a_quick_job, ["outcome"]),
        (lost_after_two_crashes, ["lost", "attempts"]),
        (lost_at_the_second_attempt, ["lost"]),
        (too_many_attempts, ["attempts"]),
        (more_attempts_than_runs, ["attempts"]),
        (more_attempts_of_a_process_than_deaths, ["attempts"]),
        (attempt_burnt_by_a_shutdown, ["attempts"]),
        (cancelled_by_nobody, ["cancelled"]),
        (another_job_of_a_batch_is_cancelled, ["cancelled"]),
        (succeeded_though_cancelled, ["cancelled"]),
        (started_though_cancelled, ["started"]),
        (another_job_in_its_place, ["key"]),
        (fewer_jobs_than_planned, ["submitted"]),
        (more_jobs_than_planned, ["submitted"]),
        (added_twice, ["added"]),
        (added_and_gone, ["added"]),
        (ran_on_after_its_lease_was_lost, ["ran on"]),
        (ran_on_past_further_losses, ["ran on"]),
    ],
)
def test_what_must_not_be_is_found(spoil: Callable[[Evidence], None], rules: list[str]) -> None:
    found = clean()
    spoil(found)
    assert set(rules_broken(found)) <= set(rules)
    assert rules[0] in rules_broken(found)


def lost_after_three_crashes(found: Evidence) -> None:
    runs_of(found, NAP, *(crashed(NAP, 100.0 + at, f"crash{at}") for at in range(3)))
    tell(found, NAP, status="lost", reason="it died", attempt=3)


def ran_again_after_a_crash(found: Evidence) -> None:
    runs_of(found, NAP, crashed(NAP, 100.0, "first"), run(NAP, 101.0))
    tell(found, NAP, attempt=2)


def ran_again_after_a_failure(found: Evidence) -> None:
    found.planned = [Planned(BATCH, LETTERS, retries=2)]
    runs_of(found, NAP, run(NAP, name="first", how="raised", text="PlannedError: no"), run(NAP, 102.0))
    tell(found, NAP, attempt=2)


def died_before_its_end_was_recorded(found: Evidence) -> None:
    runs_of(found, NAP, run(NAP, name="first", worker=9), run(NAP, 105.0, worker=8))
    found.runs.append(replace(crashed(DIE, 100.5, "killed beside it"), worker=9))
    found.runs.sort(key=lambda run: run.started)
    tell(found, NAP, attempt=2)


def ran_twice(found: Evidence) -> None:
    runs_of(found, NAP, run(NAP, name="first"), run(NAP, 105.0, worker=8))


def really_took_too_long(found: Evidence) -> None:
    limit = KINDS["s"].limit
    runs_of(found, NAP, run(NAP, ended=101.0 + limit, how="raised", text="CancelledError: "))
    tell(found, NAP, status="timeout", phase="running", stopped="cancelled", limit=limit)


def cancelled_by_request(found: Evidence) -> None:
    found.planned = [Planned(BATCH, LETTERS, cancelled=(NAP,))]
    runs_of(found, NAP)
    tell(found, NAP, status="cancelled", reason="", started_at=None)


def cancelled_while_it_waited_for_its_retry(found: Evidence) -> None:
    found.planned = [Planned(BATCH, LETTERS, retries=2, cancelled=(FAIL,))]
    tell(found, FAIL, status="cancelled", reason="", started_at=None, attempt=2)


def cancelled_after_its_worker_died_before_its_end_was_recorded(found: Evidence) -> None:
    found.planned = [Planned(BATCH, LETTERS, is_cancelled=True)]
    runs_of(found, NAP, run(NAP, name="first", worker=9))
    found.runs.append(replace(crashed(DIE, 100.5, "killed beside it"), worker=9))
    found.runs.sort(key=lambda run: run.started)
    tell(found, NAP, status="cancelled", reason="", started_at=None, attempt=2, finished_at=105.0)


def cancelled_while_it_ran(found: Evidence) -> None:
    found.planned = [Planned(BATCH, LETTERS, is_cancelled=True)]
    found.cancelled = {BATCH: 101.0}
    tell(found, NAP, status="cancelled", reason="", started_at=None)


def cancelled_before_all_of_it_came(found: Evidence) -> None:
    found.planned = [Planned(BATCH, LETTERS + "s", is_cancelled=True)]
    found.totals = {BATCH: len(LETTERS)}


def started_by_a_worker_that_was_cut_off_when_it_was_cancelled(found: Evidence) -> None:
    started_though_cancelled(found)
    found.disturbances = [Disturbance(89.0, 102.0, ("n1",), "cut-drop")]


def ran_on_while_cut_off(found: Evidence) -> None:
    ran_on_after_its_lease_was_lost(found)
    found.disturbances = [Disturbance(101.0, 122.0, ("n1",), "cut-drop")]


@pytest.mark.parametrize(
    "happen",
    [
        lost_after_three_crashes,
        ran_again_after_a_crash,
        ran_again_after_a_failure,
        died_before_its_end_was_recorded,
        died_before_the_process_of_a_job_began,
        ran_twice,
        really_took_too_long,
        cancelled_by_request,
        cancelled_while_it_waited_for_its_retry,
        cancelled_after_its_worker_died_before_its_end_was_recorded,
        cancelled_while_it_ran,
        cancelled_before_all_of_it_came,
        started_by_a_worker_that_was_cut_off_when_it_was_cancelled,
        ran_on_while_cut_off,
    ],
)
def test_what_may_be_is_not_found(happen: Callable[[Evidence], None]) -> None:
    found = clean()
    happen(found)
    assert rules_broken(found) == []


# ---- recovery


def recovered(kind: str, *runs: Run, seen: float) -> tuple[float, list[str]]:
    """Measure a fault at 100.5 that befell worker 7 of n1, which ran one job."""
    told = result(0, "success", value=runs[-1].run_id)
    found = Evidence([Planned(BATCH, "s")], list(runs), {(BATCH, 0): [Delivery(seen, told)]})
    found.disturbances = [Disturbance(100.5, 101.0, ("n1",), kind, (7,))]
    [measured] = recovery.recoveries(found)
    return measured.seconds, [finding.rule for finding in recovery.slow_ones([measured], 10.0)]


def test_recovery_lasts_until_the_job_runs_elsewhere() -> None:
    runs = [crashed(0, 100.0, "first"), run(0, 111.0, name="second", worker=8)]
    assert recovered("worker-kill", *runs, seen=112.5) == (10.5, [])
    assert recovered("node-term", *runs, seen=112.5) == (10.5, ["recovery"])


def test_recovery_that_takes_too_long_is_found() -> None:
    runs = [crashed(0, 100.0, "first"), run(0, 132.0, name="second", worker=8)]
    assert recovered("worker-kill", *runs, seen=133.0) == (31.5, ["recovery"])


def test_a_job_that_went_on_undisturbed_is_held_up_only_by_its_result() -> None:
    assert recovered("cut-hold", run(0, 100.0, ended=130.0), seen=131.0) == (1.0, [])


def test_a_run_that_others_have_gone_on_from_is_held_up_no_more() -> None:
    runs = [crashed(0, 99.0, "first"), run(0, 100.0, name="second", worker=8, node="n2", ended=130.0)]
    assert recovered("cut-drop", *runs, seen=130.5) == (0.0, [])


def test_a_job_whose_runs_were_cut_short_twice_waits_to_run_alone() -> None:
    runs = [crashed(0, at, f"run at {at}") for at in (99.0, 100.0)] + [run(0, 140.0, name="alone", worker=8)]
    assert recovered("worker-kill", *runs, seen=142.0) == (0.0, [])


def test_time_under_other_faults_does_not_count() -> None:
    runs = [crashed(0, 100.0, "first"), run(0, 111.0, name="second", worker=8)]
    told = result(0, "success", value="second")
    found = Evidence([Planned(BATCH, "s")], runs, {(BATCH, 0): [Delivery(112.0, told)]})
    found.disturbances = [
        Disturbance(100.5, 100.5, ("n1",), "worker-kill", (7,)),
        Disturbance(102.0, 107.0, ("n1", "n2"), "redis-stop"),
    ]
    of_kill, of_stop = recovery.recoveries(found)
    assert (of_kill.whole, of_kill.seconds, of_kill.jobs) == (10.5, 5.5, 1)
    assert (of_stop.whole, of_stop.seconds) == (4.0, 4.0)


def test_a_node_that_is_cut_off_when_it_is_told_to_stop_lets_its_leases_lapse() -> None:
    runs = [crashed(0, 100.0, "first"), run(0, 111.0, name="second", worker=8)]
    found = Evidence([Planned(BATCH, "s")], runs)
    found.deliveries[BATCH, 0] = [Delivery(112.0, result(0, "success", value="second"))]
    found.disturbances = [
        Disturbance(100.2, 102.0, ("n1",), "cut-drop"),
        Disturbance(100.5, 101.0, ("n1",), "node-term", (7,)),
    ]
    assert list(recovery.slow_ones(recovery.recoveries(found), 10.0)) == []


# ---- reading


def test_evidence_is_read_whole_but_for_torn_lines(tmp_path: Path) -> None:
    for name in ("results", "again", "added"):
        (tmp_path / name).mkdir()
    planned = Planned(BATCH, "s", adding="keyed", cancelled=(0,))
    plan.append(tmp_path / "plan.jsonl", planned)
    start = json.dumps(["start", "run0", BATCH, 0, 1, 7, "n1", 100.0])
    end = json.dumps(["end", "run0", 101.0, "returned", "run0"])
    (tmp_path / journal.NAME).write_text(f"\n{start}\n\n{start[:20]}\n{end}\n")
    told = result(0, "success", value="run0")
    line = json.dumps({"seen": 103.0, "cursor": "1-0", "result": told})
    (tmp_path / "results" / "b1.jsonl").write_text(f"{line}\n{line[:30]}")
    (tmp_path / "again" / "b1.jsonl").write_text(json.dumps({"total": 1}) + "\n" + json.dumps({"result": told}) + "\n")
    (tmp_path / "added" / "b1.jsonl").write_text(json.dumps({"from": 0, "indexes": [0]}) + "\n")
    times = [json.dumps({"batch_id": BATCH, "returned": at, "count": 1}) + "\n" for at in (102.0, 104.0)]
    (tmp_path / "cancelled.jsonl").write_text("".join(times))

    found = evidence.read(tmp_path, [], 10.0)

    assert found.runs == [run(0)]
    assert found.deliveries == {(BATCH, 0): [Delivery(103.0, told)]}
    assert found.again == {(BATCH, 0): [told]}
    assert (found.planned, found.totals, found.added) == ([planned], {BATCH: 1}, {BATCH: {0: 0}})
    assert found.cancelled == {BATCH: 102.0}
    assert rules_broken(found) == []
