"""Bugs to plant in a copy of the source tree: chaos must find each of them.

`python -m tests.chaos.planted NAME` plants one and runs chaos on the copy.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.programs import ROOT

_PACKAGES = ("protocol", "producer", "workers", "straggler", "tests")


class PlantError(Exception):
    """The snippet that is to be spoilt is not there, or not once: the source has changed, and the table must follow."""


@dataclass(frozen=True, slots=True)
class Bug:
    """One bug.

    Args:
        file: The file that has it.
        pattern: What is spoilt; it must match exactly once.
        spoilt: What is put in its place.
        rule: The rule under which chaos must report it.
        arguments: Faults that bring it to light soon.
    """

    file: str
    pattern: str
    spoilt: str
    rule: str
    arguments: tuple[str, ...]


# A lease of 3 s: who has lost it should know within a second, while its jobs would go on for up to 22 s.
_SHORT_LEASE = ("--lease", "3", "--longest", "5", "--gap")

BUGS = {
    "renews what another holds": Bug(
        "protocol/scripts/renew.lua",
        r"redis\.p?call\('GET', *lease\) == ARGV\[1\]",
        "true",
        "ran on",
        ("--faults", "lease-loss", *_SHORT_LEASE, "4"),
    ),
    "records each result of a job": Bug(
        "protocol/scripts/record.lua",
        r"was_set\[#was_set \+ 1\] = .*\n",
        "was_set[#was_set + 1] = false\n",
        "one result",
        ("--faults", "worker-stop,cut-hold", *_SHORT_LEASE, "12"),
    ),
    "adds again what its producer had added": Bug(
        "protocol/scripts/add.lua",
        r"local index = name ~= '' and \(known\[number\] or new\[name\]\)",
        "local index",
        "added",
        ("--faults", "producer-kill", "--gap", "2"),
    ),
    "gives a cancelled job that waits another chance": Bug(
        "protocol/scripts/cancel.lua",
        r"changed = redis\.call\('HSETNX', KEYS\[2\], '\*', ARGV\[2\]\)",
        "changed = 1",
        "cancelled",
        ("--faults", "canceller-kill,worker-kill", "--gap", "4"),
    ),
    "keeps its chunks when it is told to stop": Bug(
        "workers/crew.py",
        r"( +)outcome = await chunk\.run\(\)\n",
        r"\g<0>\1if outcome == 'again':\n\1    self._drop(claimed)\n\1    return outcome\n",
        "recovery",
        ("--faults", "node-term", "--gap", "12"),
    ),
}


def plant(bug: Bug | None, folder: Path) -> None:
    """Copy the source tree, with the bug if there is one.

    Raises:
        PlantError: If its place is not found.
    """
    for package in _PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    if bug is None:
        return
    path = folder / bug.file
    spoilt, places = re.subn(bug.pattern, bug.spoilt, path.read_text())
    if places != 1:
        raise PlantError(f"{bug.file}: {bug.pattern!r} is there {places} times, not once")
    path.write_text(spoilt)


def run(bug: Bug | None, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Run chaos on a copy of the source tree, with the bug if there is one."""
    with tempfile.TemporaryDirectory(prefix="straggler-planted-") as name:
        folder = Path(name)
        plant(bug, folder)
        words = [sys.executable, "-m", "tests.chaos", *arguments]
        # The copy comes before the tree that is installed for development.
        environment = {**os.environ, "PYTHONPATH": str(folder)}
        return subprocess.run(
            words, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=[*BUGS, "none"])
    given, rest = parser.parse_known_args()
    chosen = BUGS.get(given.name)
    ran = run(chosen, [*(chosen.arguments if chosen else ()), *rest])
    print(ran.stdout)  # noqa: T201
    sys.exit(ran.returncode)
