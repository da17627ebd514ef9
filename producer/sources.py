"""Rows of a file as jobs: `.txt` (a line, an argument), `.jsonl`, `.csv` (a header of parameter names), or stdin.

A file is streamed, never held. Each row becomes one `JobSpec`, or one `InputError` that names the file, the line, what is
wrong with it and what was there; who reads decides whether such a row ends the work or is passed over.
"""

from __future__ import annotations

import csv
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeAlias, get_args

from pydantic import ValidationError
from pydantic_core import from_json, to_json

from protocol import signatures
from protocol.errors import ArgumentsError, InputError, OptionError, UsageError, explain, shorten
from protocol.jobs import JobSpec, encode_job

Format: TypeAlias = Literal["txt", "jsonl", "csv"]
FORMATS: tuple[Format, ...] = get_args(Format)

STDIN = "-"

_FORMAT_OF = {"": "txt", ".txt": "txt", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv"}
# A file without line ends (a JSON array of gigabytes, a disk image) must not be read into memory as its first line. JSON
# may write one byte of an argument as six, so this leaves room for every row that the limit on arguments allows.
_LONGEST_LINE = 8 << 20
_LONGEST_KEY = 1024
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Row:
    """One row as it was read; `first` is its first value, which names the job where nothing else does."""

    line: int
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    first: Any = None


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be read, and why."""

    line: int
    problem: str


@dataclass(frozen=True, slots=True)
class Source:
    """A file of jobs, or stdin.

    Args:
        path: The file; `-` is stdin.
        format: How its rows are written.
        function: The job's name; rows are checked against its parameters where this process has it at hand.
        key_field: Which field of a row is the job's key; by default its first value is. A field that is no parameter of
            the function is the key only, and no argument.
        limit_bytes: Longest arguments of one job, bytes of JSON.
    """

    path: str
    format: Format
    function: str
    key_field: str | None = None
    limit_bytes: int = 1 << 20

    @property
    def name(self) -> str:
        """What messages call it."""
        return "stdin" if self.path == STDIN else self.path

    @property
    def is_rereadable(self) -> bool:
        """Whether it can be read again from its start: a file, not a pipe."""
        return self.path != STDIN and Path(self.path).is_file()

    def jobs(self, on_bad_row: Callable[[InputError], None], *, validate: bool = True) -> Iterator[JobSpec[Any]]:
        """Read the rows, one by one.

        Args:
            on_bad_row: Called for each row that is no job; raises to end the reading.
            validate: Whether to check each job as its submission will.

        Raises:
            InputError: If the file cannot be read, or its header does not fit the function.
        """
        parameters = _Parameters.of(self.function)
        with self._open() as file:
            for row in _READERS[self.format](self.name, file, parameters, self.key_field):
                try:
                    yield self._job(row, parameters, validate=validate)
                except UsageError as error:
                    on_bad_row(InputError(f"{self.name} line {row.line}: {error}"))

    def check(self, on_progress: Callable[[int], None]) -> int:
        """Read all rows and send nothing.

        Args:
            on_progress: Called with the number of rows read so far, now and then.

        Returns:
            How many jobs there are.

        Raises:
            InputError: For the first row that is no job.
        """
        count = 0
        for count, _ in enumerate(self.jobs(refuse), start=1):  # noqa: B007  # read below
            if count % 10_000 == 0:
                on_progress(count)
        return count

    @contextmanager
    def _open(self) -> Iterator[BinaryIO]:
        # Our own reader on stdin: at exit Python closes sys.stdin's, which a thread may still be waiting on.
        try:
            file = open(0 if self.path == STDIN else self.path, "rb", closefd=self.path != STDIN)  # noqa: SIM115, PTH123
        except OSError as error:
            raise InputError(f"{self.path} cannot be read: {error.strerror or error}") from None
        with file:
            yield file

    def _job(self, row: Row | BadRow, parameters: _Parameters, *, validate: bool) -> JobSpec[Any]:
        if isinstance(row, BadRow):
            raise InputError(row.problem)
        key, kwargs = _as_key(row.first), row.kwargs
        if self.key_field is not None:
            if self.key_field not in kwargs:
                raise InputError(f"no field {self.key_field!r} for the job's key; it has {_listed(kwargs)}")
            key = _as_key(kwargs[self.key_field])
            kwargs = {n: v for n, v in kwargs.items() if n != self.key_field or parameters.take(n)}
        try:
            job: JobSpec[Any] = JobSpec(function=self.function, args=row.args, kwargs=kwargs, key=key)
        except ValidationError as error:
            raise ArgumentsError(explain(error)) from None
        if validate:
            encode_job(job, self.limit_bytes)
        return job


def refuse(error: InputError) -> None:
    """End the reading at a bad row.

    Raises:
        InputError: Always, with the cure.
    """
    raise InputError(f"{error} (--skip-bad-rows goes on without such rows)")


def find_format(path: str, given: str | None) -> Format:
    """Tell a file's format: the one given, or by its name.

    Raises:
        OptionError: If there is no such format, or the name tells none.
    """
    found = given if given is not None else _FORMAT_OF.get(Path(path).suffix.lower())
    for known in FORMATS:
        if found == known:
            return known
    if given is not None:
        raise OptionError(f"no format {given!r}: use {', '.join(FORMATS)}")
    raise OptionError(f"{path!r}: the format cannot be told from the name, say --format {'|'.join(FORMATS)}")


@dataclass(frozen=True, slots=True)
class _Parameters:
    """A function's parameters as far as this process knows them: None where it does not have the function."""

    names: tuple[str, ...] | None
    takes_any: bool = True

    @classmethod
    def of(cls, function: str) -> _Parameters:
        signature = signatures.known(function)
        if signature is None:
            return cls(None)
        by_name = [p for p in signature.parameters.values() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in signature.parameters.values())
        return cls(tuple(parameter.name for parameter in by_name), takes_any)

    def take(self, name: str) -> bool:
        return self.names is None or self.takes_any or name in self.names


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


def _read_txt(_name: str, file: BinaryIO, _parameters: _Parameters, key_field: str | None) -> Iterator[Row | BadRow]:
    if key_field is not None:
        raise OptionError(f"--key {key_field}: a line of a txt file has no fields, it is the key itself")
    for line in _text_lines(file):
        yield line if isinstance(line, BadRow) else Row(line[0], args=(line[1],), first=line[1])


def _read_jsonl(_name: str, file: BinaryIO, _parameters: _Parameters, _key: str | None) -> Iterator[Row | BadRow]:
    for line in _text_lines(file):
        if isinstance(line, BadRow):
            yield line
            continue
        number, text = line
        try:
            value = from_json(text)
        except ValueError as error:
            yield BadRow(number, f"not JSON: {error}; {_starts(text)}")
            continue
        yield _json_row(number, value)


def _json_row(line: int, value: Any) -> Row:
    if isinstance(value, dict):
        return Row(line, kwargs=value, first=next(iter(value.values()), None))
    if isinstance(value, list):
        return Row(line, args=tuple(value), first=value[0] if value else None)
    return Row(line, args=(value,), first=value)


def _read_csv(name: str, file: BinaryIO, parameters: _Parameters, key_field: str | None) -> Iterator[Row | BadRow]:
    # The default of 131,072 bytes is below what a job may be given.
    csv.field_size_limit(_LONGEST_LINE)
    # Bytes that are not UTF-8 go through the reader as lone surrogates, so that a bad row costs itself only.
    reader = csv.reader((line.decode(errors="surrogateescape") for _, line in _lines(file)), strict=True)
    header: list[str] | None = None
    for line, cells in _records(reader):
        if isinstance(cells, BadRow):
            if header is None:
                raise InputError(f"{name} line {line}: {cells.problem}")
            yield cells
        elif header is None:
            header = _checked_header(f"{name} line {line}", cells, parameters, key_field)
        else:
            yield _csv_row(line, header, cells)


def _records(reader: Any) -> Iterator[tuple[int, list[str] | BadRow]]:
    """Yield what a csv reader reads, blank lines aside, with the number of the line that it begins on."""
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield line, BadRow(line, f"not CSV: {error} (in lines {line} to {reader.line_num})")
            continue
        not_utf8 = next((cell for cell in cells if not _is_utf8(cell)), None)
        if not_utf8 is not None:
            yield line, BadRow(line, f"not UTF-8: {_starts(not_utf8.encode(errors='surrogateescape'))}")
        elif cells:
            yield line, cells


def _csv_row(line: int, header: list[str], cells: list[str]) -> Row | BadRow:
    if len(cells) != len(header):
        return BadRow(line, f"{len(cells)} fields where the header has {len(header)}; {_starts(','.join(cells))}")
    # CSV cannot write "nothing", so an empty cell is an argument that is not given.
    kwargs = {name: cell for name, cell in zip(header, cells, strict=True) if cell}
    return Row(line, kwargs=kwargs, first=cells[0])


def _checked_header(where: str, cells: list[str], parameters: _Parameters, key_field: str | None) -> list[str]:
    header = [cell.strip() for cell in cells]
    for name in header:
        if not name:
            raise InputError(f"{where}: a column without a name; the header must name a parameter for each: {header}")
        if header.count(name) > 1:
            raise InputError(f"{where}: column {name!r} is there twice")
        if name != key_field and not parameters.take(name):
            raise InputError(
                f"{where}: column {name!r} is no parameter of the function, which takes {_listed(parameters.names)}; "
                f"rename or remove the column, or make it the jobs' key with --key {name}"
            )
    if key_field is not None and key_field not in header:
        raise OptionError(f"--key {key_field}: {where} has no such column, only {_listed(header)}")
    return header


_READERS: dict[Format, Callable[[str, BinaryIO, _Parameters, str | None], Iterator[Row | BadRow]]] = {
    "txt": _read_txt,
    "jsonl": _read_jsonl,
    "csv": _read_csv,
}


def _as_key(value: Any) -> str | None:
    if value is None or value == "":
        return None
    text = value if isinstance(value, str) else to_json(value).decode()
    return text[:_LONGEST_KEY]


def _is_utf8(text: str) -> bool:
    return text.isascii() or not any("\udc80" <= character <= "\udcff" for character in text)


def _starts(text: str | bytes) -> str:
    return f"the row starts {shorten(repr(text[:100]))}"


def _listed(names: Any) -> str:
    return ", ".join(map(str, names or ())) or "none"
