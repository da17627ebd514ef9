"""`with_timeout` and `with_result`: the workers' wrapper for calls of one's own."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine, Iterator
from inspect import CORO_CLOSED, CORO_CREATED, getcoroutinestate
from typing import Any

import pytest

from straggler import FailureResult, StragglerError, SuccessResult, TimeoutResult, with_result, with_timeout
from workers import local

LIMIT = 0.03

pytestmark = pytest.mark.usefixtures("no_warnings_at_collection")

Helper = Callable[..., Coroutine[Any, Any, Any]]
both = pytest.mark.parametrize("helper", [with_timeout, with_result])


@pytest.fixture(autouse=True)
def nobody_left_behind() -> Iterator[None]:
    yield
    assert not local._left_behind


async def hang() -> None:
    await asyncio.Event().wait()


async def give(value: object) -> object:
    await asyncio.sleep(0)
    return value


async def fail(error: BaseException) -> None:
    await asyncio.sleep(0)
    raise error


async def test_with_timeout_returns_the_value_of_what_ends_in_time() -> None:
    assert await with_timeout(give("user"), 5) == "user"


async def test_with_timeout_returns_the_default_at_our_deadline() -> None:
    call: Coroutine[Any, Any, object] = hang()
    assert await with_timeout(call, LIMIT) is None
    assert await with_timeout(hang(), LIMIT, "timeout") == "timeout"


@pytest.mark.parametrize("error", [ValueError("no"), TimeoutError("its own"), asyncio.CancelledError()])
async def test_with_timeout_raises_what_the_coroutine_raises(error: BaseException) -> None:
    with pytest.raises(type(error)) as raised:
        await with_timeout(fail(error), 5, "default")
    assert raised.value is error


async def test_with_timeout_gives_the_default_where_cleanup_raises_after_the_deadline() -> None:
    async def call() -> None:
        try:
            await hang()
        finally:
            raise ValueError("in cleanup")

    assert await with_timeout(call(), LIMIT, "default") == "default"


async def test_with_timeout_leaves_behind_what_ignores_its_cancellation() -> None:
    end = asyncio.Event()

    async def call() -> None:
        while not end.is_set():
            try:
                await end.wait()
            except asyncio.CancelledError:
                continue

    assert await with_timeout(call(), LIMIT, "default", grace=LIMIT) == "default"
    [left] = local._left_behind
    end.set()
    await left.task


async def test_many_at_a_time_each_have_their_own_deadline() -> None:
    calls = [give(1), hang(), give(3), hang()]
    assert await asyncio.gather(*(with_timeout(call, LIMIT, "timeout") for call in calls)) == [
        1, "timeout", 3, "timeout",
    ]  # fmt: skip


async def test_with_result_tells_a_success_from_a_timeout_from_a_failure() -> None:
    success, timeout, failure = await asyncio.gather(
        with_result(give(object), 5), with_result(hang(), LIMIT), with_result(fail(TimeoutError("its own")), 5)
    )
    assert isinstance(success, SuccessResult)
    assert success.value is object, "a local value needs no trip through JSON"
    assert isinstance(timeout, TimeoutResult)
    assert (timeout.limit, timeout.phase, timeout.stopped) == (LIMIT, "running", "cancelled")
    assert isinstance(failure, FailureResult)
    assert (failure.error_type, failure.message) == ("TimeoutError", "its own")
    assert "raise error" in failure.traceback
    for result in (success, timeout, failure):
        assert result.function in ("give", "hang", "fail")
        assert result.duration is not None
        assert 0 <= result.duration < LIMIT + 0.25


@both
@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), None, "3"])
async def test_a_timeout_that_cannot_be_is_refused_and_the_coroutine_closed(helper: Helper, timeout: Any) -> None:
    call = hang()
    with pytest.raises(StragglerError, match=r"timeout=.*above 0"):
        await helper(call, timeout)
    assert getcoroutinestate(call) == CORO_CLOSED


@both
@pytest.mark.parametrize("grace", [-1, float("nan"), float("inf")])
async def test_a_grace_that_cannot_be_is_refused_and_the_coroutine_closed(helper: Helper, grace: float) -> None:
    call = hang()
    with pytest.raises(StragglerError, match=r"grace=.*from 0"):
        await helper(call, 1, grace=grace)
    assert getcoroutinestate(call) == CORO_CLOSED


@both
async def test_what_is_no_coroutine_is_refused(helper: Helper) -> None:
    with pytest.raises(StragglerError, match="call the async function first"):
        await helper(hang, 1)


@both
async def test_a_caller_that_is_cancelled_before_it_starts_leaves_no_coroutine_unawaited(helper: Helper) -> None:
    call = hang()
    task = asyncio.create_task(helper(call, 1))
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    del task
    gc.collect()
    assert getcoroutinestate(call) == CORO_CLOSED


@both
async def test_a_caller_that_is_cancelled_before_the_call_starts_leaves_no_coroutine_unawaited(helper: Helper) -> None:
    call = hang()
    task = asyncio.create_task(helper(call, 1))
    await asyncio.sleep(0)
    assert getcoroutinestate(call) == CORO_CREATED
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    assert getcoroutinestate(call) == CORO_CLOSED


@both
async def test_a_cancelled_caller_waits_for_the_cleanup_of_its_call(helper: Helper) -> None:
    begun = asyncio.Event()
    trace = []

    async def call() -> None:
        try:
            begun.set()
            await hang()
        finally:
            await asyncio.sleep(0.01)
            trace.append("cleaned up")

    task = asyncio.create_task(helper(call(), 5))
    await begun.wait()
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    assert trace == ["cleaned up"]


@both
async def test_a_caller_that_is_cancelled_twice_does_not_wait(helper: Helper) -> None:
    begun, cleaning, end = asyncio.Event(), asyncio.Event(), asyncio.Event()
    cleaned_up = asyncio.Event()

    async def call() -> None:
        try:
            begun.set()
            await hang()
        finally:
            cleaning.set()
            await end.wait()
            cleaned_up.set()

    task = asyncio.create_task(helper(call(), 5))
    await begun.wait()
    task.cancel()
    await cleaning.wait()
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    assert not cleaned_up.is_set()
    end.set()
    await cleaned_up.wait()


async def test_a_timeout_of_the_caller_cancels_the_call() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(LIMIT):
            await with_timeout(hang(), 60)


async def test_helpers_nest_and_the_inner_deadline_is_its_own() -> None:
    async def outer() -> Any:
        return await with_timeout(hang(), LIMIT, "inner")

    assert await with_timeout(outer(), 5, "outer") == "inner"


async def test_what_ends_in_time_leaves_no_timer() -> None:
    def timers() -> int:
        return sum(not timer.cancelled() for timer in getattr(asyncio.get_running_loop(), "_scheduled", ()))

    before = timers()
    await with_timeout(give(1), 60)
    assert timers() == before


async def test_types_flow_through_both_helpers() -> None:
    async def count() -> int:
        return 1

    value: int | str = await with_timeout(count(), 1, "default")
    maybe: int | None = await with_timeout(count(), 1)
    result: SuccessResult[int] | TimeoutResult | FailureResult = await with_result(count(), 1)
    assert (value, maybe, result.value_or(0)) == (1, 1, 1)
