"""The shared memory: what one process writes another reads, also after its death, and nothing runs over its edges."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from workers.vitals.pulse import (
    CELLS,
    CURRENT,
    LAST_MOMENT,
    LIMIT,
    NOBODY,
    SINCE,
    STARTED,
    TICK,
    UNNAMED,
    Pulse,
    job_number,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "pulse"


def test_a_new_pulse_holds_nobody(path: Path) -> None:
    pulse = Pulse.create(path, 3)
    assert (pulse.worker_id, pulse.chunks(), pulse.current(), pulse.cells[TICK]) == ("", {}, None, 0.0)
    pulse.close()


def test_what_one_writes_the_other_reads(path: Path) -> None:
    reader = Pulse.create(path, 3)
    writer = Pulse(path)
    writer.worker_id = "host-1-abc"
    rows = [writer.hold("a:0"), writer.hold("b:64")]
    writer.begun[rows[1]] = 78
    writer.cells[CURRENT] = job_number(rows[1], 77)
    for place, value in ((LAST_MOMENT, 4.5), (STARTED, 2.5), (LIMIT, 1.25), (SINCE, 3.5)):
        writer.cells[place] = value
    assert reader.worker_id == "host-1-abc"
    assert reader.chunks() == {"a:0": 0, "b:64": 78}
    current = reader.current()
    assert current is not None
    assert (current.chunk_id, current.index) == ("b:64", 77)
    assert (current.last_moment, current.started, current.limit, current.since) == (4.5, 2.5, 1.25, 3.5)
    writer.drop("a:0")
    writer.cells[CURRENT] = NOBODY
    assert (reader.chunks(), reader.current()) == ({"b:64": 78}, None)
    writer.close()
    reader.close()


def test_a_killed_process_leaves_its_pulse_to_read(path: Path) -> None:
    pulse = Pulse.create(path, 3)
    code = f"""
import os
from pathlib import Path
from workers.vitals.pulse import CURRENT, Pulse, job_number
pulse = Pulse(Path({str(path)!r}))
pulse.worker_id = "w"
pulse.cells[CURRENT] = job_number(pulse.hold("batch:128"), 130)
os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    current = pulse.current()
    assert current is not None
    assert (pulse.worker_id, current.chunk_id, current.index) == ("w", "batch:128", 130)
    pulse.close()


def test_names_up_to_their_limit_keep_to_their_rows(path: Path) -> None:
    pulse = Pulse.create(path, 3)
    longest = f"{'é' * 40}:{'9' * 46}"
    assert len(longest.encode()) == 127
    names = [longest, "short:0", longest[:-1] + "8"]
    assert all(pulse.hold(name) >= 0 for name in names)
    pulse.worker_id = "h" * 255
    assert sorted(pulse.chunks()) == sorted(names)
    assert pulse.worker_id == "h" * 255
    pulse.close()


@pytest.mark.parametrize("name", ["x" * 128, "x" * 300, "é" * 64])
def test_a_name_that_is_too_long_has_no_row_and_hurts_no_other(path: Path, name: str) -> None:
    pulse = Pulse.create(path, 2)
    pulse.hold("a:0")
    assert pulse.hold(name) == -1
    pulse.drop(name)
    assert pulse.hold("b:0") >= 0
    assert sorted(pulse.chunks()) == ["a:0", "b:0"]
    pulse.close()


def test_without_room_there_is_no_row_until_one_is_dropped(path: Path) -> None:
    pulse = Pulse.create(path, 1)
    row = pulse.hold("a:0")
    assert pulse.hold("b:0") == -1
    pulse.drop("b:0")
    pulse.drop("a:0")
    assert pulse.hold("b:0") == row
    pulse.close()


def test_a_job_without_a_row_has_its_times_and_no_name(path: Path) -> None:
    pulse = Pulse.create(path, 1)
    pulse.hold("a:0")
    pulse.cells[LAST_MOMENT] = 9.0
    pulse.cells[CURRENT] = job_number(-1, 5)
    current = pulse.current()
    assert current is not None
    assert (current.chunk_id, current.last_moment) == ("", 9.0)
    assert job_number(-1, 5) == UNNAMED
    pulse.close()


@pytest.mark.parametrize("index", [0, 9_999_999, (1 << 32) - 1])
def test_a_number_names_every_job_of_every_row_exactly(path: Path, index: int) -> None:
    pulse = Pulse.create(path, 200)
    rows = {f"c:{row}": pulse.hold(f"c:{row}") for row in range(200)}
    for name, row in rows.items():
        pulse.cells[CURRENT] = job_number(row, index)
        current = pulse.current()
        assert current is not None
        assert (current.chunk_id, current.index) == (name, index)
    pulse.close()


def test_the_cells_have_room_for_all_places() -> None:
    assert max(TICK, CURRENT, LAST_MOMENT, STARTED, LIMIT, SINCE) < CELLS
