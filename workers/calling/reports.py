"""What a job says of itself by `current_job().heartbeat()`: that it is alive, how far it is, a note.

A call leaves it in memory and returns: no call waits for Redis, or costs a round trip. Who looks at it later is
`workers.vitals.running`, once a second. A job in a process of its own leaves it in memory that it shares with the
worker, so that its threads and forks can speak for it, too.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import struct
import tempfile
import time
from typing import Any, Protocol

from protocol.errors import OptionError

LONGEST_NOTE = 200
"""A note is for a line in a table: letters beyond this many are cut off."""


class Report(Protocol):
    """What a job has said of itself so far."""

    @property
    def beaten_at(self) -> float:
        """When it was last heard of, on `time.monotonic()`; 0 if never."""

    @property
    def progress(self) -> float | None:
        """How far it is, 0 to 1, if it has said so."""

    @property
    def note(self) -> str:
        """What else it has said last."""

    def say(self, progress: float | None, note: str) -> None:
        """Take note of a heartbeat; what it leaves out stays as it was."""


class OwnReport:
    """The report of a job in the worker's own process, on its loop or in a thread."""

    __slots__ = ("beaten_at", "note", "progress")

    def __init__(self) -> None:
        self.beaten_at = 0.0
        self.progress: float | None = None
        self.note = ""

    def say(self, progress: float | None, note: str) -> None:
        """Take note of a heartbeat."""
        self.beaten_at = time.monotonic()
        if progress is not None:
            self.progress = progress
        if note:
            self.note = note[:LONGEST_NOTE]


# When it was last heard of, how far it is (NaN: not said), the note's length in bytes; the note follows, and last what
# both sides say: the deadline, and when the job's own code began.
_HEAD = struct.Struct("=ddI")
_TIME = struct.Struct("=d")
_NOTE_BYTES = 4 * LONGEST_NOTE
_DEADLINE_AT = _HEAD.size + _NOTE_BYTES
_BEGUN_AT = _DEADLINE_AT + _TIME.size
_SIZE = _BEGUN_AT + _TIME.size


class SharedReport:
    """The report of a job in a process of its own, in memory that both have mapped.

    Nothing guards it from being read while it is written: a note may for once come out as the old and the new one
    mixed, which harms nobody.

    Args:
        descriptor: The file behind the memory, from `make_file`; it is closed.
    """

    def __init__(self, descriptor: int) -> None:
        try:
            self._memory = mmap.mmap(descriptor, _SIZE)
        finally:
            os.close(descriptor)

    @property
    def beaten_at(self) -> float:
        """When it was last heard of, on the clock that all processes of a machine share."""
        beaten_at: float = _HEAD.unpack_from(self._memory)[0]
        return beaten_at

    @property
    def progress(self) -> float | None:
        """How far it is."""
        progress: float = _HEAD.unpack_from(self._memory)[1]
        return progress if 0 <= progress <= 1 and self.beaten_at else None

    @property
    def note(self) -> str:
        """What else it has said last."""
        length: int = _HEAD.unpack_from(self._memory)[2]
        return self._memory[_HEAD.size : _HEAD.size + min(length, _NOTE_BYTES)].decode(errors="replace")

    @property
    def deadline(self) -> float:
        """When the job's time is up, on the same clock; it moves with the batch's."""
        deadline: float = _TIME.unpack_from(self._memory, _DEADLINE_AT)[0]
        return deadline

    @deadline.setter
    def deadline(self, deadline: float) -> None:
        _TIME.pack_into(self._memory, _DEADLINE_AT, deadline)

    @property
    def begun_at(self) -> float:
        """When the job's own code began, its module imported; 0 if it has not."""
        begun_at: float = _TIME.unpack_from(self._memory, _BEGUN_AT)[0]
        return begun_at

    def begin(self) -> None:
        """Take note that the job's own code begins."""
        _TIME.pack_into(self._memory, _BEGUN_AT, time.monotonic())

    def say(self, progress: float | None, note: str) -> None:
        """Take note of a heartbeat."""
        _, old_progress, length = _HEAD.unpack_from(self._memory)
        if note:
            text = note[:LONGEST_NOTE].encode(errors="replace")
            length = len(text)
            self._memory[_HEAD.size : _HEAD.size + length] = text
        _HEAD.pack_into(self._memory, 0, time.monotonic(), old_progress if progress is None else progress, length)

    def clear(self) -> None:
        """Forget what the last job has said."""
        _HEAD.pack_into(self._memory, 0, 0.0, math.nan, 0)
        _TIME.pack_into(self._memory, _BEGUN_AT, 0.0)

    def close(self) -> None:
        """Let go of the memory."""
        self._memory.close()


def make_file() -> int:
    """Make the file behind a `SharedReport`, without a name; returns its descriptor."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("straggler-report")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, _SIZE)
    return descriptor


def check(progress: Any, note: Any) -> None:
    """Refuse what a heartbeat cannot say.

    Raises:
        OptionError: If it is that.
    """
    if progress is not None and not (_is_number(progress) and 0 <= progress <= 1):
        raise OptionError(f"heartbeat(progress={progress!r}): use a number from 0 to 1, or leave it out")
    if not isinstance(note, str):
        raise OptionError(f"heartbeat(note={note!r}): use a text")


def _is_number(value: Any) -> bool:
    with contextlib.suppress(TypeError, ValueError):
        return math.isfinite(value)
    return False
