"""What a worker does for jobs that add, and what is left of it when the worker leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from redis.exceptions import ResponseError

from protocol.connection import Call
from protocol.errors import ProtocolError
from protocol.jobs import JobSpec
from protocol.newjobs import NewJob, cut, encode_new
from workers.calling.adding import Additions


class SomeScripts:
    """Answers calls of `add`, or not."""

    def __init__(self, error: Exception | None = None) -> None:
        self.calls: list[Call] = []
        self.is_silent = False
        self._error = error

    async def run_all(self, calls: Sequence[Call]) -> list[Any]:
        self.calls += calls
        if self.is_silent:
            await asyncio.Event().wait()
        if self._error is not None:
            raise self._error
        return [[100, *range(len(args[7:]) // 2)] for _, _, args in calls]


class SomeRun:
    index = 3
    batch_id = "b"

    def __init__(self) -> None:
        self.outcome: Any = None


def additions(scripts: SomeScripts) -> Additions:
    return Additions(scripts, "default", 1000)  # type: ignore[arg-type]  # what it uses of them


NEW = [NewJob(None, b"{}")] * 2


async def test_a_worker_that_leaves_waits_for_no_addition() -> None:
    scripts = SomeScripts()
    scripts.is_silent = True
    made = additions(scripts)
    adding = asyncio.create_task(made.add(SomeRun(), NEW))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await made.close()
    with pytest.raises(asyncio.CancelledError):
        await adding
    await made.close()


async def test_what_was_added_before_is_counted_for_each_run_and_forgotten_after_it() -> None:
    scripts = SomeScripts()
    made = additions(scripts)
    one, other = SomeRun(), SomeRun()
    await made.add(one, NEW)
    await made.add(one, NEW)
    await made.add(other, NEW)
    names = [args[7::2] for _, _, args in scripts.calls]
    assert names == [("#3.0", "#3.1"), ("#3.2", "#3.3"), ("#3.0", "#3.1")]
    one.outcome = other.outcome = "over"
    last = SomeRun()
    await made.add(last, NEW)
    assert list(made._counts) == [last]


async def test_a_spoilt_key_is_said() -> None:
    made = additions(SomeScripts(ResponseError("WRONGTYPE Operation against a key")))
    with pytest.raises(ProtocolError, match="straggler:batch:b"):
        await made.add(SomeRun(), NEW)
    with pytest.raises(ResponseError, match="NOPERM"):
        await additions(SomeScripts(ResponseError("NOPERM"))).add(SomeRun(), NEW)


def test_jobs_are_cut_by_number_and_by_size() -> None:
    assert [len(portion) for portion in cut([NewJob(None, b"{}")] * 2500)] == [1000, 1000, 500]
    large = NewJob(None, b"x" * 600_000)
    assert [len(portion) for portion in cut([large, large, NewJob(None, b"{}")])] == [1, 2]
    assert list(cut([])) == []


def test_a_job_is_named_by_its_key_only_where_that_is_asked_for() -> None:
    jobs = [JobSpec[Any](function="f", key="k")]
    assert [new.key for unique in (False, True) for new in encode_new(jobs, 1000, unique=unique)] == [None, "k"]
