"""The checker finds planted bugs: in a copy of the source tree, one at a time."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.chaos.planted import BUGS, Bug, PlantError, plant, run

SECONDS = 40


@pytest.mark.parametrize("name", BUGS)
def test_the_place_of_each_bug_is_there(name: str, tmp_path: Path) -> None:
    plant(BUGS[name], tmp_path)
    original = Path(__file__).parent.parent.parent / BUGS[name].file
    assert (tmp_path / BUGS[name].file).read_text() != original.read_text()


def test_a_place_that_is_gone_is_told(tmp_path: Path) -> None:
    with pytest.raises(PlantError, match=re.escape("protocol/keys.py: 'no such text' is there 0 times")):
        plant(Bug("protocol/keys.py", "no such text", "", "", ()), tmp_path)


@pytest.mark.redis
@pytest.mark.skipif(os.environ.get("CHAOS_PLANTED") != "1", reason="slow, two minutes a bug: CHAOS_PLANTED=1 runs it")
@pytest.mark.parametrize("name", BUGS)
def test_chaos_finds_a_planted_bug(name: str) -> None:
    bug = BUGS[name]
    ran = run(bug, ["--seconds", str(SECONDS), "--seed", "1", "--jobs-per-second", "100", *bug.arguments])
    assert ran.returncode == 1, ran.stdout
    assert f"  {bug.rule}: " in ran.stdout, ran.stdout
