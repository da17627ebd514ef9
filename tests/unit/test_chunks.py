"""Chunks on the wire: jobs that are alike travel together, all others as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import from_json

from producer.cutting import Chunk, cut
from protocol.chunks import Calls, decode_chunk, decode_job, encode_calls, encode_jobs
from protocol.errors import ArgumentsError, OptionError, PayloadTooLargeError, ProtocolError, UsageError
from protocol.jobs import JobSpec, JobSpecs
from straggler import job
from tests.jobs import echo, square

LIMIT = 1 << 20


@job
async def add(one: int, other: float = 0.5) -> float:
    return one + other


@job
async def keep(data: bytes, /) -> bytes:
    return data


async def cut_all(jobs: Any, limit: int = LIMIT) -> list[Chunk]:
    return [chunk async for chunk in cut(jobs, limit)]


def read(chunks: Sequence[Chunk]) -> list[JobSpec[Any]]:
    found: list[JobSpec[Any]] = []
    for chunk in chunks:
        assert (chunk.first, len(decode_chunk(0, chunk.encode(), "key"))) == (len(found), chunk.count)
        found += decode_chunk(0, chunk.encode(), "key")
    return found


@pytest.mark.parametrize(
    ("function", "rows", "names"),
    [
        ("add", [(1, 2.5), (3, 4.0)], ["one", "other"]),
        ("add", [(1,), (3,)], ["one"]),
        ("far away", [(1, "a"), (None,)], None),
        ("far away", [(), ()], None),
    ],
)
def test_calls_that_are_alike_survive_the_trip(function: str, rows: list[tuple[Any, ...]], names: Any) -> None:
    data = encode_calls(function, rows, LIMIT)
    assert data is not None
    jobs = decode_chunk(0, data, "key")
    assert isinstance(jobs, Calls)
    named = [{"kwargs": dict(zip(names, row, strict=True))} if names else {"args": row} for row in rows]
    assert list(jobs) == [JobSpec(function=function, **arguments) for arguments in named]
    assert jobs[-1] == jobs[1]
    assert jobs[0:1] == [jobs[0]]
    assert jobs.arguments == (rows if names else None)


@given(st.lists(st.tuples(st.text(), st.recursive(st.none() | st.floats(), st.lists)), min_size=1, max_size=3))
def test_any_plain_values_survive_the_trip(rows: list[tuple[Any, ...]]) -> None:
    data = encode_calls("far away", rows, LIMIT)
    if data is None:  # no UTF-8
        return
    assert repr([job.args for job in decode_chunk(0, data, "key")]) == repr(rows)


def test_ten_bytes_carry_a_no_op_job() -> None:
    data = encode_calls("square", [(number,) for number in range(256)], LIMIT)
    assert data is not None
    assert len(data) < 256 * 10


@pytest.mark.parametrize(
    ("function", "rows", "limit"),
    [
        ("add", [(1,), (2, 3)], LIMIT),
        ("add", [("one",)], LIMIT),
        ("add", [()], LIMIT),
        ("add", [(1, 2, 3)], LIMIT),
        ("keep", [(b"",)], LIMIT),
        ("far away", [(object(),)], LIMIT),
        ("far away", [("x" * 100,)], 50),
    ],
    ids=["of several lengths", "of another type", "too few", "too many", "by position only", "no JSON", "too large"],
)
def test_what_does_not_fit_is_left_to_be_looked_at_one_by_one(
    function: str, rows: list[tuple[Any, ...]], limit: int
) -> None:
    assert encode_calls(function, rows, limit) is None


def test_parameters_in_another_order_are_given_by_name() -> None:
    jobs = decode_chunk(0, b'{"function":"add","names":["other","one"],"args":[[1.5,2]]}', "key")
    assert isinstance(jobs, Calls)
    assert jobs.arguments is None
    assert jobs[0].kwargs == {"other": 1.5, "one": 2}


def test_arguments_that_fit_the_function_no_longer_are_looked_at_one_by_one() -> None:
    jobs = decode_chunk(0, b'{"function":"add","names":["one"],"args":[[1],["no"]]}', "key")
    assert isinstance(jobs, Calls)
    assert jobs.arguments is None
    assert jobs[1].kwargs == {"one": "no"}


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\x80\x04K\x01.", b"{}", b"[1]", b"[]", b'[{"args":[1]}]', b'[{"function":"f","more":1}]',
        b'[{"function"', b'{"function":"f","args":[]}', b'{"function":"f","args":[1]}', b'{"function":"","args":[[1]]}',
        b'{"function":1,"args":[[1]]}', b'{"function":"f","names":["a"],"args":[[1,2]]}',
        b'{"function":"f","args":[[1]',
    ],
)  # fmt: skip
def test_bytes_that_are_no_chunk_are_refused_naming_the_key(data: bytes) -> None:
    with pytest.raises(ProtocolError, match="'straggler:batch:b:chunks': field 5: ") as raised:
        decode_chunk(5, data, "straggler:batch:b:chunks")
    assert raised.value.key == "straggler:batch:b:chunks"
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "data",
    [
        encode_calls("far away", [("],[", {"args": [1]}), ('"args":[', "\n"), ([], None)], LIMIT) or b"",
        encode_calls("add", [(1, 2.5), (3, 4.0)], LIMIT) or b"",
        encode_calls("add", [(1,)], LIMIT) or b"",
        encode_jobs([b'{"function":"f"}', b'{"function":"g","args":["],\\n["],"key":"k"}', b'{"function":"h"}']),
        b'[{"function":"f"},{"function":"g"}]',
        b'{"function":"f","args":[[1],[2],[3]]}',
    ],
)
def test_a_single_job_is_read_as_with_all_others(data: bytes) -> None:
    jobs = decode_chunk(5, data, "key")
    for index, found in enumerate(jobs, 5):
        assert list(decode_job(5, index, data, "key")) == [found]
    assert list(decode_job(5, 5 + len(jobs), data, "key")) == []


def test_a_single_job_is_read_though_another_is_not_ours() -> None:
    [found] = decode_job(5, 6, b'{"function":"f","args":[oops,\n[2],\n{}]}', "key")
    assert found == JobSpec(function="f", args=(2,))


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"[[1]]", b'{"function":"f","args":[[1]', b'{"function":"f","args":[oops]}']
)
def test_a_single_job_that_is_not_ours_is_refused_naming_the_key(data: bytes) -> None:
    with pytest.raises(ProtocolError, match="'the key': field 5: "):
        decode_job(5, 5, data, "the key")


async def test_alike_jobs_travel_together_wherever_they_come_from() -> None:
    for jobs in (square.map(range(600)), [square.spec(n) for n in range(600)], (square.spec(n) for n in range(600))):
        chunks = await cut_all(jobs)
        assert [job.kwargs["number"] for job in read(chunks)] == list(range(600))
        assert all(chunk.encode().startswith(b'{"function":"square"') for chunk in chunks)


@pytest.mark.parametrize(
    "odd",
    [
        square.spec(1, key="k"), square.spec(1, timeout=1), square.spec(1, queue_timeout=1), square.spec(number=1),
        echo.spec(1),
    ],
    ids=["key", "timeout", "queue timeout", "keywords", "function"],
)  # fmt: skip
async def test_a_job_that_is_unlike_the_others_travels_as_it_is(odd: JobSpec[Any]) -> None:
    chunks = await cut_all([square.spec(0), odd, square.spec(2)])
    found = read(chunks)
    assert (found[1].function, found[1].key) == (odd.function, odd.key)
    assert (found[1].timeout, found[1].queue_timeout) == (odd.timeout, odd.queue_timeout)
    assert [from_json(chunk.encode())[0]["function"] for chunk in chunks if chunk.count == 3] in ([], ["square"])


@pytest.mark.parametrize("key", [None, "k"], ids=["alike", "unlike"])
@pytest.mark.parametrize("drop", [1, 2])
async def test_a_chunk_of_which_some_is_there_already_sends_the_rest(drop: int, key: str | None) -> None:
    [chunk] = await cut_all([square.spec(number, key=key if number == 1 else None) for number in range(3)])
    chunk.skip(drop)
    assert (chunk.first, chunk.count) == (drop, 3 - drop)
    assert [job.kwargs["number"] for job in decode_chunk(0, chunk.encode(), "key")] == list(range(3))[drop:]


@pytest.mark.parametrize(
    ("jobs", "error", "told"),
    [
        (square.map([1, "x"]), ArgumentsError, "^job 1: square: number: "),
        (
            JobSpecs("far away", [1, object()], lambda a: (a,)),
            ArgumentsError,
            "^job 1: the arguments of job 'far away' ",
        ),
        (JobSpecs("far away", ["", "x" * 99], lambda a: (a,)), PayloadTooLargeError, "^job 1: .* at most 90 "),
        ([square.spec(1), 2], UsageError, "^job 1 is 2, not a JobSpec"),
        ([2], UsageError, "^job 0 is 2, not a JobSpec"),
    ],
)
async def test_a_job_that_cannot_be_is_named(jobs: Any, error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        await cut_all(jobs, limit=90)


async def test_a_function_without_a_name_is_refused() -> None:
    with pytest.raises((OptionError, ValueError), match="function"):
        await cut_all(JobSpecs("", [1], lambda a: (a,)))


async def test_large_arguments_are_read_ahead_no_further_than_a_chunk() -> None:
    taken = 0

    def texts() -> Any:
        nonlocal taken
        for _ in range(2000):
            taken += 1
            yield "x" * 300_000 if taken > 1100 else "x"

    async for chunk in cut(echo.map(texts()), LIMIT):
        assert len(chunk.encode()) < 2 << 20
        if chunk.first + chunk.count > 1400:
            break
    assert taken - chunk.first - chunk.count < 300


async def test_a_circle_is_no_json() -> None:
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(ArgumentsError, match=r"^job 0: "):
        await cut_all(JobSpecs("far away", [circle], lambda a: (a,)))
