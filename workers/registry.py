"""`@job`: make a function a job, and find it again by its name.

A decorated function stays what it was when called, and makes `JobSpec`s. Workers import modules to know their jobs
(`workers.loading`).
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Generic, Literal, ParamSpec, TypeVar, overload

from pydantic import ValidationError
from pydantic_core import to_json

from protocol import signatures
from protocol.errors import OptionError, UnknownFunctionError, explain, suggest
from protocol.jobs import JobSpec, JobSpecs, spec
from protocol.own import OWN
from protocol.signatures import Signature
from workers.calling.isolation import Isolation, find_isolation

P = ParamSpec("P")
C = TypeVar("C")
R = TypeVar("R")

_NOTHING_OWN = dict.fromkeys(OWN)

_jobs: dict[str, Job[..., Any, Any]] = {}


class UnusableValueError(ValueError):
    """A job returned a value that does not fit its declared type, cannot be JSON, or is too large."""


class Job(Generic[P, C, R]):
    """A function that workers can run by its name.

    Args:
        function: The function.
        name: What producers call it.
        timeout: Longest run, s, where neither the job nor its batch says another.
        isolation: `loop` for an `async def`; `process` or `thread` for a plain function.
        max_memory: What a job's process may allocate, bytes.
        retries: Further attempts after a failure, where its batch says nothing.
        backoff: Base of the exponential back-off between them, s, where its batch says nothing.
        heartbeat_timeout: Longest time without a heartbeat, s, where neither the job nor its batch says another.

    Attributes:
        awaits: Whether its runs in this process await something: the last one did, and none had ended at once just
            before it.
    """

    def __init__(
        self,
        function: Callable[P, C],
        name: str,
        timeout: float | None = None,
        isolation: Isolation = "loop",
        max_memory: int | None = None,
        retries: int | None = None,
        backoff: float | None = None,
        heartbeat_timeout: float | None = None,
    ) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.name = name
        self.timeout = timeout
        self.isolation: Isolation = isolation
        self.max_memory = max_memory
        self.retries = retries
        self.backoff = backoff
        self.heartbeat_timeout = heartbeat_timeout
        self.signature = Signature(name, function)
        self.awaits = False

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> C:
        """Call the function, here and now."""
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<job {self.name}>"

    def spec(
        self,
        *args: Any,
        key: str | None = None,
        timeout: float | None = None,
        queue_timeout: float | None = None,
        deadline: float | None = None,
        heartbeat_timeout: float | None = None,
        **kwargs: Any,
    ) -> JobSpec[R]:
        """Describe one call of the function; a parameter of its own named like one of these needs `JobSpec(...)`.

        Raises:
            OptionError: If an option cannot be.
        """
        own: dict[str, Any] = {
            "key": key, "timeout": timeout, "queue_timeout": queue_timeout, "deadline": deadline,
            "heartbeat_timeout": heartbeat_timeout,
        }  # fmt: skip
        return spec(self.name, args, kwargs, {} if own == _NOTHING_OWN else own)

    def map(self, arguments: Iterable[Any]) -> JobSpecs[R]:
        """Describe one call for each argument, lazily."""
        return JobSpecs(self.name, arguments, lambda argument: (argument,))

    def starmap(self, arguments: Iterable[Iterable[Any]]) -> JobSpecs[R]:
        """Describe one call for each tuple of arguments, lazily."""
        return JobSpecs(self.name, arguments, tuple)

    @property
    def module(self) -> str:
        """Where another process finds the function: the module's name, or the file of what runs as a script."""
        module = self.function.__module__
        return inspect.getsourcefile(self.function) or module if module == "__main__" else module

    def encode_value(self, value: Any, limit_bytes: int) -> bytes:
        """Write what the function returned as the JSON object `{"value": ...}`.

        Raises:
            UnusableValueError: If it does not fit the declared type, cannot be JSON, or takes more than `limit_bytes`.
        """
        try:
            encoded = self.signature.encode_value(value)
        except Exception as error:  # noqa: BLE001  # a value's own validators and serialisers may raise anything
            what = explain(error) if isinstance(error, ValidationError) else error
            raise UnusableValueError(f"{self.name!r} returned what cannot be its result: {what}") from None
        if len(encoded) > limit_bytes:
            raise UnusableValueError(
                f"the value takes {len(encoded):,} bytes as JSON, at most {limit_bytes:,} may be kept: "
                "return a path or a URL instead, or raise STRAGGLER_MAX_RESULT_BYTES"
            )
        return encoded


@overload
def job(function: Callable[P, Coroutine[Any, Any, R]], /) -> Job[P, Coroutine[Any, Any, R], R]: ...
@overload
def job(function: Callable[P, R], /) -> Job[P, R, R]: ...
@overload
def job(
    *,
    name: str | None = None,
    timeout: float | None = None,
    isolation: Literal["process", "thread"] | None = None,
    max_memory: int | None = None,
    retries: int | None = None,
    backoff: float | None = None,
    heartbeat_timeout: float | None = None,
) -> _Decorator: ...
def job(
    function: Any = None,
    /,
    *,
    name: str | None = None,
    timeout: float | None = None,
    isolation: Literal["process", "thread"] | None = None,
    max_memory: int | None = None,
    retries: int | None = None,
    backoff: float | None = None,
    heartbeat_timeout: float | None = None,
) -> Any:
    """Make a function a job: `@job`, or `@job(timeout=3)`.

    Args:
        function: `async def`, or plain.
        name: What producers call it; the function's own name by default.
        timeout: Longest run, s, where neither the job nor its batch says another; else 300.
        isolation: How a plain function runs. `process` (the default): in a process of its own, which is killed at the
            timeout with all that it started. `thread`: in a thread of the worker, cheap for calls that surely end. A
            thread cannot be stopped: after a timeout it runs on and keeps its resources, and one that blocks in C code
            without giving up the GIL stops the whole worker.
        max_memory: What a job in a process may allocate, bytes; over it the job fails.
        retries: Further attempts after a failure, where its batch says nothing; else 0.
        backoff: Base of the exponential back-off between them, s, where its batch says nothing; else 1.
        heartbeat_timeout: Longest time, s, from the job's start to its first `current_job().heartbeat()`, and from one
            to the next, where neither the job nor its batch says another; else it need not call it at all.

    Raises:
        OptionError: If one of these cannot be, or the name is taken by another function.
    """
    for clock, seconds in (("timeout", timeout), ("heartbeat_timeout", heartbeat_timeout)):
        if seconds is not None and not 0 < seconds < float("inf"):
            raise OptionError(f"@job({clock}={seconds}): a timeout is a finite number of seconds above 0")
    if retries is not None and retries < 0:
        raise OptionError(f"@job(retries={retries}): a number from 0")
    if backoff is not None and not 0 <= backoff < float("inf"):
        raise OptionError(f"@job(backoff={backoff}): a finite number of seconds from 0")
    if max_memory is not None and max_memory <= 0:
        raise OptionError(f"@job(max_memory={max_memory}): a number of bytes above 0")

    def register(function: Callable[..., Any]) -> Job[..., Any, Any]:
        how = find_isolation(function, isolation, max_memory)
        clocks = (retries, backoff, heartbeat_timeout)
        made: Job[..., Any, Any] = Job(function, name or function.__name__, timeout, how, max_memory, *clocks)
        taken = _jobs.get(made.name)
        if taken is not None and _home(taken.function) != _home(function):
            raise OptionError(
                f"two jobs are named {made.name!r}: {_home(taken.function)} and {_home(function)}; "
                "give one of them another name with @job(name=...)"
            )
        _jobs[made.name] = made
        plain_names.cache_clear()
        signatures.learn(made.signature)
        return made

    return register if function is None else register(function)


class _Decorator:
    """The type of `job(...)`, for type checkers."""

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> Job[P, Coroutine[Any, Any, R], R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Job[P, R, R]: ...
    def __call__(self, function: Any, /) -> Any:
        raise NotImplementedError


def names() -> list[str]:
    """Name all jobs that this process knows."""
    return sorted(_jobs)


def find(name: str) -> Job[..., Any, Any]:
    """Find a job by its name; a ready-made one is imported when it is first asked for.

    Raises:
        UnknownFunctionError: If there is none; names those that are alike.
    """
    if name not in _jobs and "." in name:
        _load_ready_made(name.partition(".")[0])
    try:
        return _jobs[name]
    except KeyError:
        raise UnknownFunctionError(
            f"no job {name!r} here: {suggest(name, _jobs)} (is its module given with --jobs?)"
        ) from None


def isolation_of(name: str) -> Isolation | None:
    """Say where a job runs; None if it is not known."""
    return _jobs[name].isolation if name in _jobs else None


@functools.cache
def plain_names() -> str:
    """Name the functions that run in processes, as JSON writes them, each with a line break on either side."""
    return "".join(f"\n{to_json(name)[1:-1].decode()}\n" for name, made in _jobs.items() if made.isolation == "process")


def _load_ready_made(module: str) -> None:
    if module.isidentifier() and importlib.util.find_spec(f"workers.library.{module}") is not None:
        importlib.import_module(f"workers.library.{module}")


def _home(function: Callable[..., Any]) -> str:
    # A file that is run as a script and imported as a module defines the same jobs twice.
    module = inspect.getsourcefile(function) or function.__module__
    return f"{module}:{function.__qualname__}"
