"""A worker process's vital signs, in memory that it shares with its supervisor.

The process writes when its loop last turned, which chunks it holds, and which job's code is about to hold the loop,
until when. All of that can be read while the process hangs, and after its death: it is a small file, mapped by both.

A job is named by one number, so that a step costs few writes: which of its clocks runs out first, the row of its chunk,
its index; all of that is exact in a double.
"""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from protocol.results import Phase

# Cells, doubles each; SINCE is when the current job's step began, SUPERVISOR who made the file,
# LEASED_UNTIL how long the leases last that it has renewed, STOPS how often it was told to stop.
TICK, CURRENT, LAST_MOMENT, STARTED, LIMIT, SINCE, SUPERVISOR, LEASED_UNTIL, STOPS = range(9)
CELLS = 16
NOBODY = -1.0
# A job that has its result, or whose chunk has no row, and that still may hold the loop: it has a last moment, but no
# name.
UNNAMED = -2.0

_INDEXES = 1 << 32
_ROWS = 1 << 18
_PHASES: tuple[Phase, ...] = ("running", "batch", "deadline", "heartbeat")
# For each chunk a double: the job behind the last that it has started.
_BEGUN_BYTES = 8
# A length, then a name: a chunk's id is a batch's id of up to 100 letters, a colon, an index; a worker's holds its
# host's.
_ROW_BYTES = 128
_NAME_BYTES = 256


@dataclass(frozen=True, slots=True)
class Current:
    """The job whose code held the loop when the process was last heard of; times on the monotonic clock.

    `phase` says which of its clocks runs out at `limit` s.
    Without a `chunk_id` it is a job that cannot be named, or that has its result and runs on.
    """

    chunk_id: str
    index: int
    last_moment: float
    started: float
    limit: float
    since: float
    phase: Phase = "running"


class Pulse:
    """The shared memory of one worker process.

    Args:
        path: The file; made by `create`.

    Attributes:
        cells: The places that are named above.
        begun: For each row, the index behind the last job that its chunk has started.
    """

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 0)
        self._view = memoryview(self._memory)
        self.cells = self._view[: CELLS * 8].cast("d")
        self.begun: Any = self._view[self._at(self._rows) :].cast("d")
        self._free = [row for row in range(self._rows) if not self._memory[self._at(row)]]
        self._row_of: dict[str, int] = {}

    @staticmethod
    def create(path: Path, chunks: int) -> Pulse:
        """Make the file, with room for so many chunks."""
        path.write_bytes(bytes(CELLS * 8 + _NAME_BYTES + chunks * (_ROW_BYTES + _BEGUN_BYTES)))
        pulse = Pulse(path)
        pulse.cells[CURRENT] = NOBODY
        pulse.cells[SUPERVISOR] = os.getpid()
        return pulse

    @property
    def _rows(self) -> int:
        return (len(self._memory) - CELLS * 8 - _NAME_BYTES) // (_ROW_BYTES + _BEGUN_BYTES)

    @property
    def worker_id(self) -> str:
        """Whose leases the process's chunks are; empty until it has said so."""
        return self._read(CELLS * 8)

    @worker_id.setter
    def worker_id(self, name: str) -> None:
        self._write(CELLS * 8, name)

    def hold(self, chunk_id: str) -> int:
        """Write down that the process holds a chunk; returns its row, -1 if there is no room for it or for its name.

        A dead process's chunks are looked for in Redis, too; what is found in neither place waits for its lease to
        lapse.
        """
        if not self._free or len(chunk_id.encode()) >= _ROW_BYTES:
            return -1
        row = self._free.pop()
        self._write(self._at(row), chunk_id)
        self.begun[row] = 0.0
        self._row_of[chunk_id] = row
        return row

    def drop(self, chunk_id: str) -> None:
        """Write down that the process no longer holds a chunk."""
        row = self._row_of.pop(chunk_id, None)
        if row is not None:
            self._write(self._at(row), "")
            self._free.append(row)

    def chunks(self) -> dict[str, int]:
        """Read which chunks the process holds, and the index behind the last job that each has started."""
        names = (self._read(self._at(row)) for row in range(self._rows))
        return {name: int(begun) for name, begun in zip(names, self.begun, strict=True) if name}

    def current(self) -> Current | None:
        """Read whose code holds the loop."""
        number = self.cells[CURRENT]
        if number == NOBODY:
            return None
        phase, row, index = _read_number(number)
        chunk_id = "" if number == UNNAMED else self._read(self._at(row))
        # SINCE is written first and read last: where a step is old, all of this is that step's.
        cells = self.cells
        return Current(chunk_id, index, cells[LAST_MOMENT], cells[STARTED], cells[LIMIT], cells[SINCE], phase)

    def close(self) -> None:
        """Let go of the memory."""
        self.cells.release()
        self.begun.release()
        self._view.release()
        self._memory.close()

    def _at(self, row: int) -> int:
        return CELLS * 8 + _NAME_BYTES + row * _ROW_BYTES

    def _read(self, at: int) -> str:
        length = self._memory[at]
        return self._memory[at + 1 : at + 1 + length].decode()

    def _write(self, at: int, text: str) -> None:
        data = text.encode()
        self._memory[at + 1 : at + 1 + len(data)] = data
        self._memory[at] = len(data)


def job_number(row: int, index: int) -> float:
    """Name a job by one number."""
    return UNNAMED if row < 0 else float(row * _INDEXES + index)


def offset_of(phase: Phase) -> float:
    """Return what is added to a job's number to say which of its clocks runs out first; nothing for the usual one."""
    return _PHASES.index(phase) * float(_ROWS * _INDEXES)


def _read_number(number: float) -> tuple[Phase, int, int]:
    if number == UNNAMED:
        return "running", -1, -1
    above, index = divmod(int(number), _INDEXES)
    phase, row = divmod(above, _ROWS)
    return _PHASES[phase], row, index
