"""What jobs share that travel as rows: which function, which parameters they give, what each has of its own.

A row holds, in this order: the number of its kind, where a chunk has several; what the job has of its own; its
arguments. Rows of one kind are checked and written, or read, all at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, TypeAdapter
from pydantic_core import to_json

from protocol import signatures
from protocol.columns import PLAIN
from protocol.jobs import JobSpec, trusted
from protocol.own import NUMBER, OWN, Name


class Called(NamedTuple):
    """What jobs are called with, each `function(*args, **kwargs)`, as three lists of the same length.

    A tuple for each job would cost as much as to read its row: the garbage collector looks at all of them.

    Args:
        jobs: Each without its arguments.
        args: Of each what it is called with by position.
        kwargs: Of each what it is called with by name.
    """

    jobs: list[JobSpec[Any]]
    args: list[tuple[Any, ...]]
    kwargs: list[dict[str, Any]]


_Own = Literal["key", "timeout", "queue_timeout", "deadline", "heartbeat_timeout"]


class Kind(NamedTuple):
    """One kind of the jobs of a chunk.

    Args:
        function: What they call.
        names: The parameters that their last arguments give; those before go by position.
        own: Fields that each has of its own.
    """

    function: Name
    names: tuple[str, ...] = ()
    own: tuple[_Own, ...] = ()

    @property
    def has_own_clock(self) -> bool:
        """Whether its jobs may have clocks of their own that run before they start, or in silence."""
        return not _HARMLESS.issuperset(self.own)

    def job(self, row: Sequence[Any]) -> JobSpec[Any]:
        """Make a job of a row, without its number, as it has come."""
        own, given = dict(zip(self.own, row, strict=False)), row[len(self.own) :]
        at = len(given) - len(self.names)
        kwargs = dict(zip(self.names, given[at:], strict=True))
        return JobSpec(function=self.function, args=tuple(given[:at]), kwargs=kwargs, **own)

    def bare_job(self, row: Sequence[Any]) -> JobSpec[Any]:
        """Make a job of a row that was checked, without its arguments, in a third of the time."""
        return trusted(self.function, (), {}, dict(zip(self.own, row, strict=False)))

    def check(self, rows: Sequence[Sequence[Any]]) -> None:
        """Refuse rows that are none of this kind.

        Raises:
            ValueError: If one is too short, or what its job has of its own cannot be.
        """
        least = len(self.own) + len(self.names)
        if any(len(row) < least for row in rows):
            raise ValueError(f"a row that has no {least} columns: {', '.join((*self.own, *self.names))}")
        if self.own:
            _own_columns(self.own).validate_python([tuple(row[: len(self.own)]) for row in rows], strict=True)

    def read(self, data: bytes, width: int, *, is_numbered: bool) -> Called | None:
        """Read rows by the function's annotations; `width` is the first one's.

        Returns:
            None where they must be looked at one by one, for what they need or for what is wrong with them.
        """
        signature = signatures.known(self.function)
        if signature is None:
            return None
        lead, before = _lead(self.own, is_numbered=is_numbered)
        count = width - len(before) - len(self.names)
        names = (*signature.positional[:count], *self.names)
        by_position = _same_at_first(names, signature.positional)
        columns = signature.columns(by_position, names[by_position:], before)
        if columns is None:
            return None
        rows = columns.decode(data)
        jobs = self._jobs(rows, lead, len(before))
        if not before and by_position == len(names):
            return Called(jobs, rows, [{}] * len(rows))
        stop, by_name = len(before) + by_position, names[by_position:]
        args = [row[len(before) : stop] for row in rows]
        if not by_name:
            return Called(jobs, args, [{}] * len(rows))
        return Called(jobs, args, [dict(zip(by_name, row[stop:], strict=True)) for row in rows])

    def _jobs(self, rows: Sequence[tuple[Any, ...]], start: int, stop: int) -> list[JobSpec[Any]]:
        """Make jobs without their arguments of rows in which what they have of their own stands here."""
        function, own = self.function, self.own
        if not own:
            return [trusted(function, (), {}, {})] * len(rows)
        return [trusted(function, (), {}, dict(zip(own, row[start:stop], strict=True))) for row in rows]


# What a job with these has of its own says nothing of when it may start.
_HARMLESS = frozenset({"key", "timeout"})

_kinds: TypeAdapter[tuple[Kind, ...]] = TypeAdapter(Annotated[tuple[Kind, ...], Field(min_length=1)])


def write_kinds(kinds: Iterable[Kind]) -> bytes:
    """Write kinds as a JSON array."""
    return to_json([{name: value for name, value in kind._asdict().items() if value} for kind in kinds])


def read_kinds(data: bytes) -> tuple[Kind, ...]:
    """Read what `write_kinds` has written.

    Raises:
        pydantic.ValidationError: If it is anything else.
    """
    return _kinds.validate_json(data, strict=True)


class Shape(NamedTuple):
    """In what a job is like others: those with the same are of one kind.

    Args:
        function: What it calls.
        by_position: How many arguments it gives by position.
        names: Those that it gives by name.
        fields: Which of its fields were set.
    """

    function: str
    by_position: int
    names: tuple[str, ...] = ()
    fields: frozenset[str] = frozenset()

    @property
    def own(self) -> tuple[Any, ...]:
        """Fields that each has of its own."""
        return tuple(name for name in OWN if name in self.fields)


def shapes_of(jobs: Iterable[JobSpec[Any]]) -> list[tuple[Any, ...]]:
    """Tell jobs' shapes, as plain tuples, which takes a third of the time."""
    return [(job.function, len(job.args), tuple(job.kwargs), frozenset(job.__pydantic_fields_set__)) for job in jobs]


def write_rows(shape: Shape, jobs: Sequence[JobSpec[Any]], number: int | None = None) -> tuple[Kind, bytes] | None:
    """Write jobs of one shape: their kind, and a JSON array of rows, which begin with the kind's number if it has one.

    Returns:
        None where that cannot be, as for `write_calls`.
    """
    if shape.own or shape.names or number is not None:
        signature, names = signatures.known(shape.function), shape.names
        if signature is not None:  # in the function's order, so that a worker can give them by position
            names = tuple(sorted(names, key=[*signature.parameters].index))
        lead = () if number is None else (number,)
        own, given = _getter(shape.own), _getter(names)
        rows = [(*lead, *own(job.__dict__), *job.args, *given(job.kwargs)) for job in jobs]
        return _write(shape, names, rows, is_numbered=number is not None)
    return write_calls(shape, [job.args for job in jobs])


def write_calls(shape: Shape, rows: list[tuple[Any, ...]]) -> tuple[Kind, bytes] | None:
    """Write rows of a shape that are nothing but positional arguments.

    Returns:
        None where they must be looked at one by one, for what they need or for what is wrong with them.

    Raises:
        Exception: Whatever the arguments' own code does if they do not fit.
    """
    return _write(shape, (), rows, is_numbered=False)


def _write(
    shape: Shape, names: tuple[str, ...], rows: list[tuple[Any, ...]], *, is_numbered: bool
) -> tuple[Kind, bytes] | None:
    signature, own = signatures.known(shape.function), shape.own
    if signature is None:
        return Kind(shape.function, names, own), PLAIN.dump_json(rows)
    columns = signature.columns(shape.by_position, names, _lead(own, is_numbered=is_numbered)[1])
    if columns is None:
        return None
    return Kind(shape.function, (*signature.positional[: shape.by_position], *names), own), columns.encode(rows)


def _lead(own: tuple[str, ...], *, is_numbered: bool) -> tuple[int, tuple[str, ...]]:
    """Tell where what is a job's own begins in a row, and what stands there before the arguments."""
    return (1, (NUMBER, *own)) if is_numbered else (0, own)


def _same_at_first(some: Sequence[str], others: Sequence[str]) -> int:
    """Count how many of two sequences are the same at their beginnings."""
    count = 0
    for one, other in zip(some, others, strict=False):
        if one != other:
            break
        count += 1
    return count


def _getter(names: Sequence[str]) -> Callable[[Mapping[str, Any]], tuple[Any, ...]]:
    """Make what takes the values of these names, all at once, out of a dict."""
    if len(names) > 1:
        return itemgetter(*names)
    if names:
        [name] = names
        return lambda values: (values[name],)
    return lambda values: ()


@lru_cache(64)
def _own_columns(own: tuple[str, ...]) -> TypeAdapter[Any]:
    return TypeAdapter(list[tuple[*[OWN[name] for name in own]]])  # type: ignore[arg-type, misc]  # made here
