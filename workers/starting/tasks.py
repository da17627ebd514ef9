"""The tasks of a worker's loop: a job's own are known as its, and no job can cancel those of others.

A job may start tasks (`gather`, a TaskGroup), and those may block the loop like the job itself. So the loop's task
factory wraps what a job starts in `Steps`, by the job's context, which its tasks inherit. What the worker itself
starts, and each run, is a `GuardedTask`: `for task in asyncio.all_tasks(): task.cancel()`, in a job, reaches that job's
tasks and no more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from typing import Any

from workers.calling.context import asking, running


class GuardedTask(asyncio.Task[Any]):
    """A task that the code of a job cannot cancel, unless it is that job's own."""

    __slots__ = ("run", "was_cancelled")

    run: Any
    """The job's run; None for a task of the worker, or of nobody any more."""
    was_cancelled: bool
    """Whether a cancel was asked for, ever: what it does may be to come."""

    def cancel(self, msg: Any | None = None) -> bool:
        """Cancel, if no job or the right one asks."""
        if not self._may_be_cancelled():
            return False
        self.was_cancelled = True
        return super().cancel(msg)

    def _may_be_cancelled(self) -> bool:
        own, other = self.run, asking()
        if other is None or other is own:
            return True
        if own is not None:
            # What an ended job has left behind knows the task that ran it, and others after it.
            return own.outcome is not None
        return other.outcome is not None


class Steps(Coroutine[Any, Any, Any]):
    """A coroutine that a job has started as a task: while a step of it runs, that job holds the loop.

    Args:
        call: The coroutine.
        run: The job's run.
    """

    __slots__ = ("__name__", "__qualname__", "_call", "_run")

    def __init__(self, call: Coroutine[Any, Any, Any], run: Any) -> None:
        self._call = call
        self._run = run
        self.__name__ = getattr(call, "__name__", type(call).__name__)
        self.__qualname__ = getattr(call, "__qualname__", self.__name__)

    def send(self, value: Any) -> Any:
        """Take the next step."""
        return self._step(self._call.send, value)

    def throw(self, *error: Any) -> Any:
        """Take the next step with an error."""
        return self._step(self._call.throw, *error)

    def close(self) -> None:
        """End it."""
        self._call.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._call.__await__()

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("cr_"):
            raise AttributeError(name)
        return getattr(self._call, name)  # what tracebacks and debuggers look for

    def _step(self, resume: Callable[..., Any], *payload: Any) -> Any:
        run, deadlines = self._run, self._run.deadlines
        if run.outcome is not None:  # a task may outlive its job, and then is nobody's
            return _step_safely(resume, *payload)
        outer = deadlines.code
        if outer is None:
            deadlines.enter(run)
        deadlines.code = self._call
        try:
            return _step_safely(resume, *payload)
        finally:
            if outer is None:
                deadlines.leave(run)
            else:  # an eager task takes its first step inside one of its parent's
                deadlines.code = outer


class TaskExitedError(RuntimeError):
    """A task that a job has started raised SystemExit or KeyboardInterrupt, which would end the worker's loop."""


def _step_safely(resume: Callable[..., Any], *payload: Any) -> Any:
    try:
        return resume(*payload)
    except (SystemExit, KeyboardInterrupt) as error:
        raise TaskExitedError(f"a task of the job raised {error!r}") from error


class Tasks:
    """Make the tasks of a loop, as its task factory."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._before: Any = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Become the loop's task factory, if it has none of our kind."""
        before = loop.get_task_factory()
        if not isinstance(getattr(before, "__self__", None), Tasks):
            self._loop, self._before = loop, before
            loop.set_task_factory(self._make)

    def stop(self) -> None:
        """Give the loop back to who made its tasks before."""
        if self._loop is not None:
            self._loop.set_task_factory(self._before)
            self._loop = None

    def _make(self, loop: asyncio.AbstractEventLoop, call: Any, **options: Any) -> Any:
        run = running(options.get("context"))
        if run is not None and asyncio.iscoroutine(call):
            call = Steps(call, run)
        if self._before is not None:
            return self._before(loop, call, **options)
        return guarded(loop, call, run, **options)


def guarded(loop: asyncio.AbstractEventLoop, call: Any, run: Any, **options: Any) -> GuardedTask:
    """Make a task that no job but this run's can cancel."""
    task = GuardedTask(call, loop=loop, **options)
    task.run = run
    task.was_cancelled = False
    return task
