"""A batch's options and its counts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from protocol.batches import BatchOptions, BatchStatus, options
from protocol.errors import OptionError


def status(**fields: Any) -> BatchStatus:
    return BatchStatus(**{"batch_id": "b", "queue": "default", "total": 10, "closed": "1", "created_at": 1.0, **fields})


@pytest.mark.parametrize(
    ("given_options", "message"),
    [
        ({"timeout": 0}, "batch option timeout: Input should be greater than 0, got 0$"),
        ({"timeout": -3}, "batch option timeout: .*, got -3"),
        ({"timeout": float("inf")}, "batch option timeout: .*, got inf"),
        ({"queue_timeout": "soon"}, "batch option queue_timeout: .*, got 'soon'"),
        ({"grace": float("nan")}, "batch option grace: .*, got nan"),
        ({"name": "n" * 201}, "batch option name: .*, got 'nnn.*…"),
        ({"deadline": -1}, "batch option deadline: .*, got -1"),
        ({"deadline": 1e10}, "batch option deadline: .*, got 1e10|10000000000.0"),
        ({"retries": -1}, "batch option retries: .*, got -1"),
        ({"retries": 1.5}, "batch option retries: .*, got 1.5"),
        ({"backoff": -0.1}, "batch option backoff: .*, got -0.1"),
        ({"backoff": float("inf")}, "batch option backoff: .*, got inf"),
        ({"retry_on": ()}, r"batch option retry_on: .*, got \(\)"),
        ({"retry_on": "failure"}, "batch option retry_on: .*, got 'failure'"),
        ({"retry_on": ("lost",)}, "^batch option retry_on.0: Input should be 'failure' or 'timeout', got 'lost'$"),
        ({"retry_on": ("failure", "lost")}, "batch option retry_on.1: .*'failure' or 'timeout', got 'lost'"),
        ({"metadata": [1]}, r"batch option metadata: .*, got \[1\]"),
        ({"unheard_of": 1}, "batch option unheard_of: .*, got 1; known are backoff, deadline, "),
        ({"queue_timout": 1}, r"batch option queue_timout: .*, got 1; did you mean queue_timeout"),
    ],
)
def test_an_option_that_cannot_be_is_refused_in_one_line(given_options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message) as raised:
        options(**given_options)
    assert "\n" not in str(raised.value)


def test_options_are_frozen_and_survive_the_trip() -> None:
    made = options(
        timeout=3,
        grace=0,
        deadline=9,
        retries=2,
        backoff=0,
        retry_on=["timeout"],
        name="for people",
        metadata={"a": [1, None]},
    )
    assert BatchOptions.model_validate_json(made.model_dump_json(exclude_defaults=True)) == made
    with pytest.raises(ValidationError, match="frozen"):
        made.timeout = 5


@given(
    st.integers(0, 50), st.integers(0, 60), st.integers(0, 10), st.integers(0, 10), st.integers(0, 10),
    st.integers(0, 10), st.integers(0, 10),
)  # fmt: skip
def test_every_job_is_in_one_place(
    extra: int, taken: int, success: int, timeout: int, failure: int, cancelled: int, lost: int
) -> None:
    found = status(
        total=success + timeout + failure + cancelled + lost + extra, taken=taken,
        success=success, timeout=timeout, failure=failure, cancelled=cancelled, lost=lost,
    )  # fmt: skip
    assert found.queued + found.running + found.done == found.total
    assert min(found.queued, found.running, found.done) >= 0


@pytest.mark.parametrize(("flag", "closed"), [("1", True), ("0", False), (b"1", True), (True, True)])
def test_closed_is_read_as_redis_writes_it(flag: Any, closed: bool) -> None:
    assert status(closed=flag).closed is closed


@pytest.mark.parametrize(
    "fields",
    [{"closed": "yes!"}, {"total": -1}, {"total": 1 << 40}, {"created_at": "inf"}, {"deadline": "nan"}, {"lost": "x"}],
)
def test_what_cannot_be_is_no_status(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        status(**fields)


def test_a_batch_is_complete_once_it_has_its_end() -> None:
    assert not status(success=10).complete
    assert status(success=10, finished_at=2.0).complete
