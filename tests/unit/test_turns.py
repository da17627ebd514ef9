"""Tests that run alone wait for all others, and all others for them."""

from __future__ import annotations

import fcntl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.turns import room

LONGEST = 60.0


def test_others_are_in_the_room_together_and_one_that_is_alone_waits_for_them(tmp_path: Path) -> None:
    together, leave = threading.Barrier(3), threading.Event()
    inside: set[int] = set()
    seen_alone: list[set[int]] = []

    def be_with_others(number: int) -> None:
        with room(tmp_path, alone=False):
            inside.add(number)
            together.wait(LONGEST)  # breaks unless all are in the room
            leave.wait(LONGEST)
            inside.discard(number)

    def be_alone() -> None:
        with room(tmp_path, alone=True):
            seen_alone.append(set(inside))

    with ThreadPoolExecutor() as pool:
        others = [pool.submit(be_with_others, number) for number in range(2)]
        together.wait(LONGEST)
        alone = pool.submit(be_alone)
        leave.set()
        for one in (*others, alone):
            one.result(LONGEST)
    assert seen_alone == [set()]


def test_nobody_enters_while_one_waits_to_be_alone(tmp_path: Path) -> None:
    order: list[str] = []
    entered, leave = threading.Event(), threading.Event()

    def be(name: str, *, alone: bool) -> None:
        with room(tmp_path, alone=alone):
            order.append(name)
            entered.set()
            leave.wait(LONGEST)

    with ThreadPoolExecutor() as pool:
        first = pool.submit(be, "first", alone=False)
        assert entered.wait(LONGEST)
        alone = pool.submit(be, "alone", alone=True)
        until_held(tmp_path / "door.lock")
        late = pool.submit(be, "late", alone=False)
        leave.set()
        for one in (first, alone, late):
            one.result(LONGEST)
    assert order == ["first", "alone", "late"]


def until_held(path: Path) -> None:
    deadline = time.monotonic() + LONGEST
    while time.monotonic() < deadline:
        with path.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return
    pytest.fail("nobody waits to be alone")
