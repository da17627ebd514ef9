"""The chunks in which jobs travel.

A chunk is a JSON array of jobs, each an object with the fields of `JobSpec` that are not at their default. Where its
jobs differ in nothing but their positional arguments, it is one object instead: `{"function": ..., "names": the
parameters, "args": a row for each job}`; without `names` where the producer does not have the function at hand. So a
no-op job takes 10 bytes in place of 45, and all rows are checked and written at once.

Jobs and rows are joined by a comma and a line break, which stands nowhere else, as JSON escapes line breaks: so a claim
cuts a chunk in two without reading it (splitting.lua).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property, lru_cache
from typing import Any, overload

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from protocol import signatures
from protocol.columns import PLAIN
from protocol.errors import ProtocolError, explain
from protocol.jobs import JobSpec

LARGEST_CHUNK = 1000
"""Jobs in one chunk at most; scripts refuse one with more."""

# As many as a worker takes on of jobs that end at once; of slower ones it cuts off what it has room for (claim.lua).
# 10,000 no-op jobs went 1.2 to 2 times as fast as in two chunks for each slot, which was the rule before.
LARGEST_AMONG_WORKERS = 256
# A chunk is cut at this size too, so that jobs with large arguments do not travel in lumps that block Redis.
CHUNK_BYTES = 1 << 18

_ROWS = b',"args":'
_JOINT = b",\n"

_jobs: TypeAdapter[tuple[JobSpec[Any], ...]] = TypeAdapter(tuple[JobSpec[Any], ...])


class _Head(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    function: str
    names: list[str] | None = None


_rows: TypeAdapter[list[list[Any]]] = TypeAdapter(list[list[Any]])


class Calls(Sequence[JobSpec[Any]]):
    """Jobs that differ in nothing but their positional arguments; each is made when it is asked for.

    Args:
        function: The function that all of them call.
        names: The parameters that they give, in order; None if their producer did not know.
        data: Their arguments, a JSON array of arrays.

    Raises:
        pydantic.ValidationError: If these bytes are no rows of arguments.
    """

    def __init__(self, function: str, names: Sequence[str] | None, data: bytes) -> None:
        self.alike: JobSpec[Any] = JobSpec(function=function)
        self._names = names
        self._data = data
        self._rows = _rows.validate_json(data)
        if names is not None and any(len(row) != len(names) for row in self._rows):
            raise ValueError(f"a row that is not of the {len(names)} arguments {', '.join(names)}")

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, at: int) -> JobSpec[Any]: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[JobSpec[Any]]: ...
    def __getitem__(self, at: int | slice) -> JobSpec[Any] | Sequence[JobSpec[Any]]:
        if isinstance(at, slice):
            return [self[number] for number in range(*at.indices(len(self)))]
        row = self._rows[at]
        if self._names is None:
            return JobSpec(function=self.alike.function, args=tuple(row))
        return JobSpec(function=self.alike.function, kwargs=dict(zip(self._names, row, strict=True)))

    @cached_property
    def arguments(self) -> list[tuple[Any, ...]] | None:
        """What each is to be called with, by position; None where they must be looked at one by one."""
        signature = signatures.known(self.alike.function)
        columns = signature and signature.columns(len(self._rows[0]), self._names)
        try:
            return columns.decode(self._data) if columns else None
        except Exception:  # noqa: BLE001  # the validators of a job's own types may raise anything: one by one tells
            return None


def encode_calls(function: str, arguments: list[tuple[Any, ...]], limit_bytes: int) -> bytes | None:
    """Write a chunk of jobs that differ in nothing but their positional arguments.

    Returns:
        None where that cannot be: they are for `encode_job`, one by one, which tells what is wrong with which.
    """
    signature, count = signatures.known(function), len(arguments[0])
    try:
        if signature is None:
            names, rows = None, PLAIN.dump_json(arguments)
        elif columns := signature.columns(count):
            names, rows = signature.positional[:count], columns.encode(arguments)
        else:
            return None
        rows = _joined(rows, len(arguments))
    except Exception:  # noqa: BLE001  # the validators of a job's own types may raise anything
        return None
    if len(rows) > limit_bytes:
        return None
    return b"%b%b%b}" % (_head(function, names), _ROWS, rows)


@lru_cache(64)  # 2 us a chunk
def _head(function: str, names: tuple[str, ...] | None) -> bytes:
    head = {"function": function} if names is None else {"function": function, "names": names}
    return to_json(head)[:-1]


def _joined(rows: bytes, count: int) -> bytes:
    """Put a line break between rows, which pydantic writes without one."""
    # Costs 2 us for 256 rows, where to write them one by one costs 100.
    if rows.count(b"],[") == count - 1:
        return rows.replace(b"],[", b"]" + _JOINT + b"[")
    # The same bytes stand in an argument, too.
    return encode_jobs(to_json(row) for row in from_json(rows))


def encode_jobs(jobs: Iterable[bytes]) -> bytes:
    """Write a chunk of jobs that were encoded one by one."""
    return b"[%b]" % _JOINT.join(jobs)


def decode_chunk(first: int, data: bytes, key: str) -> Sequence[JobSpec[Any]]:
    """Read a chunk's jobs; there is at least one.

    Args:
        first: Index of its first job.
        data: The bytes.
        key: Where they were found, for messages.

    Raises:
        ProtocolError: If these bytes are no chunk; names `key`.
    """
    try:
        jobs = _decode(data)
    except (ValidationError, ValueError) as error:
        what = explain(error, 1) if isinstance(error, ValidationError) else str(error)
        raise ProtocolError(key, f"field {first}: {what}") from None
    if not jobs:
        raise ProtocolError(key, f"field {first}: no jobs")
    return jobs


def decode_job(first: int, index: int, data: bytes, key: str) -> Sequence[JobSpec[Any]]:
    """Read a single job of a chunk as a chunk of its own, and none of the others, of which there may be 1,000.

    Args:
        first: Index of the chunk's first job.
        index: The job's.
        data: The bytes.
        key: Where they were found, for messages.

    Returns:
        That job; none if the chunk ends before it.

    Raises:
        ProtocolError: If these bytes are no chunk; names `key`.
    """
    head, joint, _ = data.partition(_ROWS) if data.startswith(b"{") else (b"", b"", b"")
    opening, closing = head + joint + b"[", b"]}" if joint else b"]"
    texts = data.split(_JOINT)
    at = index - first
    if at < len(texts) and data.startswith(opening) and data.endswith(closing):
        begin, end = len(opening) if at == 0 else 0, -len(closing) if at == len(texts) - 1 else None
        found = decode_chunk(first, opening + texts[at][begin:end] + closing, key)
        if len(found) == 1:
            return found
    # Others than we may join them without a line break.
    return decode_chunk(first, data, key)[at : at + 1]


@lru_cache(64)  # all chunks of a batch begin alike
def _read_head(head: bytes) -> _Head:
    return _Head.model_validate(from_json(head + b"}"))


def _decode(data: bytes) -> Sequence[JobSpec[Any]]:
    if not data.startswith(b"{"):
        return _jobs.validate_json(data)
    # Inside a JSON string there is no bare quotation mark, so this stands nowhere but where we have put it.
    head, _, rows = data.partition(_ROWS)
    about = _read_head(head)
    return Calls(about.function, about.names, rows[:-1])
