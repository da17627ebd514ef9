"""Results to a file, `.jsonl` or `.csv`, each row written and flushed as its result comes.

A collector that is killed has lost nothing that it had written. Whatever a value is, its row is written.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError, to_json

from protocol import signatures
from protocol.errors import OptionError, StragglerError
from protocol.results import Result, SuccessResult

STDOUT = "-"

COLUMNS = (
    "index", "key", "status", "function", "attempt", "worker", "enqueued_at", "started_at", "finished_at", "duration",
    "value", "limit", "phase", "stopped", "error_type", "message", "reason",
)  # fmt: skip


class ExportError(StragglerError):
    """Results cannot be written; they are still in Redis."""


class Export:
    """Write results to a file, or to stdout as jsonl. A context manager.

    What the file held stays until `begin`, so that a command which fails before its batch begins has cost nothing.

    Args:
        target: `*.jsonl`, `*.csv`, or `-`.
        append: Whether to write behind what the file holds; else it is overwritten.

    Raises:
        OptionError: If the name is neither.
        ExportError: If the file cannot be opened.
    """

    def __init__(self, target: str, *, append: bool = False) -> None:
        self.target = target
        self._append = append
        self._encode = _encoder(target)
        self._file: TextIO | None = None if target == STDOUT else self._open()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._file is not None:
            # Every row is flushed as it is written; what may be left is a row that could not be, which was said then.
            with suppress(OSError):
                self._file.close()

    def begin(self) -> None:
        """Empty the file, or go to its end, and write a csv's header where there is none."""
        if self._file is None:
            return
        if not self._append:
            self._file.truncate(0)
        if self._encode is _csv_row and self._file.tell() == 0:
            self._put(_csv_line(COLUMNS))

    def write(self, result: Result[Any]) -> None:
        """Write one result.

        Raises:
            ExportError: If the file cannot take it.
        """
        self._put(self._encode(result))

    def _put(self, row: str) -> None:
        try:
            file = self._file or sys.stdout
            file.write(row)
            file.flush()
        except OSError as error:
            raise ExportError(f"results cannot be written to {self._name}: {error.strerror or error}") from None

    def _open(self) -> TextIO:
        try:
            # A lone surrogate in a key or a message must not lose its row.
            return Path(self.target).open("a", encoding="utf-8", errors="backslashreplace", newline="")
        except OSError as error:
            raise ExportError(f"results cannot be written to {self._name}: {error.strerror or error}") from None

    @property
    def _name(self) -> str:
        return "stdout" if self.target == STDOUT else self.target


def _encoder(target: str) -> Callable[[Result[Any]], str]:
    suffix = Path(target).suffix.lower()
    if target == STDOUT or suffix in (".jsonl", ".ndjson"):
        return _json_row
    if suffix == ".csv":
        return _csv_row
    raise OptionError(f"--out {target}: results are written as .jsonl or .csv, or to stdout with '-'")


def _json_row(result: Result[Any]) -> str:
    if isinstance(result, SuccessResult):
        return f'{_json_object(result)[:-1]},"value":{_value_json(result)}}}\n'
    return f"{_json_object(result)}\n"


def _json_object(result: Result[Any]) -> str:
    """Write all fields but the value."""
    try:
        return result.model_dump_json(exclude={"value"})
    except PydanticSerializationError:  # a lone surrogate in a key or a message, which json can escape
        return json.dumps(result.model_dump(exclude={"value"}), separators=(",", ":"))


def _csv_row(result: Result[Any]) -> str:
    fields = {name: value for name, value in result if name != "value"}
    fields["duration"] = result.duration
    if isinstance(result, SuccessResult):
        fields["value"] = _value_json(result)
    return _csv_line([fields.get(name) for name in COLUMNS])


def _csv_line(cells: Any) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()


def _value_json(result: SuccessResult[Any]) -> str:
    """Write a value as it travelled: by its function's annotation where that is at hand; else as well as can be."""
    signature = signatures.known(result.function)
    try:
        if signature is not None and not signature.returns_plain_json:
            return signature.encode_value(result.value)[len(b'{"value":') : -1].decode()
        return to_json(result.value, bytes_mode="base64", inf_nan_mode="constants").decode()
    except (PydanticSerializationError, ValidationError, ValueError):
        return _some_json(result.value)


def _some_json(value: Any) -> str:
    try:
        return json.dumps(value, default=repr)
    except (TypeError, ValueError, RecursionError):
        return json.dumps(ascii(value))
