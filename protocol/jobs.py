"""Jobs as a producer names them.

A job on the wire is a JSON object with the fields of `JobSpec` that are not at their default. Where the function is at
hand its arguments are validated and written by its annotations (`signatures`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import to_json

from protocol import signatures
from protocol.errors import ArgumentsError, OptionError, PayloadTooLargeError, explain, shorten
from protocol.own import LONGEST_KEY, LONGEST_NAME, OWN, Key, Name, Seconds

R = TypeVar("R")

_NUMBERS = (float, int)
# A century: clocks of a longer time are for pydantic to look at.
_USUAL_SECONDS = 3e9


class JobSpec(BaseModel, Generic[R]):
    """One call to make: a function by name, its arguments, and what differs from the batch's options.

    Args:
        function: The job's name, as `@job` registered it in the workers.
        args: Positional arguments.
        kwargs: Keyword arguments.
        key: What people call this job; it comes back in the result. Need not be unique.
        timeout: Longest run, s; wins over the batch's and the function's own.
        queue_timeout: Longest wait before the job starts, s, from its submission.
        deadline: When it must be over, s from its submission, however long it has waited and how often it has run; the
            batch's own deadline holds, too.
        heartbeat_timeout: Longest time from its start to its first `current_job().heartbeat()`, and from one to the
            next, s; wins over the batch's and the function's own.

    Raises:
        pydantic.ValidationError: If a field cannot be, e.g. a timeout of 0.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_bytes="base64", ser_json_inf_nan="constants")

    function: Name
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = Field(default_factory=dict)
    key: Key | None = None
    timeout: Seconds | None = None
    queue_timeout: Seconds | None = None
    deadline: Seconds | None = None
    heartbeat_timeout: Seconds | None = None

    @property
    def has_no_clock(self) -> bool:
        """Whether its batch's options, and its function's, say all of its clocks."""
        clocks = (self.timeout, self.queue_timeout, self.deadline, self.heartbeat_timeout)
        return clocks == (None, None, None, None)


def spec(function: str, args: tuple[Any, ...], kwargs: dict[str, Any], own: Mapping[str, Any]) -> JobSpec[Any]:
    """Make a JobSpec.

    Args:
        function: The job's name.
        args: Positional arguments.
        kwargs: Keyword arguments.
        own: Its other fields; None is what they are without.

    Raises:
        OptionError: If one of these cannot be; one line, with the value and the cure.
    """
    given = _surely_right(own) if own else own
    if given is not None and 0 < len(function) <= LONGEST_NAME and function.isascii():
        return trusted(function, args, kwargs, given)
    try:
        return JobSpec(function=function, args=args, kwargs=kwargs, **own)
    except ValidationError as error:
        raise OptionError(f"job {function!r}: {explain(error)}") from None


def _surely_right(own: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return fields as pydantic would; None where it must look at them itself, as they are unusual, or wrong."""
    given: dict[str, Any] = {}
    for name, value in own.items():
        if value is None:
            continue
        if name == "key":
            if type(value) is not str or len(value) > LONGEST_KEY or not value.isascii():
                return None
            given[name] = value
        else:
            if name not in OWN or type(value) not in _NUMBERS or not 0 < value < _USUAL_SECONDS:
                return None
            given[name] = float(value)
    return given


def trusted(function: str, args: tuple[Any, ...], kwargs: dict[str, Any], own: Mapping[str, Any]) -> JobSpec[Any]:
    """Make a JobSpec of fields that are right for sure, in a third of the time that it takes to look at them."""
    fields = {
        "function": function, "args": args, "kwargs": kwargs, "key": None,
        "timeout": None, "queue_timeout": None, "deadline": None, "heartbeat_timeout": None,
    }  # fmt: skip
    fields_set = {"function", "args", "kwargs"}
    if own:
        fields.update(own)
        fields_set.update(own)
    job: JobSpec[Any] = _new(JobSpec)
    _set(job, "__dict__", fields)
    _set(job, "__pydantic_fields_set__", fields_set)
    _set(job, "__pydantic_extra__", None)
    _set(job, "__pydantic_private__", None)
    return job


_new = object.__new__
_set = object.__setattr__


class JobSpecs(Generic[R]):
    """Many calls of one function, made one by one as they are iterated; `len()` where the arguments have one.

    Args:
        function: The job's name.
        arguments: What each job is called with; iterated anew each time.
        pack: Makes positional arguments of one of them.
    """

    def __init__(self, function: str, arguments: Iterable[Any], pack: Callable[[Any], tuple[Any, ...]]) -> None:
        self.function = function
        self._arguments = arguments
        self._pack = pack

    def __iter__(self) -> Iterator[JobSpec[R]]:
        return (JobSpec(function=self.function, args=arguments) for arguments in self.calls())

    def calls(self) -> Iterator[tuple[Any, ...]]:
        """What each job is called with, by position, lazily; a fifth of the work of making it a `JobSpec`."""
        return map(self._pack, self._arguments)

    @property
    def is_at_hand(self) -> bool:
        """Whether iterating waits for nothing: what they are called with is all in memory."""
        return isinstance(self._arguments, list | tuple | range | set | frozenset | dict | str)

    def __length_hint__(self) -> int:
        return len(self._arguments) if isinstance(self._arguments, Sized) else NotImplemented


def encode_job(job: JobSpec[Any], limit_bytes: int) -> bytes:
    """Write one job as JSON.

    Raises:
        ArgumentsError: If its arguments do not fit its function, or cannot be JSON.
        PayloadTooLargeError: If its arguments take more than `limit_bytes`.
    """
    signature = signatures.known(job.function)
    members = signature.encode_arguments(job.args, job.kwargs) if signature else _plain_arguments(job)
    if len(members) > limit_bytes:
        raise PayloadTooLargeError(
            f"the arguments of {_called(job)} take {len(members):,} bytes as JSON, at most {limit_bytes:,} may travel: "
            "pass a path or a URL instead, or raise STRAGGLER_MAX_ARGUMENTS_BYTES"
        )
    if job.key is None and job.has_no_clock:
        return b'{"function":%b,%b}' % (to_json(job.function), members)
    rest = job.model_dump_json(exclude={"args", "kwargs"}, exclude_defaults=True).encode()
    return b"%b,%b}" % (rest[:-1], members)


def _plain_arguments(job: JobSpec[Any]) -> bytes:
    try:
        return job.model_dump_json(include={"args", "kwargs"}, exclude_defaults=True).encode()[1:-1] or b'"args":[]'
    except (ValueError, RecursionError) as error:  # no UTF-8, a circle, too deep, or a type that is no JSON
        raise ArgumentsError(f"the arguments of {_called(job)} cannot be written as JSON: {error}") from None


def _called(job: JobSpec[Any]) -> str:
    return f"job {job.function!r}" + (f" (key {shorten(job.key)!r})" if job.key else "")
