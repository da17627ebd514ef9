"""Results to a file, `.jsonl`, `.csv` or `.parquet`, each row on disk as soon as its result came.

A collector that is killed has lost nothing that it had written, and one that goes on with the same file writes nothing
twice (`producer.files.bookmark`). Whatever a value is, its row is written. A parquet file is of use only once it is
whole: its rows gather as jsonl in a file beside it, and it takes its place at the end in one step.
"""

from __future__ import annotations

import csv
import fcntl
import io
import json
import math
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from pydantic_core import PydanticSerializationError

from producer.files import parquet
from producer.files.bookmark import Bookmark, Mark
from producer.files.tables import COLUMNS, Kind, cells, columns_of, value_json
from protocol.errors import OptionError, StragglerError
from protocol.results import Result, SuccessResult

STDOUT = "-"

_SUFFIXES = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".parquet": "parquet"}
# How often, s, it is written down how far a file is: what a killed collector wrote after that is collected again.
_MARK_INTERVAL = 1.0


class ExportError(StragglerError):
    """Results cannot be written; they are still in Redis."""


class Export:
    """Write results to a file, or to stdout as jsonl. A context manager.

    What the file held stays until `begin`, so that a command which fails before its batch begins has cost nothing.

    Args:
        target: `*.jsonl`, `*.csv`, `*.parquet` or `-`.
        append: Whether to write behind what the file holds; else it is overwritten.

    Raises:
        OptionError: If the name is none of these, or what a parquet file needs is not installed.
        ExportError: If the file cannot be opened.
    """

    def __init__(self, target: str, *, append: bool = False) -> None:
        self.target = target
        self._append = append
        self._format = _find_format(target)
        self._path = parquet.gathering(target) if self._format == "parquet" else Path(target)
        self._file: TextIO | None = None if target == STDOUT else self._open()
        # A pipe or a device has no end to go back from.
        self._bookmark = Bookmark(self._path) if self._file and self._path.is_file() else None
        self._columns: dict[str, Kind] = {}
        self._mark: Mark | None = None
        self._cursor = ""
        self._kept = 0
        self._marked_at = -math.inf
        self._is_begun = self._is_complete = self._is_torn = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._file is None:
            return
        try:
            if self._is_begun and not self._is_torn:
                self._conclude()
        finally:
            # Every row is flushed as it is written; what may be left is a row that could not be, which was said then.
            with suppress(OSError):
                self._file.close()
            if self._format == "parquet" and not self._path.stat().st_size:
                self._path.unlink()

    def find_cursor(self, batch_id: str) -> str | None:
        """Find up to where an earlier collector has written this batch into this file; None if it is to be begun.

        From now on it is written down how far the file is.

        Raises:
            ExportError: If another process is just writing to it.
        """
        if self._bookmark is None or self._file is None:
            return None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ExportError(f"another process is writing results to {self._name}") from None
        found = self._bookmark.find(batch_id)
        self._mark = found or Mark(batch=batch_id, cursor="0-0", size=0)
        self._kept = self._mark.size
        return found.cursor if found else None

    def begin(self) -> None:
        """Empty the file, or go to its end, or to where an earlier collector has left it."""
        self._is_begun = True
        if self._file is None or self._bookmark is None:
            return
        if not self._append:
            if not self._kept:
                self._bookmark.remove()
            self._file.truncate(self._kept)
        if self._format == "csv" and self._path.stat().st_size:
            with self._path.open(encoding="utf-8", newline="") as file:
                self._columns = dict.fromkeys(next(csv.reader(file)), "str")

    def write(self, result: Result[Any]) -> None:
        """Write one result.

        Raises:
            ExportError: If the file cannot take it.
        """
        if self._format == "csv":
            if not self._columns:
                self._put_header(columns_of(result.function))
            self._put(_csv_row(result, self._columns))
        else:
            self._put(_json_row(result))

    def mark(self, cursor: str) -> None:
        """Take note that all results up to here are written; most calls cost nothing.

        Raises:
            ExportError: If the disk is full.
        """
        self._cursor = cursor
        if self._mark is not None and time.monotonic() - self._marked_at >= _MARK_INTERVAL:
            self._write_mark(self._mark)

    def complete(self) -> None:
        """Take note that all results of the batch are written."""
        self._is_complete = True

    def _conclude(self) -> None:
        if self._format == "csv" and not self._columns:
            self._put_header(COLUMNS)
        if self._mark is not None and not self._is_complete:
            self._write_mark(self._mark)
            return
        if self._format == "parquet":  # all there is, where nobody can go on
            with self._saying():
                parquet.write(self._path, Path(self.target))
        if self._bookmark is not None and not self._append:
            self._bookmark.remove()
        if self._format == "parquet" and self._file is not None:
            self._file.truncate(0)

    def _write_mark(self, mark: Mark) -> None:
        if self._file is None or self._bookmark is None:
            return
        self._marked_at = time.monotonic()
        with self._saying():
            size = self._path.stat().st_size
            at = {"cursor": self._cursor or mark.cursor, "size": size}
            self._bookmark.put(mark.model_copy(update=at), self._file.fileno())

    def _put_header(self, columns: dict[str, Kind]) -> None:
        self._columns = columns
        self._put(_csv_line(columns))

    def _put(self, row: str) -> None:
        with self._saying():
            file = self._file or sys.stdout
            self._is_torn = True
            file.write(row)
            file.flush()
            self._is_torn = False

    def _open(self) -> TextIO:
        with self._saying():
            # A lone surrogate in a key or a message must not lose its row.
            return self._path.open("a", encoding="utf-8", errors="backslashreplace", newline="")

    @contextmanager
    def _saying(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ExportError(f"results cannot be written to {self._name}: {error.strerror or error}") from None

    @property
    def _name(self) -> str:
        return "stdout" if self.target == STDOUT else self.target


def _find_format(target: str) -> str:
    suffix = Path(target).suffix.lower()
    if target == STDOUT:
        return "jsonl"
    if suffix not in _SUFFIXES:
        raise OptionError(
            f"--out {target}: results are written as .jsonl, .csv or .parquet, or as jsonl to stdout with '-'"
        )
    if suffix == ".parquet":
        parquet.require()
    return _SUFFIXES[suffix]


def _json_row(result: Result[Any]) -> str:
    if isinstance(result, SuccessResult):
        return f'{_json_object(result)[:-1]},"value":{value_json(result)}}}\n'
    return f"{_json_object(result)}\n"


def _json_object(result: Result[Any]) -> str:
    """Write all fields but the value."""
    try:
        return result.model_dump_json(exclude={"value"})
    except PydanticSerializationError:  # a lone surrogate in a key or a message, which json can escape
        return json.dumps(result.model_dump(exclude={"value"}), separators=(",", ":"))


def _csv_row(result: Result[Any], columns: Mapping[str, Kind]) -> str:
    found = cells(result, columns)
    return _csv_line([_plain(found.get(name)) for name in columns])


def _plain(cell: Any) -> Any:
    return str(cell).lower() if isinstance(cell, bool) else cell


def _csv_line(cells: Any) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()
