"""The tally of a batch and its closing table."""

from __future__ import annotations

import random
import sys
from typing import Any, get_args

import pytest
from rich.console import Console

from producer.pictures import summary
from producer.pictures.summary import Tally, summarize
from protocol.results import PHASES, CancelledResult, FailureResult, LostResult, Phase, SuccessResult, TimeoutResult


def common(index: int = 0, duration: float | None = 1.0, key: str | None = None) -> dict[str, Any]:
    finished = None if duration is None else 100.0 + duration
    times = {"started_at": None if duration is None else 100.0, "finished_at": finished}
    return {"job_id": f"b:{index}", "index": index, "function": "f", "key": key, **times}


def failure(message: str, error_type: str = "ValueError", index: int = 0) -> FailureResult:
    return FailureResult(**common(index), error_type=error_type, message=message)


def table(tally: Tally, total: int, elapsed: float = 2.0, width: int = 100) -> str:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(summarize(tally, total, elapsed))
    return capture.get()


def lines(text: str) -> dict[str, str]:
    found = [" ".join(line.split()) for line in text.splitlines()]
    return {line.split(" ")[0]: line for line in found if line}


def test_memory_does_not_grow_with_the_batch() -> None:
    tally = Tally()
    chance = random.Random(7)
    for index in range(20_000):
        tally.add(failure("no", error_type=f"E{index % 5000}", index=index))
        tally.add(SuccessResult(**common(index, chance.lognormvariate(0, 9)), value=None))
    kinds = tally.failures()
    assert len(kinds) == 2 * summary._KINDS_KEPT + 1  # by type and message, then by type alone, then all the rest
    assert str(kinds[0]) == "(various errors): (various messages)"
    assert len(tally.durations._buckets) < 10_000
    assert len(tally._slowest) == 5
    assert sys.getsizeof(tally._slowest) < 1000
    assert sum(kind.count for kind in kinds) == 20_000


# ---- failures


def test_failures_are_grouped_by_type_and_message() -> None:
    tally = Tally()
    for message, error_type in [("no", "A"), ("no", "A"), ("yes", "A"), ("no", "B")]:
        tally.add(failure(message, error_type))
    assert [(str(kind), kind.count) for kind in tally.failures()] == [("A: no", 2), ("A: yes", 1), ("B: no", 1)]


def test_messages_that_differ_in_numbers_are_one_kind() -> None:
    tally = Tally()
    for message in ("user 3 not found", "user 17 not found", "user 17 not found", "HTTP 500", "HTTP 500"):
        tally.add(failure(message))
    assert [(kind.message, kind.count) for kind in tally.failures()] == [("user # not found", 3), ("HTTP 500", 2)]


def test_messages_that_differ_in_urls_are_one_kind() -> None:
    tally = Tally()
    for message in ("500 for http://a/1", "500 for http://b/2"):
        tally.add(failure(message))
    assert [(kind.message, kind.count) for kind in tally.failures()] == [("500 for URL", 2)]


def test_message_is_told_by_its_first_line() -> None:
    tally = Tally()
    tally.add(failure("\n  first\nsecond"))
    tally.add(failure(""))
    assert [str(kind) for kind in tally.failures()] == ["ValueError: first", "ValueError"]


# ---- slowest


def test_slowest_are_named_by_key_or_else_by_index() -> None:
    tally = Tally()
    for index in range(100):
        tally.add(SuccessResult(**common(index, float(index), key=f"k{index}" if index % 2 else None), value=None))
    tally.add(TimeoutResult(**common(100, None), limit=1, phase="queued", stopped="not started"))
    found = [(round(duration), key, status) for duration, key, status in tally.slowest()]
    keys = [(99, "k99"), (98, "job 98"), (97, "k97"), (96, "job 96"), (95, "k95")]
    assert found == [(duration, key, "success") for duration, key in keys]


def test_long_key_of_a_slow_job_is_cut_on_a_narrow_terminal_and_nothing_else() -> None:
    tally = Tally()
    tally.add(TimeoutResult(**common(1, 3.0, "http://" + "x" * 200), limit=3, phase="running", stopped="cancelled"))
    line = lines(table(tally, 1, width=60))["slowest"]
    assert line.startswith("slowest 3.00 s timed out http://xxxx")
    assert line.endswith("x\u2026")


# ---- the table


def test_table_tells_every_outcome() -> None:
    tally = Tally()
    for index in range(990):
        tally.add(SuccessResult(**common(index, 0.02), value=index))
    for phase in ("running", "running", "queued"):
        tally.add(TimeoutResult(**common(1, 3.0, "slow"), limit=3, phase=phase, stopped="cancelled"))
    tally.add(failure("bad"))
    tally.add(CancelledResult(**common(), reason="enough"))
    tally.add(LostResult(**common(), reason="crash"))
    text = table(tally, 1000)
    found = lines(text)
    assert found["succeeded"] == "succeeded 990 99.0 %"
    assert found["timed"] == "timed out 3 0.3 % 2 while running, 1 while queued"
    assert found["failed"] == "failed 1 0.1 % 1x ValueError: bad"
    assert found["cancelled"] == "cancelled 1 0.1 %"
    assert found["lost"] == "lost 1 0.1 %"
    assert found["no"] == "no result yet 4 0.4 %"
    assert found["all"] == "all 1,000 in 2.00 s, 498 a second"
    assert found["run"] == "run time p50 20 ms · p95 20 ms · max 3.00 s"
    assert found["slowest"] == "slowest 3.00 s timed out slow"


def test_share_is_whole_only_where_all_are_meant() -> None:
    tally = Tally()
    tally.counts["success"] = 99_999
    tally.add(failure("bad"))
    found = lines(table(tally, 100_000))
    assert found["succeeded"].endswith("99.9 %")
    assert "0.1 %" in found["failed"]
    assert found["timed"] == "timed out 0 -"


def test_table_tells_few_kinds_of_failure_and_counts_the_rest() -> None:
    tally = Tally()
    for index in range(8):
        for _ in range(8 - index):
            tally.add(failure("no", error_type=f"E{chr(65 + index)}"))
    text = table(tally, 36)
    assert "8x EA: no" in text
    assert "6x 3 other kinds of failure" in text
    assert "EF" not in text


def test_table_of_jobs_that_never_started_has_no_run_time() -> None:
    tally = Tally()
    tally.add(TimeoutResult(**common(0, None), limit=1, phase="batch", stopped="not started"))
    text = table(tally, 1)
    assert "1 at the batch's deadline" in text
    assert "run time" not in text


def test_what_looks_like_markup_is_told_as_it_is() -> None:
    tally = Tally()
    tally.add(failure("[bold]x[/bold] [/]"))
    tally.add(SuccessResult(**common(1, 9.0, key="[red]k[/]"), value=None))
    text = table(tally, 2)
    assert "[bold]x[/bold] [/]" in text
    assert "[red]k[/]" in text


@pytest.mark.parametrize("phase", get_args(Phase))
def test_each_clock_that_can_run_out_has_its_words(phase: Any) -> None:
    tally = Tally()
    tally.add(TimeoutResult(**common(1, 3.0, "slow"), limit=3, phase=phase, stopped="cancelled"))
    assert f"1 {PHASES[phase]}" in table(tally, 1)
