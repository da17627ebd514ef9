"""Results as rows of a table: the columns that each has, and one for each field of a value that is a flat model.

A value is flat where the return type of its function is at hand and is a model, a dataclass or a TypedDict of scalars
only. Its fields stand in columns of their own, `value.<field>`; a value that does not fit them, such as one of another
function, stands in the column `value`, as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError, to_json

from protocol import signatures
from protocol.errors import ArgumentsError
from protocol.results import Result, SuccessResult

Kind = Literal["int", "float", "bool", "str", "datetime", "date"]

COLUMNS: dict[str, Kind] = {
    "index": "int", "key": "str", "status": "str", "function": "str", "attempt": "int", "worker": "str",
    "enqueued_at": "float", "started_at": "float", "finished_at": "float", "duration": "float", "value": "str",
    "limit": "float", "phase": "str", "stopped": "str", "error_type": "str", "message": "str", "reason": "str",
}  # fmt: skip
"""The columns that every table has, and what stands in them. Times are Unix s."""

FIELD = "value."
"""How the column of a value's field begins."""

_TYPES: dict[str, Kind] = {"integer": "int", "number": "float", "boolean": "bool", "string": "str"}
_FORMATS: dict[str, Kind] = {"date-time": "datetime", "date": "date"}


def columns_of(function: str) -> dict[str, Kind]:
    """Name the columns of a table whose values are mostly this function's."""
    return {**COLUMNS, **{f"{FIELD}{name}": kind for name, kind in _flat_fields(function).items()}}


def cells(result: Result[Any], columns: Mapping[str, Kind]) -> dict[str, Any]:
    """Write a result's row: column to cell; what has none is left out."""
    found = {name: value for name, value in result if name != "value"}
    found["duration"] = result.duration
    if isinstance(result, SuccessResult):
        text = value_json(result)
        spread = fields_of(json.loads(text), columns) if len(columns) > len(COLUMNS) else None
        found.update(spread or {"value": text})
    return found


def fields_of(value: Any, columns: Mapping[str, Kind]) -> dict[str, Any] | None:
    """Spread a value, as JSON gives it, over the columns of its fields; None or nothing if it does not fit them."""
    if not isinstance(value, dict):
        return None
    fields = {f"{FIELD}{name}": field for name, field in value.items()}
    fits = fields.keys() <= columns.keys() and not any(isinstance(field, dict | list) for field in fields.values())
    return fields if fits else None


def value_json(result: SuccessResult[Any]) -> str:
    """Write a value as it travelled: by its function's annotation where that is at hand; else as well as can be."""
    signature = signatures.known(result.function)
    try:
        if signature is not None and not signature.returns_plain_json:
            return signature.encode_value(result.value)[len(b'{"value":') : -1].decode()
        return to_json(result.value, bytes_mode="base64", inf_nan_mode="constants").decode()
    except (PydanticSerializationError, ValidationError, ValueError):
        return _some_json(result.value)


def _flat_fields(function: str) -> dict[str, Kind]:
    """Say what the fields of a function's value are, if it is flat."""
    signature = signatures.known(function)
    if signature is None:
        return {}
    try:
        schema = signature.returned_schema()
    except ArgumentsError:
        return {}
    names = schema.get("$defs", {})
    kinds = {name: _kind(field, names) for name, field in _only_choice(schema, names).get("properties", {}).items()}
    return {name: kind for name, kind in kinds.items() if kind} if all(kinds.values()) else {}


def _only_choice(schema: Mapping[str, Any], names: Mapping[str, Any]) -> Mapping[str, Any]:
    """Find what a schema is where it is one thing, or null; nothing if it may be one of several."""
    schema = _resolved(schema, names)
    choices = [choice for choice in schema.get("anyOf", [schema]) if choice.get("type") != "null"]
    return _resolved(choices[0], names) if len(choices) == 1 else {}


def _resolved(schema: Mapping[str, Any], names: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = names.get(str(schema.get("$ref", "")).rpartition("/")[2], schema)
    return found


def _kind(schema: Mapping[str, Any], names: Mapping[str, Any]) -> Kind | None:
    """Say what a field is; None if it is no scalar."""
    only = _only_choice(schema, names)
    return _FORMATS.get(str(only.get("format")), _TYPES.get(str(only.get("type"))))


def _some_json(value: Any) -> str:
    try:
        return json.dumps(value, default=repr)
    except (TypeError, ValueError, RecursionError):
        return json.dumps(ascii(value))
