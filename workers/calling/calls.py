"""From a job to what runs it: a coroutine on the loop, in a thread, or in a process.

What a job hands over is its own code too: a value's serialiser or an error's `__str__` may block like anything else. So
the value is written as JSON, and the error described, within the job's run, under its clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from workers.ending.failures import described
from workers.registry import Job


@dataclass(slots=True)
class Encoded:
    """A job's value as it is recorded: the JSON object `{"value": ...}`."""

    text: bytes


async def on_loop(
    function: Job[..., Any, Any], args: tuple[Any, ...], kwargs: dict[str, Any], result_limit: int
) -> Encoded:
    """Await an `async def` job.

    Raises:
        DescribedError: If it raised, or returned what cannot be its result.
    """
    try:
        return Encoded(function.encode_value(await function.function(*args, **kwargs), result_limit))
    except GeneratorExit:  # the coroutine is thrown away
        raise
    except BaseException as error:  # noqa: BLE001  # the job's boundary
        raise described(error) from None


def in_thread(
    function: Job[..., Any, Any], args: tuple[Any, ...], kwargs: dict[str, Any], result_limit: int
) -> Encoded:
    """Call a plain job, in its thread.

    Raises:
        DescribedError: If it raised, or returned what cannot be its result.
    """
    try:
        return Encoded(function.encode_value(function.function(*args, **kwargs), result_limit))
    except BaseException as error:  # noqa: BLE001  # as above; no future can carry a StopIteration
        raise described(error) from None
