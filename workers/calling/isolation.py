"""Where a job runs: on the worker's event loop, in a process of its own, or in a thread."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Literal

from protocol.errors import OptionError

Isolation = Literal["loop", "process", "thread"]


def find_isolation(function: Callable[..., Any], isolation: str | None, max_memory: int | None) -> Isolation:
    """Say where a function runs, by what it is and what `@job` was told.

    Raises:
        OptionError: If these do not go together.
    """
    name = function.__qualname__
    if inspect.iscoroutinefunction(function):
        if isolation is not None or max_memory is not None:
            raise OptionError(
                f"job {name!r} is an async def and runs on the event loop: isolation and max_memory are not for it"
            )
        return "loop"
    if isolation not in (None, "process", "thread"):
        raise OptionError(f"@job(isolation={isolation!r}): use 'process' or 'thread'")
    if isolation == "thread":
        if max_memory is not None:
            raise OptionError(f"job {name!r} runs in a thread, whose memory cannot be limited: leave out max_memory")
        return "thread"
    if "<locals>" in name:
        raise OptionError(
            f"job {name!r} is defined inside a function, where its process cannot import it: "
            "move it to the top of its module, or use @job(isolation='thread')"
        )
    return "process"
