"""Tests that run beside each other (`pytest -n 4`), but for those that want the machine to themselves.

Each process of pytest-xdist has a session, and so a Redis server, of its own: tests share nothing but the machine. One
that measures times, or loads the machine for long, is marked `alone`: it waits until all others have ended, and they
wait for it.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.commands import straggler, unmeasured


@pytest.fixture(scope="session", autouse=True)
def commands_at_hand(request: pytest.FixtureRequest) -> None:
    """Start what starts commands (`tests.commands`) before any test waits for one: all processes do so at once."""
    if hasattr(request.config, "workerinput"):
        for environment in (None, unmeasured()):
            straggler("--help", timeout=300, env=environment)


@pytest.fixture(autouse=True)
def turn(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Give a test its turn."""
    if not hasattr(request.config, "workerinput"):  # one test after another
        yield
        return
    # xdist's processes share the folder that theirs stand in.
    with room(tmp_path_factory.getbasetemp().parent, alone="alone" in request.keywords):
        yield


@contextmanager
def room(folder: Path, *, alone: bool) -> Iterator[None]:
    """Be in a room with others, or alone; who waits for it to be empty holds the door, so that nobody else enters."""
    with (folder / "door.lock").open("w") as door, (folder / "room.lock").open("w") as inside:
        fcntl.flock(door, fcntl.LOCK_EX)
        fcntl.flock(inside, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(door, fcntl.LOCK_UN)
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order tests as they are handed out, one at a time, to whichever process is free.

    First those that start processes, which take seconds, and of them chaos, a minute; then those that take a moment, so
    that no process is busy for long when the others have ended; last those that run alone, one after another.
    """
    items.sort(key=_place)


def _place(item: pytest.Item) -> tuple[bool, bool, bool]:
    return "alone" in item.keywords, "redis" not in item.keywords, "tests/chaos" not in item.nodeid
