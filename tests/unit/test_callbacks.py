"""`on_complete` as it stands in a batch's header: where its status goes, and what cannot be one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from producer.control.callbacks import encode_callback
from protocol.batches import BatchOptions, BatchStatus
from protocol.errors import ArgumentsError, OptionError, PayloadTooLargeError, UsageError
from protocol.jobs import JobSpec
from straggler import job
from workers import registry

OPTIONS = BatchOptions(name='a "name"', metadata={"x": [1, {"y": None}]}, keep_results=60, retries=3)
END = ',"total":3'.removeprefix(",")


def called_with(callback: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Put an end into a callback's text, as ending.lua does, and read it as a worker would."""
    told = json.loads(encode_callback(callback, "b", "q", OPTIONS, 10_000))
    assert told["jobs"].count("\n") == 1
    [spec] = json.loads(told["jobs"].replace("\n", END + ',"closed":true,"created_at":1.5,"finished_at":2'))
    signature = registry.find(callback.function).signature
    return signature.decode_arguments(spec.get("args", ()), spec.get("kwargs", {}))


def test_status_comes_as_the_declared_type() -> None:
    @job
    async def finish(status: BatchStatus, more: float = 0) -> None: ...

    _, kwargs = called_with(finish.spec(more=float("inf")))
    assert kwargs["more"] == float("inf")
    assert kwargs["status"] == BatchStatus(
        batch_id="b", queue="q", name='a "name"', metadata={"x": [1, {"y": None}]},
        total=3, closed=True, created_at=1.5, finished_at=2,
    )  # fmt: skip


def test_status_comes_as_json_where_no_type_is_declared() -> None:
    @job
    async def finish(a, status, *rest, **more): ...  # type: ignore[no-untyped-def]

    args, kwargs = called_with(finish.spec(1, other=2))
    assert args[0] == 1
    assert args[1]["total"] == 3
    assert kwargs == {"other": 2}


def test_status_comes_among_keywords_of_any_name() -> None:
    @job
    async def finish(**told: Any) -> None: ...

    _, kwargs = called_with(finish.spec(other=2))
    assert kwargs["other"] == 2
    assert kwargs["status"]["batch_id"] == "b"


def test_function_that_is_not_at_hand_gets_it_by_name() -> None:
    told = json.loads(encode_callback(JobSpec(function="elsewhere", args=("\n",), key="k"), "b", "q", OPTIONS, 10_000))
    [spec] = json.loads(told["jobs"].replace("\n", END))
    assert spec["args"] == ["\n"]
    assert spec["key"] == "k"
    assert spec["kwargs"]["status"]["total"] == 3
    assert json.loads(told["options"]) == {"name": 'on_complete of a "name"', "keep_results": 60}


def test_what_cannot_be_a_callback_is_refused_in_one_line() -> None:
    @job
    async def no_status(number: int) -> None: ...

    refused: list[tuple[Any, type[Exception], str]] = [
        (no_status.spec(1), ArgumentsError, "on_complete: .*status"),
        (no_status, UsageError, "on_complete=<job no_status> is not a JobSpec"),
        (JobSpec(function="f", kwargs={"status": 1}), OptionError, "leave it out"),
        (JobSpec(function="f", args=("x" * 10_000,)), PayloadTooLargeError, "on_complete: "),
    ]
    for callback, error, text in refused:
        with pytest.raises(error, match=text):
            encode_callback(callback, "b", "q", OPTIONS, 5000)
