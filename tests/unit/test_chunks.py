"""Chunks on the wire: jobs that are alike travel together, all others as they are."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from pydantic_core import from_json

from producer.cutting import Chunk, cut
from protocol.chunks import CHUNK_BYTES, Calls, decode_chunk, decode_job, encode_alike, encode_calls, encode_jobs
from protocol.errors import ArgumentsError, OptionError, PayloadTooLargeError, ProtocolError, UsageError
from protocol.jobs import JobSpec, JobSpecs, encode_job
from straggler import job
from tests.jobs import echo, square

LIMIT = 1 << 20


@job
async def add(one: int, other: float = 0.5) -> float:
    return one + other


@job
async def keep(data: bytes, /) -> bytes:
    return data


class Point(BaseModel):
    x: int
    note: str = ""


@job
async def visit(
    url: str, point: Point | None = None, data: bytes = b"", *, when: datetime | None = None, json: Any = None
) -> str:
    return f"{url} {point} {data!r} {when} {json}"


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
    data = encode_calls(function, rows)
    assert data is not None
    jobs = decode_chunk(0, data, "key")
    assert isinstance(jobs, Calls)
    named = [{"kwargs": dict(zip(names, row, strict=True))} if names else {"args": row} for row in rows]
    assert list(jobs) == [JobSpec(function=function, **arguments) for arguments in named]
    assert jobs[-1] == jobs[1]
    assert jobs[0:1] == [jobs[0]]
    assert jobs.calls == (([JobSpec(function=function)] * len(rows), rows, [{}] * len(rows)) if names else None)


@given(st.lists(st.tuples(st.text(), st.recursive(st.none() | st.floats(), st.lists)), min_size=1, max_size=3))
def test_any_plain_values_survive_the_trip(rows: list[tuple[Any, ...]]) -> None:
    data = encode_calls("far away", rows)
    if data is None:  # no UTF-8
        return
    assert repr([job.args for job in decode_chunk(0, data, "key")]) == repr(rows)


texts = st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(["],[", ",\n", '","', "null", "[", "]"])
seconds = st.none() | st.floats(1e-3, 1e6)
values = st.recursive(st.none() | st.floats() | texts, lambda inner: st.lists(inner) | st.dictionaries(texts, inner))
own = st.fixed_dictionaries(
    {},
    optional={
        "key": st.none() | texts, "timeout": seconds, "queue_timeout": seconds, "deadline": seconds,
        "heartbeat_timeout": seconds,
    },
)  # fmt: skip
named = st.fixed_dictionaries(
    {"url": texts},
    optional={
        "point": st.none() | st.builds(Point, x=st.integers(), note=texts), "data": st.binary(), "json": values,
        "when": st.none() | st.datetimes(timezones=st.just(UTC)),
    },
)  # fmt: skip
visits: st.SearchStrategy[JobSpec[Any]] = st.builds(
    lambda kwargs, own: JobSpec(function="visit", kwargs=kwargs, **own), named, own
)
placed: st.SearchStrategy[JobSpec[Any]] = st.builds(
    lambda url, point, own: JobSpec(function="visit", args=(url, point), **own),
    texts,
    st.builds(Point, x=st.integers()),
    own,
)
far: st.SearchStrategy[JobSpec[Any]] = st.builds(
    lambda args, kwargs, own: JobSpec(function="far away", args=args, kwargs=kwargs, **own),
    st.lists(values, max_size=3), st.dictionaries(texts, values, max_size=3), own,
)  # fmt: skip


@settings(max_examples=40)  # 0.1 s each on a busy machine
@given(st.lists(visits | placed | far, min_size=1, max_size=6))
def test_any_jobs_come_out_of_rows_as_they_would_one_by_one(jobs: list[JobSpec[Any]]) -> None:
    data = encode_alike(jobs)
    assert data is not None
    assert data.count(b"\n") == data.count(b",\n") == len(jobs) - 1
    alike = decode_chunk(0, data, "key")
    apart = decode_chunk(0, encode_jobs([encode_job(job, LIMIT) for job in jobs]), "key")
    assert isinstance(alike, Calls)
    assert list(map(as_text, alike)) == list(map(as_text, apart))
    bare = [alike.bare_job(place) for place in range(len(jobs))]
    assert bare == [job.model_copy(update={"args": (), "kwargs": {}}) for job in apart]
    if all(job.function == "visit" for job in jobs):
        assert alike.calls is not None
        for job, known, args, kwargs in zip(apart, *alike.calls, strict=True):
            _, called = visit.signature.decode_arguments(job.args, job.kwargs)
            assert repr(inspect.signature(visit.function).bind(*args, **kwargs).arguments) == repr(called)
            assert known == job.model_copy(update={"args": (), "kwargs": {}})


def as_text(job: JobSpec[Any]) -> str:
    return repr({**job.__dict__, "kwargs": dict(sorted(job.kwargs.items()))})


def test_keywords_in_any_order_are_given_by_position_where_they_can_be() -> None:
    points = [
        visit.spec(point=Point(x=1), url="u"),
        visit.spec("u", point=Point(x=1)),
        visit.spec(url="u", point=Point(x=1)),
    ]
    data = encode_alike(points)
    assert data is not None
    jobs = decode_chunk(0, data, "key")
    assert isinstance(jobs, Calls)
    assert jobs.calls is not None
    assert (jobs.calls.args, jobs.calls.kwargs) == ([("u", Point(x=1))] * 3, [{}] * 3)
    odd = encode_alike([visit.spec(json=1, data=b"2", url="u")])
    assert odd is not None
    calls = cast("Calls", decode_chunk(0, odd, "key")).calls
    assert calls == ([JobSpec(function="visit")], [("u",)], [{"data": b"2", "json": 1}])


def test_jobs_of_many_kinds_travel_as_objects() -> None:
    assert encode_alike([JobSpec(function=f"f{number}") for number in range(17)]) is None
    assert encode_alike([JobSpec(function=f"f{number % 16}") for number in range(17)]) is not None


async def test_alike_jobs_that_are_too_large_together_travel_as_rows_in_several_chunks() -> None:
    text = "x" * (CHUNK_BYTES // 3)
    chunks = await cut_all([echo.spec(""), *(echo.spec(text, key=f"k{number}") for number in range(7))])
    assert [chunk.count for chunk in chunks] == [3, 2, 2, 1]
    assert all(chunk.encode().startswith(b'{"kinds"') and len(chunk.encode()) < CHUNK_BYTES + 100 for chunk in chunks)
    assert [job.key for job in read(chunks)] == [None, *(f"k{number}" for number in range(7))]


async def test_an_alike_job_that_is_too_large_is_named() -> None:
    with pytest.raises(PayloadTooLargeError, match=r"^job 2: .*'echo' \(key 'c'\) take 315 bytes .* at most 200 "):
        await cut_all([echo.spec("x" * size, key=key) for size, key in ((9, "a"), (99, "b"), (294, "c"))], limit=200)


def test_ten_bytes_carry_a_no_op_job() -> None:
    data = encode_calls("square", [(number,) for number in range(256)])
    assert data is not None
    assert len(data) < 256 * 10


@pytest.mark.parametrize(
    ("function", "rows"),
    [
        ("add", [(1,), (2, 3)]),
        ("add", [("one",)]),
        ("add", [()]),
        ("add", [(1, 2, 3)]),
        ("keep", [(b"",)]),
        ("far away", [(object(),)]),
    ],
    ids=["of several lengths", "of another type", "too few", "too many", "by position only", "no JSON"],
)
def test_what_does_not_fit_is_left_to_be_looked_at_one_by_one(function: str, rows: list[tuple[Any, ...]]) -> None:
    assert encode_calls(function, rows) is None
    assert encode_alike([JobSpec(function=function, args=rows[-1], key="k")]) is None or rows[-1] == (2, 3)


def test_parameters_in_another_order_are_given_by_name() -> None:
    jobs = decode_chunk(0, b'{"kinds":[{"function":"add","names":["other","one"]}],"args":[[1.5,2]]}', "key")
    assert isinstance(jobs, Calls)
    assert jobs.calls == ([JobSpec(function="add")], [()], [{"other": 1.5, "one": 2}])
    assert jobs[0].kwargs == {"other": 1.5, "one": 2}


@pytest.mark.parametrize(
    "kind", ['"names":["one"]', '"names":["one","one"]', '"names":["other"]', '"names":["one","unheard_of"]']
)
def test_arguments_that_fit_the_function_no_longer_are_looked_at_one_by_one(kind: str) -> None:
    jobs = decode_chunk(0, b'{"kinds":[{"function":"add",%b}],"args":[[1,2],["no",2]]}' % kind.encode(), "key")
    assert isinstance(jobs, Calls)
    assert jobs.calls is None
    assert jobs[1].function == "add"


def test_rows_that_were_not_joined_by_us_are_read_all_the_same() -> None:
    data = encode_alike([add.spec(1), echo.spec(2), add.spec(3)])
    assert data is not None
    jobs = decode_chunk(0, data.replace(b"\n", b""), "key")
    assert isinstance(jobs, Calls)
    assert jobs.calls is None
    assert [job.function for job in jobs] == ["add", "echo", "add"]


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\x80\x04K\x01.", b"{}", b"[1]", b"[]", b'[{"args":[1]}]', b'[{"function":"f","more":1}]',
        b'[{"function"', b'{"kinds"', b'{"function":"f","args":[[1]]}', b'{"kinds":[],"args":[[1]]}',
        b'{"kinds":[{"function":"f"}],"args":[]}', b'{"kinds":[{"function":"f"}],"args":[1]}',
        b'{"kinds":[{"function":""}],"args":[[1]]}', b'{"kinds":[{"function":1}],"args":[[1]]}',
        b'{"kinds":[{"function":"f","names":["a"]}],"args":[[]]}', b'{"kinds":[{"function":"f"}],"args":[[1]',
        b'{"kinds":[{"function":"f","more":1}],"args":[[1]]}',
        b'{"kinds":[{"function":"f","own":["args"]}],"args":[[1]]}',
        b'{"kinds":[{"function":"f","own":["timeout"]}],"args":[[-1]]}',
        b'{"kinds":[{"function":"f","own":["key"]}],"args":[[1]]}',
        b'{"kinds":[{"function":"f","own":["key"]}],"args":[[]]}',
        b'{"kinds":[{"function":"f"},{"function":"g"}],"args":[[2]]}',
        b'{"kinds":[{"function":"f"},{"function":"g"}],"args":[[true]]}',
        b'{"kinds":[{"function":"f"},{"function":"g"}],"args":[[]]}',
        b'{"kinds":[{"function":"f","own":["key"]},{"function":"g"}],"args":[[0,7],[1]]}',
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
        encode_calls("far away", [("],[", {"args": [1]}), ('"args":[', "\n"), ([], None)]) or b"",
        encode_calls("add", [(1, 2.5), (3, 4.0)]) or b"",
        encode_calls("add", [(1,)]) or b"",
        encode_alike([JobSpec(function="f", key="a"), JobSpec(function="g", args=(1,)), JobSpec(function="f", key="b")])
        or b"",
        encode_jobs([b'{"function":"f"}', b'{"function":"g","args":["],\\n["],"key":"k"}', b'{"function":"h"}']),
        b'[{"function":"f"},{"function":"g"}]',
        b'{"kinds":[{"function":"f"}],"args":[[1],[2],[3]]}',
    ],
)
def test_a_single_job_is_read_as_with_all_others(data: bytes) -> None:
    jobs = decode_chunk(5, data, "key")
    for index, found in enumerate(jobs, 5):
        assert list(decode_job(5, index, data, "key")) == [found]
    assert list(decode_job(5, 5 + len(jobs), data, "key")) == []


def test_a_single_job_is_read_though_another_is_not_ours() -> None:
    [found] = decode_job(5, 6, b'{"kinds":[{"function":"f"}],"args":[oops,\n[2],\n{}]}', "key")
    assert found == JobSpec(function="f", args=(2,))


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"[[1]]", b'{"kinds":[{"function":"f"}],"args":[[1]', b'{"kinds":[{"function":"f"}],"args":[oops]}'],
)
def test_a_single_job_that_is_not_ours_is_refused_naming_the_key(data: bytes) -> None:
    with pytest.raises(ProtocolError, match="'the key': field 5: "):
        decode_job(5, 5, data, "the key")


async def test_alike_jobs_travel_together_wherever_they_come_from() -> None:
    for jobs in (square.map(range(600)), [square.spec(n) for n in range(600)], (square.spec(n) for n in range(600))):
        chunks = await cut_all(jobs)
        assert [job.kwargs["number"] for job in read(chunks)] == list(range(600))
        assert all(chunk.encode().startswith(b'{"kinds":[{"function":"square"') for chunk in chunks)


@pytest.mark.parametrize(
    "odd",
    [
        square.spec(1, key="k"), square.spec(1, timeout=1), square.spec(1, queue_timeout=1), square.spec(number=1),
        echo.spec(1),
    ],
    ids=["key", "timeout", "queue timeout", "keywords", "function"],
)  # fmt: skip
async def test_a_job_that_is_unlike_the_others_travels_with_them(odd: JobSpec[Any]) -> None:
    [chunk] = await cut_all([square.spec(0), odd, square.spec(2)])
    found = read([chunk])
    assert (found[1].function, found[1].key) == (odd.function, odd.key)
    assert (found[1].timeout, found[1].queue_timeout) == (odd.timeout, odd.queue_timeout)
    assert [row[0] for row in from_json(chunk.encode())["args"]] == [0, 1, 0]


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
