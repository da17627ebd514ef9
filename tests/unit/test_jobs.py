"""Jobs and chunks on the wire."""

from __future__ import annotations

from decimal import Decimal
from operator import length_hint
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from pydantic_core import from_json

from protocol.chunks import decode_chunk, encode_jobs
from protocol.errors import ArgumentsError, OptionError, PayloadTooLargeError
from protocol.jobs import JobSpec, JobSpecs, encode_job, spec
from tests.jobs import square

LIMIT = 1 << 20

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
seconds = st.none() | st.floats(0, exclude_min=True, allow_nan=False, allow_infinity=False)
specs = st.builds(
    JobSpec[Any],
    function=st.text(min_size=1, max_size=200).filter(lambda name: name != "square"),
    args=st.lists(json_values, max_size=3).map(tuple),
    kwargs=st.dictionaries(st.text(), json_values, max_size=3),
    key=st.none() | st.text(max_size=1024),
    timeout=seconds,
    queue_timeout=seconds,
)


@given(st.lists(specs, min_size=1, max_size=5))
def test_jobs_survive_the_trip(jobs: list[JobSpec[Any]]) -> None:
    data = encode_jobs(encode_job(job, LIMIT) for job in jobs)
    assert [job.model_dump() for job in decode_chunk(0, data, "key")] == [job.model_dump() for job in jobs]


def test_only_what_differs_from_the_defaults_travels() -> None:
    assert from_json(encode_job(JobSpec(function="f", args=(1,)), LIMIT)) == {"function": "f", "args": [1]}
    assert from_json(encode_job(JobSpec(function="f"), LIMIT)) == {"function": "f", "args": []}
    assert from_json(encode_job(square.spec(2, key="two", timeout=3), LIMIT)) == {
        "function": "square", "kwargs": {"number": 2}, "key": "two", "timeout": 3.0,
    }  # fmt: skip


def test_bytes_of_a_function_that_is_not_at_hand_travel_as_base64() -> None:
    assert from_json(encode_job(JobSpec(function="far away", args=(b"\xff\xfe",)), LIMIT))["args"] == ["__4="]


odd_keys = st.sampled_from(["", "é", "k" * 1024, "k" * 1025, b"k", 7, "\ud800", None])
odd_seconds = st.none() | st.floats() | st.integers() | st.sampled_from([True, "3", 10**400, 1e-300, Decimal(3), 3e9])


@given(key=odd_keys, timeout=odd_seconds, queue_timeout=odd_seconds)
def test_spec_makes_and_refuses_what_jobspec_does(**own: Any) -> None:
    try:
        expected = JobSpec[Any](function="f", args=(1,), kwargs={"a": 2}, **own)
    except ValidationError:
        with pytest.raises(OptionError):
            spec("f", (1,), {"a": 2}, own)
        return
    made = spec("f", (1,), {"a": 2}, own)
    assert made == expected
    assert [type(value) for value in made.__dict__.values()] == [type(value) for value in expected.__dict__.values()]
    assert list(made.__dict__) == list(JobSpec.model_fields)
    assert {name for name in own if own[name] is not None} <= made.model_fields_set <= expected.model_fields_set
    assert JobSpec.model_validate_json(made.model_dump_json()) == made


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"timeout": 0}, "timeout"),
        ({"timeout": -1}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
        ({"timeout": float("inf")}, "timeout"),
        ({"timeout": "soon"}, "timeout"),
        ({"queue_timeout": 0}, "queue_timeout"),
        ({"key": "k" * 1025}, "key"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_a_job_that_cannot_be_is_refused(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        JobSpec(function="f", **fields)
    with pytest.raises(OptionError, match=f"^job 'f': {named}: .*, got ") as raised:
        spec("f", (), {}, fields)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 300


@pytest.mark.parametrize("function", ["", "f" * 201])
def test_a_function_name_that_cannot_be_is_refused(function: str) -> None:
    with pytest.raises(ValidationError, match="function"):
        JobSpec(function=function)


def test_a_job_spec_is_frozen() -> None:
    job: JobSpec[int] = JobSpec(function="f")
    with pytest.raises(ValidationError, match="frozen"):
        job.timeout = 3


@pytest.mark.parametrize("function", ["far away", "echo"])
def test_arguments_over_the_limit_are_refused_with_their_size(function: str) -> None:
    fits = JobSpec[Any](function=function, args=("x" * (LIMIT - 40),))
    assert len(encode_job(fits, LIMIT)) <= LIMIT + 40
    with pytest.raises(
        PayloadTooLargeError, match=r"arguments of job .* \(key 'big'\) take 1,048,\d+ bytes as JSON, at most 1,048,576"
    ):
        encode_job(JobSpec(function=function, args=("x" * LIMIT,), key="big"), LIMIT)


@pytest.mark.parametrize("value", [object(), "\ud800", {1, 2, object()}])
def test_plain_arguments_that_cannot_be_json_are_refused(value: Any) -> None:
    with pytest.raises(ArgumentsError, match="the arguments of job 'far away' cannot be written as JSON"):
        encode_job(JobSpec(function="far away", args=(value,)), LIMIT)


def test_many_specs_are_made_lazily_and_know_their_number() -> None:
    made = iter(square.map(iter([1, 2])))
    assert next(made) == JobSpec(function="square", args=(1,))
    assert length_hint(square.map(range(7)), -1) == 7
    assert length_hint(square.map(iter([])), -1) == -1
    assert list(square.starmap([(1,), [2]])) == [
        JobSpec(function="square", args=(1,)), JobSpec(function="square", args=(2,)),
    ]  # fmt: skip
    assert isinstance(square.map([]), JobSpecs)


def test_a_map_over_a_list_can_be_gone_over_again() -> None:
    jobs: JobSpecs[int] = JobSpecs("double", [1, 2], lambda number: (number,))
    assert [job.args for job in jobs] == [job.args for job in jobs] == [(1,), (2,)]
