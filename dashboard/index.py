"""Where each result stands in its batch's stream: enough to page through a million of them, some 20 bytes each."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import NamedTuple
from zlib import crc32

MOST_ROWS = 1_000_000
"""Results that are indexed whatever they are; beyond them, those that did not succeed, as many again."""


class Position(NamedTuple):
    """An entry of the stream, and which of its results."""

    entry: str
    offset: int


class Index:
    """Rows in order of recording; a row is a number, from 0.

    Args:
        most: Rows beyond which only what did not succeed is taken, and beyond twice as many nothing.
    """

    def __init__(self, most: int = MOST_ROWS) -> None:
        self._most = most
        # An entry's id is two numbers: as text, 1,000,000 of them would take 70 MB.
        self._entry_ms = array("Q")
        self._entry_seq = array("Q")
        self._entry = array("I")
        self._offset = array("H")
        self._job = array("I")
        self._key = array("I")
        self.skipped = 0

    def __len__(self) -> int:
        return len(self._job)

    def begin_entry(self, entry: str) -> None:
        """Say which entry the next results are of."""
        milliseconds, _, sequence = entry.partition("-")
        self._entry_ms.append(int(milliseconds))
        self._entry_seq.append(int(sequence))

    def add(self, offset: int, job: int, key: str | None, *, succeeded: bool) -> int | None:
        """Take in one result; returns its row, or None if there is no room for it."""
        if len(self._job) >= (self._most if succeeded else 2 * self._most):
            self.skipped += 1
            return None
        self._entry.append(len(self._entry_ms) - 1)
        self._offset.append(offset)
        self._job.append(job)
        self._key.append(_hash(key))
        return len(self._job) - 1

    def position(self, row: int) -> Position:
        """Tell where a row's result stands."""
        entry = self._entry[row]
        return Position(f"{self._entry_ms[entry]}-{self._entry_seq[entry]}", self._offset[row])

    def recorded_at(self, row: int) -> float:
        """Tell when a row's result was recorded, Unix s."""
        return self._entry_ms[self._entry[row]] / 1000

    def jobs(self, rows: Sequence[int]) -> list[int]:
        """Tell which jobs these rows are of."""
        return [self._job[row] for row in rows]

    def row_of(self, job: int) -> int | None:
        """Find a job's row."""
        return next(_rows_with(self._job, job), None) if 0 <= job < 1 << 32 else None

    def rows_with_key(self, key: str) -> Iterator[int]:
        """Find the rows whose job may have this key: few others are among them."""
        return _rows_with(self._key, _hash(key))


def _hash(key: str | None) -> int:
    return crc32(key.encode(errors="surrogatepass")) if key is not None else 0


def _rows_with(column: array[int], value: int) -> Iterator[int]:
    at = 0
    while True:
        try:
            at = column.index(value, at)
        except ValueError:
            return
        yield at
        at += 1
