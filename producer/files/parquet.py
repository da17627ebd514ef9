"""From a file of results as jsonl to a parquet file, with typed columns.

Needs pyarrow (`pip install straggler[parquet]`). The parquet file is whole or not there: it is written under another
name, and takes its own in one step.
"""

# ruff: noqa: PLC0415  # pyarrow is an extra, and large: it is imported where it is needed

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from producer.files.tables import COLUMNS, Kind, columns_of, fields_of
from protocol.errors import OptionError

# Rows of one row group: so much is held in memory.
_ROWS_A_GROUP = 20_000
_MOMENTS = ("enqueued_at", "started_at", "finished_at")
_INT64 = range(-(1 << 63), 1 << 63)


def require() -> None:
    """Make sure that parquet files can be written.

    Raises:
        OptionError: If pyarrow is not installed.
    """
    if find_spec("pyarrow") is None:
        raise OptionError("a .parquet file needs pyarrow: pip install 'straggler[parquet]'")


def gathering(target: str) -> Path:
    """Name the file in which a parquet file's rows gather, as jsonl, until it can be written."""
    return Path(f"{target}.partial")


def write(rows: Path, target: Path) -> None:
    """Write the results that a jsonl file holds.

    Raises:
        OSError: If the target cannot be written.
    """
    from pyarrow import RecordBatch
    from pyarrow.parquet import ParquetWriter

    columns = columns_of(_first_function(rows))
    schema = _schema(columns)
    fresh = target.with_name(f"{target.name}.new")
    try:
        with ParquetWriter(fresh, schema, compression="zstd") as writer:
            for group in _groups(rows):
                made = [_row(result, columns) for result in group]
                arrays = [_array(schema.field(name), [row.get(name) for row in made]) for name in columns]
                writer.write_batch(RecordBatch.from_arrays(arrays, schema=schema))
        fresh.replace(target)
    finally:
        fresh.unlink(missing_ok=True)


def _first_function(rows: Path) -> str:
    """Find the function whose values get columns: the first that has succeeded."""
    with rows.open("rb") as file:
        return next((str(row["function"]) for row in map(_parse, file) if row["status"] == "success"), "")


def _groups(rows: Path) -> Iterator[list[dict[str, Any]]]:
    with rows.open("rb") as file:
        while group := [_parse(line) for line in islice(file, _ROWS_A_GROUP)]:
            yield group


def _parse(line: bytes) -> dict[str, Any]:
    row: dict[str, Any]
    try:
        row = from_json(line)
    except ValueError:  # a lone surrogate, which json takes, but no column of text
        row = json.loads(line)
        row |= {name: cell.encode(errors="backslashreplace").decode() for name, cell in _texts(row)}
    return row


def _texts(row: dict[str, Any]) -> Iterator[tuple[str, str]]:
    return ((name, cell) for name, cell in row.items() if name in COLUMNS and isinstance(cell, str))


def _row(result: dict[str, Any], columns: Mapping[str, Kind]) -> dict[str, Any]:
    row = {name: cell for name, cell in result.items() if name in COLUMNS and name != "value"}
    started, finished = row.get("started_at"), row.get("finished_at")
    row["duration"] = None if started is None or finished is None else round(finished - started, 6)
    row |= {name: round(row[name] * 1_000_000) for name in _MOMENTS if row.get(name) is not None}
    if result["status"] == "success":
        row |= _fields(result["value"], columns)
    return row


def _fields(value: Any, columns: Mapping[str, Kind]) -> dict[str, Any]:
    found = fields_of(value, columns)
    try:
        if found:
            return {name: None if cell is None else _READ[columns[name]](cell) for name, cell in found.items()}
    except (TypeError, ValueError, OverflowError):  # what its function's annotation promises is not so
        pass
    return {"value": json.dumps(value, separators=(",", ":"))}


def _schema(columns: Mapping[str, Kind]) -> Any:
    import pyarrow as pa

    moment = pa.timestamp("us", tz="UTC")
    types = {
        "int": pa.int64(), "float": pa.float64(), "bool": pa.bool_(), "str": pa.string(),
        "datetime": moment, "date": pa.date32(),
    }  # fmt: skip
    fields = [(name, moment if name in _MOMENTS else types[kind]) for name, kind in columns.items()]
    return pa.schema(fields)


def _array(field: Any, cells: list[Any]) -> Any:
    import pyarrow as pa

    return pa.array(cells, type=field.type)


def _integer(cell: Any) -> int:
    if not isinstance(cell, int) or cell not in _INT64:
        raise ValueError(cell)
    return cell


def _number(cell: Any) -> float:
    if not isinstance(cell, int | float):
        raise TypeError(cell)
    return float(cell)


def _truth(cell: Any) -> bool:
    if not isinstance(cell, bool):
        raise TypeError(cell)
    return cell


def _text(cell: Any) -> str:
    if not isinstance(cell, str):
        raise TypeError(cell)
    cell.encode()  # a lone surrogate is no text
    return cell


def _moment(cell: Any) -> dt.datetime:
    """Read a time; one that names no zone is taken for UTC."""
    moment = dt.datetime.fromisoformat(_text(cell))
    return moment.replace(tzinfo=dt.UTC) if moment.tzinfo is None else moment


def _day(cell: Any) -> dt.date:
    return dt.date.fromisoformat(_text(cell))


_READ: dict[Kind, Callable[[Any], Any]] = {
    "int": _integer, "float": _number, "bool": _truth, "str": _text, "datetime": _moment, "date": _day,
}  # fmt: skip
