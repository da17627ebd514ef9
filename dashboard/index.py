"""Where each result stands in its batch's stream: enough to page through a million of them, some 20 bytes each."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from dashboard.keytexts import KeyTexts
from producer.records import Position

MOST_ROWS = 1_000_000
"""Results that are indexed whatever they are; beyond them, those that did not succeed, as many again."""


class Index:
    """Rows in order of recording; a row is a number, from 0.

    Args:
        most: Rows beyond which only what did not succeed is taken, and beyond twice as many nothing.

    Attributes:
        keys: The rows by their keys.
        skipped: How many results there was no room for.
    """

    def __init__(self, most: int = MOST_ROWS) -> None:
        self._most = most
        # An entry's id is two numbers: as text, 1,000,000 of them would take 70 MB.
        self._entry_ms = array("Q")
        self._entry_seq = array("Q")
        self._entry = array("I")
        self._offset = array("H")
        self._job = array("I")
        self.keys = KeyTexts()
        self.skipped = 0

    def __len__(self) -> int:
        return len(self._job)

    @property
    def size(self) -> int:
        """What it takes, bytes, with the row's number in a list of those of its status."""
        columns = (self._entry_ms, self._entry_seq, self._entry, self._offset, self._job, self._job, self._job)
        return sum(column.itemsize * len(column) for column in columns) + self.keys.size

    def begin_entry(self, entry: str) -> None:
        """Say which entry the next results are of."""
        milliseconds, _, sequence = entry.partition("-")
        self._entry_ms.append(int(milliseconds))
        self._entry_seq.append(int(sequence))

    def extend(
        self, offsets: Sequence[int], jobs: Sequence[int], keys: Sequence[str | None] | None, *, succeeded: bool
    ) -> range:
        """Take in results of one entry; returns their rows: of the first ones, if there is not room for all."""
        first = len(self._job)
        room = max(0, (self._most if succeeded else 2 * self._most) - first)
        if len(jobs) > room:
            self.skipped += len(jobs) - room
            offsets, jobs, keys = offsets[:room], jobs[:room], keys and keys[:room]
        self._entry.extend(array("I", [len(self._entry_ms) - 1]) * len(jobs))
        self._offset.extend(offsets)
        self._job.extend(jobs)
        self.keys.extend(keys, len(jobs))
        return range(first, len(self._job))

    def position(self, row: int) -> Position:
        """Tell where a row's result stands."""
        entry = self._entry[row]
        return Position(f"{self._entry_ms[entry]}-{self._entry_seq[entry]}", self._offset[row])

    def jobs(self, rows: Sequence[int]) -> list[int]:
        """Tell which jobs these rows are of."""
        return [self._job[row] for row in rows]

    def row_of(self, job: int) -> int | None:
        """Find a job's row."""
        try:
            return self._job.index(job)
        except ValueError:
            return None
