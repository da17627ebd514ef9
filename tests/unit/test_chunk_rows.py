"""What a run ended in, as the row that is recorded for it."""

from __future__ import annotations

from typing import Any, cast

import pytest
from pydantic_core import from_json

from protocol.clock import RedisClock
from protocol.entries import decode_entry
from protocol.jobs import JobSpec
from protocol.recording import Row, Success, encode_common, record_rows, record_successes
from protocol.results import (
    CancelledResult,
    FailureResult,
    Result,
    SuccessResult,
    TimeoutResult,
)
from straggler import job
from tests.entries import entry_of
from tests.jobs import echo, square
from workers.ending.outcomes import Cancelled, HandedBack, Outcome, Raised, Returned, TimedOut
from workers.ending.rows import Rows
from workers.registry import Job
from workers.timeouts import Run

LIMIT = 1000
AHEAD = 1_700_000_000.0


@job
async def give_bytes() -> bytes:
    return b""


class EndedRun:
    """What a row is made of."""

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.started, self.finished = 100.0, 103.5


def rows(function: str = "echo") -> Rows:
    clock = RedisClock()
    clock.sync(1_700_000_100, 0, 100.0, 100.0)
    return Rows(function, clock, LIMIT)


def row_of(outcome: Outcome, function: Job[..., Any, Any] = echo, key: str | None = None) -> Row | None:
    spec: JobSpec[Any] = JobSpec(function=function.name, key=key)
    return rows().ended(7, spec, function, cast("Run", EndedRun(outcome)))


def read(row: Row | None) -> Result[Any]:
    assert row is not None
    index, status, text, *times = row
    common = encode_common("echo", "w", 1.0)
    if times:
        call = record_successes("b", common, [cast("Success", row)], AHEAD)
    else:
        call = record_rows("b", common, [index], [status], [text])
    [result] = decode_entry("b", entry_of(call), "key")
    assert (index, status) == (result.index, result.status)
    return result


@pytest.mark.parametrize("key", [None, "a key"])
@pytest.mark.parametrize("value", [None, 3, "ü\n", {"a": [1.5]}])
def test_a_returned_value_is_a_success(value: Any, key: str | None) -> None:
    result = read(row_of(Returned(value), key=key))
    assert isinstance(result, SuccessResult)
    assert (result.value, result.key, result.function) == (value, key, "echo")
    assert (result.started_at, result.finished_at) == (1_700_000_100.0, 1_700_000_103.5)


def test_a_row_names_its_function_where_it_is_not_the_groups() -> None:
    result = read(row_of(Returned(b"\xff"), give_bytes))
    assert (result.function, result.unwrap()) == ("give_bytes", b"\xff")


@pytest.mark.parametrize(
    ("function", "value", "told"),
    [
        (square, "many", "'square' returned what cannot be its result: .*valid integer"),
        (echo, object(), "'echo' returned what cannot be its result: Unable to serialize unknown type"),
        (echo, "\ud800", "'echo' returned what cannot be its result: "),
        (echo, "x" * LIMIT, r"the value takes 1,0\d\d bytes as JSON, at most 1,000 may be kept: .*MAX_RESULT_BYTES"),
    ],
)
def test_a_value_that_cannot_be_a_result_is_a_failure(function: Job[..., Any, Any], value: Any, told: str) -> None:
    result = read(row_of(Returned(value), function))
    assert isinstance(result, FailureResult)
    assert result.error_type.endswith("UnusableValueError")
    with pytest.raises(Exception, match=f"(?s){told}"):
        result.unwrap()


def test_what_was_raised_is_a_failure() -> None:
    result = read(row_of(Raised(TimeoutError("its own"))))
    assert isinstance(result, FailureResult)
    assert (result.error_type, result.message) == ("TimeoutError", "its own")


def test_a_timeout_and_a_cancel_say_what_they_are() -> None:
    timeout = read(row_of(TimedOut(3.0, "running", "abandoned")))
    assert isinstance(timeout, TimeoutResult)
    assert (timeout.limit, timeout.phase, timeout.stopped) == (3.0, "running", "abandoned")
    cancelled = read(row_of(Cancelled("enough")))
    assert isinstance(cancelled, CancelledResult)
    assert cancelled.reason == "enough"


def test_what_was_handed_back_has_no_row() -> None:
    assert row_of(HandedBack()) is None


def test_a_job_that_never_started_has_no_start() -> None:
    result = read(rows().not_started(3, echo.spec(1, key="a"), 2.5, "queued"))
    assert isinstance(result, TimeoutResult)
    assert (result.phase, result.stopped, result.limit, result.key) == ("queued", "not started", 2.5, "a")
    assert result.started_at is None
    assert result.finished_at is not None


def test_no_row_holds_a_line_break_that_joins_rows() -> None:
    row = rows().ended(
        7, JobSpec(function="echo", key=",\n"), echo, cast("Run", EndedRun(Returned({"a,\n": ",\n"}))), 2
    )
    assert row is not None
    assert b"\n" not in row[2]
    assert from_json(row[2])["value"] == {"a,\n": ",\n"}
