"""`timeout` and `queue_timeout` of 0, below, NaN, infinite and None, wherever they can be given."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from protocol.settings import Settings
from straggler import OptionError, TimeoutResult, embedded, job
from tests.commands import straggler
from tests.conftest import ROOT
from tests.jobs import echo, hang

CANNOT_BE = [0, -1, math.nan, math.inf, -math.inf]


@pytest.mark.parametrize("value", CANNOT_BE)
def test_a_function_refuses_it(value: float) -> None:
    with pytest.raises(OptionError, match="timeout"):
        job(timeout=value)


@pytest.mark.parametrize("option", ["timeout", "queue_timeout"])
@pytest.mark.parametrize("value", CANNOT_BE)
def test_a_job_refuses_it(option: str, value: float) -> None:
    options: dict[str, Any] = {option: value}
    with pytest.raises(OptionError, match=option):
        echo.spec(1, **options)


@pytest.mark.parametrize("option", ["timeout", "queue_timeout"])
@pytest.mark.parametrize("value", CANNOT_BE)
async def test_a_batch_refuses_it_and_submits_nothing(option: str, value: float) -> None:
    options: dict[str, Any] = {option: value}
    async with embedded(Settings()) as producer:
        with pytest.raises(OptionError, match=option):
            await producer.submit([echo.spec(1)], **options)
        assert await producer.batches() == []


@pytest.mark.parametrize("option", ["--timeout", "--queue-timeout"])
@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf"])
def test_the_command_line_refuses_it_in_one_line(option: str, value: str, tmp_path: Path) -> None:
    rows = tmp_path / "rows.txt"
    rows.write_text("1\n")
    done = straggler("run", "tests.jobs:echo", str(rows), option, value, cwd=ROOT)
    assert done.returncode == 1, done.stderr
    assert "error: " in done.stderr
    assert option.strip("-").replace("-", "_") in done.stderr
    assert done.stdout == ""


async def test_none_leaves_it_to_the_next_level() -> None:
    @job(timeout=0.1)
    async def short() -> None:
        await hang()

    @job(timeout=None)
    async def long() -> None:
        await hang()

    jobs = [short.spec(), short.spec(timeout=None), long.spec(), short.spec(timeout=0.3)]
    async with embedded(Settings()) as producer:
        of_functions = await (await producer.submit(jobs[:2], timeout=None)).results()
        of_jobs = await (await producer.submit(jobs[2:], timeout=0.2)).results()
    limits = [result.limit for result in (*of_functions, *of_jobs) if isinstance(result, TimeoutResult)]
    assert limits == [0.1, 0.1, 0.2, 0.3]


async def test_queue_timeout_counts_from_submission_and_not_while_the_job_runs() -> None:
    @job
    async def runs_long() -> None:
        await hang()

    jobs = [runs_long.spec(timeout=1.2, queue_timeout=1), echo.spec(2, queue_timeout=0.2), echo.spec(3)]
    async with embedded(Settings(concurrency=1)) as producer:
        results: list[Any] = list(await (await producer.submit(jobs, grace=0)).results())
    first, waited, patient = results
    assert (first.phase, first.limit) == ("running", 1.2)
    assert (waited.phase, waited.limit, waited.stopped, waited.started_at) == ("queued", 0.2, "not started", None)
    assert patient.status == "success"
