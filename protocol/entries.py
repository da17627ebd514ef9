"""Read results from a batch's stream.

A stream entry holds the results of one group (`protocol.recording` writes it): field `common` is a JSON object of what
all of them share (function, worker, ...), field `indexes` tells their jobs, and the others are JSON arrays: either
`rows`, objects with what each adds, or, of successes that are alike, the columns `started` (us after `common`'s `at`),
`took` (us) and `values`, and where any has its own `keys` and `functions` (null: `common`'s). A batch's last entry has
the one field `end`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import repeat
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

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
_texts: TypeAdapter[list[str | None]] = TypeAdapter(list[str | None])
_FIELDS = {
    "job_id", "index", "function", "worker", "enqueued_at", "started_at", "finished_at", "status", "value",
}  # fmt: skip
_KEYED_FIELDS = {*_FIELDS, "key"}


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
        keys: What their producer calls each; None: none has a key.
        functions: What each has called; None: all the same.
    """

    function: str
    worker: str | None
    enqueued_at: float | None
    at: int
    indexes: list[int]
    started: list[int]
    took: list[int]
    keys: list[str | None] | None = None
    functions: list[str] | None = None


def read_columns(entry: Mapping[bytes, bytes]) -> Columns:
    """Read an entry of successes that are alike, which has `values`.

    Raises:
        ValidationError: If it is none; KeyError, ValueError: as before.
    """
    common = _Common.model_validate_json(entry[b"common"])
    indexes = decode_indexes(entry[b"indexes"].decode())
    starts, took = _numbers.validate_json(entry[b"started"]), _numbers.validate_json(entry[b"took"])
    names, functions = _read_texts(entry, b"keys"), _read_texts(entry, b"functions")
    for column in (starts, took, names, functions):
        if column is not None and len(column) != len(indexes):
            raise ValueError(f"{len(indexes)} jobs, and a column of {len(column)}")
    called = None if functions is None else [name or common.function for name in functions]
    return Columns(common.function, common.worker, common.enqueued_at, common.at, indexes, starts, took, names, called)


def _read_texts(entry: Mapping[bytes, bytes], column: bytes) -> list[str | None] | None:
    return _texts.validate_json(entry[column]) if column in entry else None


def _read_successes(batch_id: str, entry: Mapping[bytes, bytes], key: str) -> list[Result[Any]]:
    columns = read_columns(entry)
    _, worker, enqueued_at, at, indexes, starts, took, *_ = columns
    values = _read_values(batch_id, columns, entry[b"values"], key)
    names: Iterable[str | None] = columns.keys or repeat(None, len(indexes))
    functions: Iterable[str] = columns.functions or repeat(columns.function, len(indexes))
    found: list[Result[Any]] = []
    # What is made of columns is of the right types already: validation would take 1.5 us a result, this takes 0.9.
    for index, start, took_us, value, name, function in zip(
        indexes, starts, took, values, names, functions, strict=True
    ):
        result: SuccessResult[Any] = _new(SuccessResult)
        fields = {
            "job_id": f"{batch_id}:{index}", "index": index, "key": name, "function": function, "attempt": 1,
            "worker": worker, "enqueued_at": enqueued_at, "started_at": (at + start) / 1e6,
            "finished_at": (at + start + took_us) / 1e6, "status": "success", "value": value,
        }  # fmt: skip
        _set(result, "__dict__", fields)
        _set(result, "__pydantic_fields_set__", _FIELDS if name is None else _KEYED_FIELDS)
        _set(result, "__pydantic_extra__", None)
        _set(result, "__pydantic_private__", None)
        found.append(result)
    return found


_new = object.__new__
_set = object.__setattr__


def _read_values(batch_id: str, columns: Columns, data: bytes, key: str) -> list[Any]:
    if columns.functions is None:
        return _read_values_of(batch_id, columns.function, columns.indexes, data, key)
    values: list[Any] = from_json(data)
    if len(values) != len(columns.indexes):
        raise ValueError(f"{len(columns.indexes)} jobs, {len(values)} values")
    for function in set(columns.functions):
        if not _has_plain_values(function):
            places = [place for place, name in enumerate(columns.functions) if name == function]
            own = to_json([values[place] for place in places], inf_nan_mode="constants")
            indexes = [columns.indexes[place] for place in places]
            for place, value in zip(places, _read_values_of(batch_id, function, indexes, own, key), strict=True):
                values[place] = value
    return values


def _has_plain_values(function: str) -> bool:
    signature = signatures.known(function)
    return signature is None or signature.returns_plain_json


def _read_values_of(batch_id: str, function: str, indexes: Sequence[int], data: bytes, key: str) -> list[Any]:
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
