"""Rows of a file: `txt` (a line, an argument), `jsonl` (object, array or scalar), `csv` (a header of names).

A file is streamed, never held. A row that cannot be read comes as a `BadRow`, and the reading goes on after it. Blank
lines are no rows. Files are UTF-8, with or without a byte order mark, and end their lines in LF or CRLF.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Literal, TypeAlias, get_args

from pydantic_core import from_json

from protocol.errors import InputError, shorten

Format: TypeAlias = Literal["txt", "jsonl", "csv"]
FORMATS: tuple[Format, ...] = get_args(Format)

# A file without line ends (a JSON array of gigabytes, a disk image) must not be read into memory as its first line.
# JSON may write one byte of an argument as six: this leaves room for every row that the limit on arguments allows.
_LONGEST_LINE = 8 << 20
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Row:
    """One row: arguments by place or by name, and its first value."""

    line: int
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    first: Any = None


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be read: the line it begins on, and why."""

    line: int
    problem: str


def read_rows(
    file: BinaryIO, written_as: Format, check_header: Callable[[int, list[str]], None]
) -> Iterator[Row | BadRow]:
    """Read a file's rows, one by one.

    Args:
        file: Read from where it is.
        written_as: How rows are written.
        check_header: Called with the line and the names of a csv's header; raises if they cannot be.

    Raises:
        InputError: If a csv's header cannot be read.
    """
    if written_as == "csv":
        return _csv_rows(file, check_header)
    return _jsonl_rows(file) if written_as == "jsonl" else _txt_rows(file)


def _lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield each line with its number, without a byte order mark; of a line that is far too long only its beginning."""
    number = 0
    while line := file.readline(_LONGEST_LINE):
        number += 1
        yield number, line.removeprefix(_BOM) if number == 1 else line
        while len(line) == _LONGEST_LINE and not line.endswith(b"\n"):
            line = file.readline(_LONGEST_LINE)


def _text_lines(file: BinaryIO) -> Iterator[tuple[int, str] | BadRow]:
    for number, line in _lines(file):
        if len(line) >= _LONGEST_LINE:
            yield BadRow(number, f"longer than {_LONGEST_LINE:,} bytes; {_starts(line)}")
            continue
        try:
            text = line.decode().rstrip("\r\n")
        except UnicodeDecodeError as error:
            yield BadRow(number, f"not UTF-8: byte 0x{line[error.start]:02x} at {error.start + 1}; {_starts(line)}")
            continue
        if text.strip():
            yield number, text


def _txt_rows(file: BinaryIO) -> Iterator[Row | BadRow]:
    for line in _text_lines(file):
        yield line if isinstance(line, BadRow) else Row(line[0], args=(line[1],), first=line[1])


def _jsonl_rows(file: BinaryIO) -> Iterator[Row | BadRow]:
    for line in _text_lines(file):
        if isinstance(line, BadRow):
            yield line
            continue
        number, text = line
        try:
            value = from_json(text)
        except ValueError as error:
            yield BadRow(number, f"not JSON: {error}; {_starts(text)}")
        else:
            yield _json_row(number, value)


def _json_row(line: int, value: Any) -> Row:
    if isinstance(value, dict):
        return Row(line, kwargs=value, first=next(iter(value.values()), None))
    if isinstance(value, list):
        return Row(line, args=tuple(value), first=value[0] if value else None)
    return Row(line, args=(value,), first=value)


def _csv_rows(file: BinaryIO, check_header: Callable[[int, list[str]], None]) -> Iterator[Row | BadRow]:
    header: list[str] | None = None
    for line, cells in _csv_records(file):
        if header is not None:
            yield cells if isinstance(cells, BadRow) else _csv_row(line, header, cells)
        elif isinstance(cells, BadRow):
            raise InputError(f"the header, line {line}: {cells.problem}")
        else:
            header = [cell.strip() for cell in cells]
            check_header(line, header)


def _csv_records(file: BinaryIO) -> Iterator[tuple[int, list[str] | BadRow]]:
    """Yield what a csv reader reads, blank lines aside, with the number of the line that it begins on."""
    # The default of 131,072 bytes is below what a job may be given.
    csv.field_size_limit(_LONGEST_LINE)
    # Bytes that are not UTF-8 go through the reader as lone surrogates, so that a bad row costs itself only.
    reader = csv.reader((line.decode(errors="surrogateescape") for _, line in _lines(file)), strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield line, BadRow(line, f"not CSV: {error} (read up to line {reader.line_num})")
            continue
        not_utf8 = next((cell for cell in cells if not _is_utf8(cell)), None)
        if not_utf8 is not None:
            yield line, BadRow(line, f"not UTF-8: {not_utf8.encode(errors='surrogateescape')[:60]!r}")
        elif cells:
            yield line, cells


def _csv_row(line: int, header: list[str], cells: list[str]) -> Row | BadRow:
    if len(cells) != len(header):
        return BadRow(line, f"{len(cells)} fields where the header has {len(header)}; {_starts(','.join(cells))}")
    # CSV cannot write "nothing", so an empty cell is an argument that is not given.
    kwargs = {name: cell for name, cell in zip(header, cells, strict=True) if cell}
    return Row(line, kwargs=kwargs, first=cells[0])


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _starts(text: str | bytes) -> str:
    return f"the row starts {shorten(repr(text[:100]))}"
