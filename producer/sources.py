"""A file of jobs, or stdin: each row becomes one `JobSpec`, or an error that names file, line, value and cure."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import ValidationError
from pydantic_core import to_json

from producer.files.rows import FORMATS, BadRow, Format, Row, read_rows
from protocol import signatures
from protocol.errors import ArgumentsError, InputError, OptionError, UsageError, explain
from protocol.jobs import JobSpec, encode_job

STDIN = "-"

_FORMAT_OF = {"": "txt", ".txt": "txt", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv"}
_LONGEST_KEY = 1024


def find_format(path: str, given: str | None) -> Format:
    """Tell a file's format: the one given, or by its name; a name without a suffix, and stdin, is txt.

    Raises:
        OptionError: If there is no such format, or the name tells none.
    """
    found = given if given is not None else _FORMAT_OF.get(Path(path).suffix.lower())
    for known in FORMATS:
        if found == known:
            return known
    if given is not None:
        raise OptionError(f"no format {given!r}: use {', '.join(FORMATS)}")
    raise OptionError(f"{path}: the name does not tell its format, say --format {'|'.join(FORMATS)}")


def refuse(error: InputError) -> None:
    """End the reading at a bad row.

    Raises:
        InputError: Always, with the cure.
    """
    raise InputError(f"{error} (--skip-bad-rows goes on without such rows)")


@dataclass(frozen=True)
class Source:
    """A file of jobs, or stdin.

    Args:
        path: The file; `-` is stdin.
        written_as: How its rows are written.
        function: The job's name; rows are checked against its parameters where this process has it at hand.
        key_field: Which field of a row is the job's key; by default its first value is. A field that is no parameter of
            the function is the key only, and no argument.
        limit_bytes: Longest arguments of one job, bytes of JSON.
    """

    path: str
    written_as: Format
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
            OptionError: If its rows have no field for the key.
        """
        if self.key_field is not None and self.written_as == "txt":
            raise OptionError(f"--key {self.key_field}: a line of a txt file has no fields, it is the key itself")
        with self._open() as file:
            for row in read_rows(file, self.written_as, self._check_header):
                try:
                    job = self._job(row, validate=validate)
                except UsageError as error:
                    on_bad_row(InputError(f"{self.name} line {row.line}: {error}"))
                else:
                    yield job

    @contextmanager
    def _open(self) -> Iterator[BinaryIO]:
        # Our own reader on stdin: at exit Python closes sys.stdin's, which a thread may still be waiting on.
        try:
            file = open(0 if self.path == STDIN else self.path, "rb", closefd=self.path != STDIN)  # noqa: SIM115
        except OSError as error:
            raise InputError(f"{self.path} cannot be read: {error.strerror or error}") from None
        with file:
            yield file

    def _job(self, row: Row | BadRow, *, validate: bool) -> JobSpec[Any]:
        if isinstance(row, BadRow):
            raise InputError(row.problem)
        key, kwargs = _as_key(row.first), row.kwargs
        if self.key_field is not None:
            if self.key_field not in kwargs:
                raise InputError(f"no field {self.key_field!r} for the job's key; it has {_listed(kwargs)}")
            key = _as_key(kwargs[self.key_field])
            if not self._takes(self.key_field):
                kwargs = {name: value for name, value in kwargs.items() if name != self.key_field}
        try:
            job: JobSpec[Any] = JobSpec(function=self.function, args=row.args, kwargs=kwargs, key=key)
        except ValidationError as error:
            raise ArgumentsError(explain(error)) from None
        if validate:
            encode_job(job, self.limit_bytes)
        return job

    def _check_header(self, line: int, header: list[str]) -> None:
        where = f"{self.name} line {line}"
        if self.key_field is not None and self.key_field not in header:
            raise OptionError(f"--key {self.key_field}: {where} has no such column, only {_listed(header)}")
        for name in header:
            if not name:
                raise InputError(f"{where}: a column without a name; the header names the parameter of each: {header}")
            if header.count(name) > 1:
                raise InputError(f"{where}: column {name!r} is there twice")
            if name != self.key_field and not self._takes(name):
                raise InputError(
                    f"{where}: column {name!r} is no parameter of {self.function}, which takes "
                    f"{_listed(self._parameters)}; rename it, remove it, or make it the jobs' key: --key {name}"
                )

    def _takes(self, name: str) -> bool:
        parameters = self._parameters
        if parameters is None or name in parameters:
            return True
        return any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())

    @cached_property
    def _parameters(self) -> dict[str, inspect.Parameter] | None:
        signature = signatures.known(self.function)
        return None if signature is None else dict(signature.parameters)


def _as_key(value: Any) -> str | None:
    if value is None or value == "":
        return None
    text = value if isinstance(value, str) else to_json(value).decode()
    return text[:_LONGEST_KEY]


def _listed(names: Any) -> str:
    return ", ".join(map(str, names or ())) or "none"
