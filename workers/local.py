"""`with_timeout` and `with_result`: the workers' timeout wrapper for calls of one's own, without Redis."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, TypeVar, overload

from protocol.batches import DEFAULT_GRACE
from protocol.errors import OptionError
from protocol.results import FailureResult, SuccessResult, TimeoutResult
from workers.ending.failures import describe
from workers.ending.outcomes import Raised, Returned, TimedOut
from workers.timeouts import Run
from workers.timing.deadlines import Deadlines

# The loop holds tasks weakly: what a caller no longer waits for is held here until it ends.
_left_behind: set[Any] = set()

T = TypeVar("T")
D = TypeVar("D")


@overload
def with_timeout(
    call: Coroutine[Any, Any, T], timeout: float, *, grace: float = ...
) -> Coroutine[Any, Any, T | None]: ...
@overload
def with_timeout(
    call: Coroutine[Any, Any, T], timeout: float, default: D, *, grace: float = ...
) -> Coroutine[Any, Any, T | D]: ...
def with_timeout(
    call: Coroutine[Any, Any, Any], timeout: float, default: Any = None, *, grace: float = DEFAULT_GRACE
) -> Coroutine[Any, Any, Any]:
    """Await a coroutine for at most `timeout` seconds; past that, cancel it and return `default`.

    Only our own deadline gives the default: whatever the coroutine raises, its own TimeoutError too, is raised here.

    Args:
        call: The coroutine; it is always awaited or closed.
        timeout: Seconds, above 0.
        default: What to return in place of the value.
        grace: Seconds for the coroutine's cleanup once it was cancelled; then it is left behind.

    Raises:
        OptionError: If the timeout or the grace cannot be.
    """
    return _with_timeout(_Kept(call), timeout, default, grace)


async def _with_timeout(kept: _Kept, timeout: float, default: Any, grace: float) -> Any:
    run = await _finish(kept, timeout, grace)
    match run.outcome:
        case Returned(value):
            return value
        case Raised(error):
            raise error
        case _:
            return default


def with_result(
    call: Coroutine[Any, Any, T], timeout: float, *, grace: float = DEFAULT_GRACE
) -> Coroutine[Any, Any, SuccessResult[T] | TimeoutResult | FailureResult]:
    """Await a coroutine for at most `timeout` seconds and return what it ended in, as the workers would record it.

    Args:
        call: The coroutine; it is always awaited or closed.
        timeout: Seconds, above 0.
        grace: Seconds for the coroutine's cleanup once it was cancelled; then it is left behind.

    Raises:
        OptionError: If the timeout or the grace cannot be.
    """
    return _with_result(_Kept(call), timeout, grace)


async def _with_result(kept: _Kept, timeout: float, grace: float) -> SuccessResult[Any] | TimeoutResult | FailureResult:
    run = await _finish(kept, timeout, grace)
    offset = time.time() - time.monotonic()
    common: dict[str, Any] = {
        "job_id": "local:0",
        "index": 0,
        "function": run.name,
        "started_at": run.started + offset,
        "finished_at": run.finished + offset,
    }
    match run.outcome:
        case Returned(value):
            return SuccessResult.model_construct(**common, value=value)
        case Raised(error):
            return FailureResult(**{**common, **describe(error)})
        case TimedOut(limit, phase, stopped):
            return TimeoutResult(**common, limit=limit, phase=phase, stopped=stopped)
        case other:  # pragma: no cover  # nobody but our own caller can cancel the run, and then we raise
            raise AssertionError(other)


class _Kept:
    """A coroutine that is closed if nobody takes it: our caller's task may be cancelled before its first step."""

    __slots__ = ("_call",)

    def __init__(self, call: Coroutine[Any, Any, Any]) -> None:
        self._call: Coroutine[Any, Any, Any] | None = call

    def __del__(self) -> None:
        if asyncio.iscoroutine(self._call):
            self._call.close()

    def take(self) -> Coroutine[Any, Any, Any]:
        call, self._call = self._call, None
        assert call is not None  # noqa: S101  # taken once
        return call


async def _finish(kept: _Kept, timeout: float, grace: float) -> Run:
    call = kept.take()
    if not asyncio.iscoroutine(call):
        raise OptionError(f"with_timeout and with_result take a coroutine, got {call!r}: call the async function first")
    if not (_is_time(timeout) and timeout > 0 and _is_time(grace)):
        call.close()
        raise OptionError(
            f"timeout={timeout!r}, grace={grace!r}: a timeout is a finite number of seconds above 0, grace from 0"
        )
    deadlines = Deadlines()
    deadlines.left_behind = _left_behind
    run = _LocalRun(call, timeout, grace, deadlines)
    try:
        await run.done.wait()
    except asyncio.CancelledError:
        run.cancel("the caller was cancelled")
        # Its cleanup ends before ours goes on; a second cancel of the caller does not wait.
        await run.done.wait()
        raise
    finally:
        deadlines.close()
    return run


def _is_time(seconds: object) -> bool:
    return isinstance(seconds, int | float) and 0 <= seconds < float("inf")


class _LocalRun(Run):
    def __init__(self, call: Coroutine[Any, Any, Any], limit: float, grace: float, deadlines: Deadlines) -> None:
        super().__init__(call, limit, grace, deadlines)
        self.done = asyncio.Event()

    def ended(self) -> None:
        self.done.set()
