"""Read results from a batch's stream.

A stream entry holds the results of one group (`protocol.recording` writes it): field `common` is a JSON object of what
all of them share (function, worker, ...), field `indexes` tells their jobs, and the others are JSON arrays: either
`rows`, objects with what each adds, or, of successes that are alike, the columns `started` (us after `common`'s `at`),
`took` (us) and `values`. A batch's last entry has the one field `end`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from pydantic_core import from_json

from protocol import signatures
from protocol.errors import ProtocolError, explain
from protocol.recording import decode_indexes
from protocol.results import CancelledResult, FailureResult, LostResult, Result, SuccessResult, TimeoutResult

_results: TypeAdapter[list[Any]] = TypeAdapter(
    list[
        Annotated[
            SuccessResult[Any] | TimeoutResult | FailureResult | CancelledResult | LostResult,
            Field(discriminator="status"),
        ]
    ]
)


def decode_entry(batch_id: str, entry: Mapping[bytes, bytes], key: str) -> list[Result[Any]]:
    """Read the results of one stream entry, values as the types their functions declare, where these are at hand.

    Raises:
        ProtocolError: If these bytes are no results; names `key`.
    """
    with reading(key):
        if b"values" in entry:
            return _read_successes(batch_id, entry, key)
        common, rows = from_json(entry[b"common"]), from_json(entry[b"rows"])
        return list(_typed(read_rows(batch_id, common, rows), key))


@contextmanager
def reading(key: str) -> Iterator[None]:
    """Say of bytes that are no results where they stand."""
    try:
        yield
    except ValidationError as error:
        raise ProtocolError(key, explain(error, 1)) from None
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ProtocolError(key, f"an entry that holds no results ({type(error).__name__}: {error})") from None


def read_rows(batch_id: str, common: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> list[Result[Any]]:
    """Read results that stand as rows, values as plain JSON.

    Raises:
        ValidationError: If they are none; TypeError, KeyError: as before.
    """
    return _results.validate_python([{**common, **row, "job_id": f"{batch_id}:{row['index']}"} for row in rows])


class _Common(BaseModel):
    """What successes that are alike share; `at` is what their times count from, us after 1970."""

    function: str
    worker: str | None = None
    enqueued_at: float | None = None
    at: int


_numbers: TypeAdapter[list[int]] = TypeAdapter(list[int])
_FIELDS = {
    "job_id", "index", "function", "worker", "enqueued_at", "started_at", "finished_at", "status", "value",
}  # fmt: skip


class Columns(NamedTuple):
    """Successes that are alike, as they stand in an entry, but for their values.

    Args:
        function: What they have called.
        worker: Where they ran.
        enqueued_at: When they were submitted, Unix s.
        at: What `started` counts from, us after 1970.
        indexes: Their jobs.
        started: When each started, us.
        took: How long each ran, us.
    """

    function: str
    worker: str | None
    enqueued_at: float | None
    at: int
    indexes: list[int]
    started: list[int]
    took: list[int]


def read_columns(entry: Mapping[bytes, bytes]) -> Columns:
    """Read an entry of successes that are alike, which has `values`.

    Raises:
        ValidationError: If it is none; KeyError, ValueError: as before.
    """
    common = _Common.model_validate_json(entry[b"common"])
    indexes = decode_indexes(entry[b"indexes"].decode())
    starts, took = _numbers.validate_json(entry[b"started"]), _numbers.validate_json(entry[b"took"])
    if not len(indexes) == len(starts) == len(took):
        raise ValueError(f"{len(indexes)} jobs, {len(starts)} starts, {len(took)} run times")
    return Columns(common.function, common.worker, common.enqueued_at, common.at, indexes, starts, took)


def _read_successes(batch_id: str, entry: Mapping[bytes, bytes], key: str) -> list[Result[Any]]:
    function, worker, enqueued_at, at, indexes, starts, took = read_columns(entry)
    values = _read_values(batch_id, function, indexes, entry[b"values"], key)
    found: list[Result[Any]] = []
    # What is made of columns is of the right types already: validation would take 1.5 us a result, this takes 0.9.
    for index, start, took_us, value in zip(indexes, starts, took, values, strict=True):
        result: SuccessResult[Any] = _new(SuccessResult)
        fields = {
            "job_id": f"{batch_id}:{index}", "index": index, "key": None, "function": function, "attempt": 1,
            "worker": worker, "enqueued_at": enqueued_at, "started_at": (at + start) / 1e6,
            "finished_at": (at + start + took_us) / 1e6, "status": "success", "value": value,
        }  # fmt: skip
        _set(result, "__dict__", fields)
        _set(result, "__pydantic_fields_set__", _FIELDS)
        _set(result, "__pydantic_extra__", None)
        _set(result, "__pydantic_private__", None)
        found.append(result)
    return found


_new = object.__new__
_set = object.__setattr__


def _read_values(batch_id: str, function: str, indexes: list[int], data: bytes, key: str) -> list[Any]:
    signature = signatures.known(function)
    if signature is None or signature.returns_plain_json:
        return list(from_json(data))
    try:
        return signature.decode_values(data)
    except ValidationError as error:
        number = error.errors(include_url=False, include_context=False, include_input=False)[0]["loc"][0]
        raise _other_version(key, f"{batch_id}:{indexes[int(number)]}", function, error) from None


def _typed(results: list[Result[Any]], key: str) -> Iterator[Result[Any]]:
    for result in results:
        signature = signatures.known(result.function)
        if signature is None or signature.returns_plain_json or not isinstance(result, SuccessResult):
            yield result
            continue
        try:
            yield result.model_copy(update={"value": signature.decode_value(result.value)})
        except ValidationError as error:
            raise _other_version(key, result.job_id, result.function, error) from None


def _other_version(key: str, job_id: str, function: str, error: ValidationError) -> ProtocolError:
    return ProtocolError(
        key,
        f"the value of job {job_id} does not fit what {function!r} returns here ({explain(error, 1)}); "
        "have the workers another version of it?",
    )
