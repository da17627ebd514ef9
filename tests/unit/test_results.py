"""Results: their fields, their form in the stream, and what they do for those who ask."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from pydantic_core import to_json

from protocol.entries import decode_entry
from protocol.errors import (
    JobCancelledError,
    JobFailedError,
    JobLostError,
    JobTimeoutError,
    ProtocolError,
    UnsuccessfulError,
)
from protocol.facts import decode_facts
from protocol.recording import Success, decode_indexes, encode_common, encode_indexes, encode_row, record_successes
from protocol.results import (
    CancelledResult,
    FailureResult,
    LostResult,
    Result,
    SuccessResult,
    TimeoutResult,
)
from straggler import job
from tests.entries import entry_of

COMMON: dict[str, Any] = {"job_id": "b:3", "index": 3, "function": "fetch", "key": "user3"}
SUCCESS: SuccessResult[Any] = SuccessResult(**COMMON, value=[1])
TIMEOUT = TimeoutResult(**COMMON, limit=3, phase="running", stopped="cancelled")
FAILURE = FailureResult(**COMMON, error_type="ValueError", message="no")
CANCELLED = CancelledResult(**COMMON, reason="enough")
LOST = LostResult(**COMMON, reason="out of memory")


def entry(*rows: bytes, common: bytes | None = None) -> dict[bytes, bytes]:
    return {b"common": common or encode_common("fetch", "w", 1.5), b"rows": b"[" + b",".join(rows) + b"]"}


texts = st.text()
times = st.none() | st.floats(0, 1e10)
own = st.one_of(
    st.builds(lambda value: {"status": "success", "value": value}, st.none() | texts | st.integers() | st.floats()),
    st.builds(
        lambda limit, phase, stopped: {"status": "timeout", "limit": limit, "phase": phase, "stopped": stopped},
        st.floats(0, 1e10),
        st.sampled_from(["queued", "running", "batch"]),
        st.sampled_from(["not started", "cancelled", "interrupted", "abandoned", "killed", "late"]),
    ),
    st.builds(lambda a, b: {"status": "failure", "error_type": a, "message": b, "traceback": b}, texts, texts),
    st.builds(lambda reason: {"status": "cancelled", "reason": reason}, texts),
    st.builds(lambda reason: {"status": "lost", "reason": reason}, texts),
)
rows = st.builds(
    lambda index, key, started, finished, own: {
        "index": index, "key": key, "started_at": started, "finished_at": finished, **own,
    },
    st.integers(0, 10_000_000), st.none() | texts, times, times, own,
)  # fmt: skip


@given(st.lists(rows, max_size=5))
def test_results_survive_the_trip(given_rows: list[dict[str, Any]]) -> None:
    results = decode_entry("b", entry(*(encode_row(**row) for row in given_rows)), "key")
    assert len(results) == len(given_rows)
    for result, row in zip(results, given_rows, strict=True):
        expected = {"job_id": f"b:{row['index']}", "function": "fetch", "worker": "w", "enqueued_at": 1.5}
        # As text, where NaN equals itself.
        assert repr({**expected, **row}) == repr({n: getattr(result, n) for n in {**expected, **row}})


def test_a_value_comes_back_as_its_declared_type_where_the_function_is_at_hand() -> None:
    @job
    async def typed_value() -> bytes:
        return b""

    row = encode_row(index=0, status="success", value="__4=")
    [known] = decode_entry("b", entry(row, common=encode_common("typed_value", "w", 1.0)), "key")
    [unknown] = decode_entry("b", entry(row, common=encode_common("elsewhere", "w", 1.0)), "key")
    assert known.unwrap() == b"\xff\xfe"
    assert unknown.unwrap() == "__4="


def test_a_value_that_does_not_fit_the_type_here_names_job_key_and_cure() -> None:
    @job
    async def another_version() -> dict[str, bytes]:
        return {}

    row = encode_row(index=7, status="success", value=3)
    with pytest.raises(ProtocolError, match=r"'the key': the value of job b:7 .* 'another_version' .* another version"):
        decode_entry("b", entry(row, common=encode_common("another_version", "w", 1.0)), "the key")


def success(index: int, value: bytes, *times: float, key: str | None = None, called: str | None = None) -> Success:
    started, ended = times or (0.0, 0.0)
    return index, "success", value, started, ended, key, called


def alike(*found: Success, function: str = "fetch", ahead: float = 0.0) -> dict[bytes, bytes]:
    """Give the entry of successes that are alike."""
    return entry_of(record_successes("b", encode_common(function, "w", 1.5), found, ahead))


def test_successes_that_are_alike_are_what_they_would_be_one_by_one() -> None:
    first, second = decode_entry(
        "b", alike(success(3, b"[1]", 10.0, 10.25), success(2, b"null", 9.5, 11.0), ahead=1e9), "key"
    )
    shared: dict[str, Any] = {"function": "fetch", "worker": "w", "enqueued_at": 1.5}
    assert first == SuccessResult(
        job_id="b:3", index=3, started_at=1e9 + 10, finished_at=1e9 + 10.25, value=[1], **shared
    )
    assert second == SuccessResult(
        job_id="b:2", index=2, started_at=1e9 + 9.5, finished_at=1e9 + 11, value=None, **shared
    )
    for result in (first, second):
        assert SuccessResult.model_validate_json(result.model_dump_json()) == result
        assert list(result.model_dump()) == list(SuccessResult.model_fields)
        assert (result.model_copy(), repr(result)[:14]) == (result, "SuccessResult(")
        with pytest.raises(ValidationError, match="frozen"):
            result.index = 5
    assert hash(second) == hash(second.model_copy())


@given(
    st.lists(
        st.tuples(st.none() | texts | st.sampled_from(['","', ",\n", "null"]), st.sampled_from([None, "g", "h"])),
        min_size=1,
    )
)
def test_keys_and_functions_of_successes_that_are_alike_come_back(own: list[tuple[str | None, str | None]]) -> None:
    found = [success(index, b"%d" % index, key=key, called=called) for index, (key, called) in enumerate(own)]
    columns = alike(*found)
    assert all(text.count(b",\n") == len(own) - 1 for name, text in columns.items() if name in (b"keys", b"functions"))
    results = decode_entry("b", columns, "key")
    assert [(result.key, result.function) for result in results] == [(key, called or "fetch") for key, called in own]
    assert [result.unwrap() for result in results] == list(range(len(own)))
    assert all(SuccessResult.model_validate_json(result.model_dump_json()) == result for result in results)


def test_values_of_several_functions_come_back_as_the_type_that_each_declares() -> None:
    @job
    async def odd_seconds() -> timedelta:
        return timedelta()

    @job
    async def odd_bytes() -> bytes:
        return b""

    found = [
        success(0, b'"PT5S"', called="odd_seconds"),
        success(1, b'"__4="'),
        success(2, b'"__4="', called="elsewhere"),
        success(3, b'"PT6S"', called="odd_seconds"),
    ]
    values = [result.unwrap() for result in decode_entry("b", alike(*found, function="odd_bytes"), "key")]
    assert values == [timedelta(seconds=5), b"\xff\xfe", "__4=", timedelta(seconds=6)]
    with pytest.raises(ProtocolError, match=r"the value of job b:4 .* 'odd_seconds' .* another version"):
        decode_entry("b", alike(*found, success(4, b"[]", called="odd_seconds"), function="odd_bytes"), "key")


@given(st.lists(st.integers(0, 60), min_size=1))
def test_indexes_survive_the_trip(indexes: list[int]) -> None:
    assert decode_indexes(encode_indexes(indexes)) == indexes


def test_indexes_that_follow_each_other_are_a_range() -> None:
    assert encode_indexes(range(7, 300)) == "7-299"
    assert encode_indexes([0, 1, 2, 5, 7, 6, 8]) == "0-2,5,7,6,8"


def test_a_no_op_result_takes_25_bytes() -> None:
    rows = [success(i, b"%d" % i, i / 1e5, i / 1e5 + 3e-6) for i in range(256)]
    assert sum(map(len, alike(*rows).values())) < 25 * 256


def test_values_that_are_alike_come_back_as_the_type_their_function_declares() -> None:
    @job
    async def some_bytes() -> bytes:
        return b""

    found = [success(number, b'"__4="') for number in range(2)]
    for function, value in (("some_bytes", b"\xff\xfe"), ("elsewhere", "__4=")):
        assert [result.unwrap() for result in decode_entry("b", alike(*found, function=function), "key")] == [value] * 2
    odd = alike(*found, success(7, b"3"), function="some_bytes")
    with pytest.raises(ProtocolError, match=r"'the key': the value of job b:7 .* 'some_bytes' .* another version"):
        decode_entry("b", odd, "the key")


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {b"rows": b"[]"},
        {b"common": b"{}", b"rows": b"\x80"},
        {b"common": b"[]", b"rows": b"[{}]"},
        entry(b"{}"),
        entry(b"3"),
        entry(encode_row(index=1, status="unheard of")),
        entry(encode_row(index=1, status="timeout")),
        entry(encode_row(index="x", status="success", value=1)),
        {b"values": b"[1]"},
        {**alike(success(1, b"1")), b"common": b'{"function":"f"}'},
        {**alike(success(1, b"1")), b"indexes": b"1-2"},
        {**alike(success(1, b"1")), b"indexes": b"one"},
        {**alike(success(1, b"1")), b"started": b"[0.5]"},
        {**alike(success(1, b"1")), b"took": b"["},
        {**alike(success(1, b"1")), b"keys": b"[1]"},
        {**alike(success(1, b"1")), b"keys": b"[]"},
        {**alike(success(1, b"1")), b"functions": b'["f","g"]'},
        {**alike(success(1, b"1")), b"functions": b"f"},
        {**alike(success(1, b"1", called="g")), b"values": b"[1,2]"},
        {**alike(success(1, b"1")), b"values": b"[]"},
    ],
)
def test_an_entry_that_holds_no_results_is_refused_naming_the_key(broken: dict[bytes, bytes]) -> None:
    with pytest.raises(ProtocolError, match="unreadable data in Redis key 'the key'") as raised:
        decode_entry("b", broken, "the key")
    assert "\n" not in str(raised.value)
    if broken.get(b"values") not in (b"[]", b"[1,2]"):  # which is not read by who only counts
        with pytest.raises(ProtocolError, match="unreadable data in Redis key 'the key'"):
            decode_facts("b", broken, "the key")


@pytest.mark.parametrize("index", [-1, 1 << 32])
def test_who_counts_refuses_what_cannot_be_a_job(index: int) -> None:
    times = {"started_at": 1.0, "finished_at": 2.0}
    for broken in (
        entry(encode_row(index=index, status="success", value=1, **times)),
        {**alike(success(1, b"1")), b"indexes": b"%d" % index},
    ):
        with pytest.raises(ProtocolError, match="the key"):
            decode_facts("b", broken, "the key")


def test_facts_are_what_the_results_tell() -> None:
    rows = [
        encode_row(index=4, status="success", value="x", key="four", started_at=2.0, finished_at=2.5),
        encode_row(index=5, status="failure", error_type="E", message="no", started_at=2.0, finished_at=2.1),
        encode_row(index=6, status="success", value=1, function="other", started_at=3.0, finished_at=3.25),
        encode_row(index=7, status="success", value=2, started_at=2.25, finished_at=2.5),
    ]
    facts = decode_facts("b", entry(*rows), "key")
    [(first, offsets, keys), (second, at, _)] = facts.successes
    assert (first.indexes, [*offsets], keys, second.indexes, [*at]) == ([4, 7], [0, 3], ["four", None], [6], [2])
    assert (second.function, first.at, first.started, first.took) == (
        "other",
        2_000_000,
        [0, 250_000],
        [500_000, 250_000],
    )
    [(offset, failed)] = facts.others
    assert (offset, failed.index, failed.status) == (1, 5, "failure")
    [(columns, _, none)] = decode_facts("b", alike(success(3, b"[1]", 10.0, 10.25)), "key").successes
    assert (columns.indexes, columns.at, columns.started, columns.took, none) == ([3], 10_000_000, [0], [250_000], None)


def test_facts_of_successes_of_several_functions_are_apart() -> None:
    found = [
        success(3, b"1", 10.0, 10.25, key="three"),
        success(5, b"2", 11.0, 11.5, called="other"),
        success(4, b"3", 12.0, 12.75),
    ]
    first, second = decode_facts("b", alike(*found), "key").successes
    assert (first.columns.function, first.columns.indexes, [*first.offsets], first.keys) == (
        "fetch",
        [3, 4],
        [0, 2],
        ["three", None],
    )
    assert (first.columns.started, first.columns.took) == ([0, 2_000_000], [250_000, 750_000])
    assert (second.columns.function, second.columns.indexes, [*second.offsets], second.keys) == (
        "other",
        [5],
        [1],
        [None],
    )


@pytest.mark.parametrize(
    ("result", "error", "message"),
    [
        (TIMEOUT, JobTimeoutError, r"job b:3 'fetch' \(key 'user3'\) .* 3 s \(running, cancelled\)"),
        (FAILURE, JobFailedError, r"job b:3 'fetch' \(key 'user3'\) failed: ValueError: no"),
        (CANCELLED, JobCancelledError, r"job b:3 'fetch' \(key 'user3'\) was cancelled: enough"),
        (LOST, JobLostError, r"job b:3 'fetch' \(key 'user3'\) was lost: out of memory"),
    ],
)
def test_unwrap_raises_an_error_that_names_the_job_and_holds_the_result(
    result: Result[Any], error: type[UnsuccessfulError], message: str
) -> None:
    with pytest.raises(error, match=message) as raised:
        result.unwrap()
    assert raised.value.result is result
    assert isinstance(raised.value, TimeoutError) == (result is TIMEOUT)
    assert result.value_or("default") == "default"


def test_a_success_gives_its_value() -> None:
    assert SUCCESS.unwrap() == SUCCESS.value_or("default") == SUCCESS.value == [1]


def test_only_a_timeout_is_one() -> None:
    assert [r.is_timeout for r in (SUCCESS, TIMEOUT, FAILURE, CANCELLED, LOST)] == [False, True, False, False, False]


def test_duration_needs_both_times() -> None:
    assert SUCCESS.duration is None
    assert SuccessResult(**COMMON, value=1, started_at=2.0, finished_at=3.5).duration == 1.5
    assert SuccessResult(**COMMON, value=1, finished_at=3.5).duration is None


def test_results_are_frozen_and_json() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        TIMEOUT.limit = 5
    for result in (SUCCESS, TIMEOUT, FAILURE, CANCELLED, LOST):
        assert type(result).model_validate_json(result.model_dump_json()) == result
    assert to_json(TIMEOUT)
