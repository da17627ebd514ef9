"""What is promised of the package: pinned versions, a complete wheel, rooms that hold, code that stays short."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
ROOMS = ("protocol", "producer", "workers", "dashboard", "straggler")
PIN = re.compile(r"([A-Za-z0-9_.-]+)==([0-9][0-9A-Za-z.+!-]*)(?:  # .+)?")
# The oldest and the newest Python that the pins must hold for. Windows' own needs are not among them.
ENVIRONMENTS = [
    {"python_full_version": full, "python_version": short, "sys_platform": "linux", "platform_system": "Linux"}
    for full, short in (("3.11.0", "3.11"), ("3.13.0", "3.13"))
]
MAKE = shutil.which("make")
needs_make = pytest.mark.skipif(MAKE is None, reason="no make on this machine")
project = tomllib.loads((ROOT / "pyproject.toml").read_text())
pins = {
    canonicalize_name(match[1]): match[2]
    for match in map(PIN.fullmatch, (ROOT / "constraints.txt").read_text().splitlines())
    if match
}


def test_constraints_hold_versions_and_nothing_else() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert [line for line in lines if line and not line.startswith("#") and not PIN.fullmatch(line)] == []


def test_every_dependency_is_pinned_transitive_ones_too() -> None:
    needed = {f"{need.name} (of {by})" for by, need in all_needs() if canonicalize_name(need.name) not in pins}
    assert needed == set()


def test_pins_are_within_what_is_asked_for() -> None:
    broken = {
        f"{need} (of {by}): {pins[canonicalize_name(need.name)]}"
        for by, need in all_needs()
        if pins[canonicalize_name(need.name)] not in need.specifier
    }
    assert broken == set()


def test_nothing_is_pinned_that_nobody_needs() -> None:
    # The build backend asks for this one only at the moment of an editable installation.
    assert set(pins) - {canonicalize_name(need.name) for _, need in all_needs()} == {"editables"}


def all_needs() -> Iterator[tuple[str, Requirement]]:
    """Walk what straggler, its tests and its build need, and what that needs, and so on."""
    asked = [*project["build-system"]["requires"], *project["project"]["dependencies"]]
    asked += [text for extra in project["project"]["optional-dependencies"].values() for text in extra]
    # An extra that names others, `straggler[metrics]`, is in the list with them.
    waiting = [("straggler", need) for need in map(Requirement, asked) if need.name != "straggler"]
    seen = set()
    while waiting:
        by, need = waiting.pop()
        yield by, need
        if str(need) not in seen:
            seen.add(str(need))
            waiting += [(need.name, further) for further in needs_of(need)]


def needs_of(need: Requirement) -> list[Requirement]:
    try:
        texts = distribution(need.name).requires or []
    except PackageNotFoundError:  # needed on another Python only
        return []
    found = [Requirement(text) for text in texts]
    extras = ("", *need.extras)
    return [
        further
        for further in found
        if further.marker is None
        or any(further.marker.evaluate({**where, "extra": extra}) for where in ENVIRONMENTS for extra in extras)
    ]


def test_wheel_holds_every_file_of_the_five_rooms_and_nothing_else(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    with ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        [entry_points] = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
        assert "straggler = straggler.cli:main" in archive.read(entry_points).decode()
    here = {
        str(path.relative_to(ROOT))
        for room in ROOMS
        for path in (ROOT / room).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert names == here
    assert {f"{room}/py.typed" for room in ROOMS} < names
    assert "protocol/scripts/record.lua" in names
    assert "dashboard/static/live.js" in names


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("producer/batch.py", "import workers.starting.slots"),
        ("workers/starting/slots.py", "import producer.batch"),
        ("workers/starting/slots.py", "from straggler import job"),
        ("dashboard/words.py", "import workers.starting.slots"),
        ("dashboard/words.py", "from protocol.connection import connect"),
        ("dashboard/words.py", "from straggler import job"),
        ("producer/batch.py", "import dashboard.words"),
        ("workers/starting/slots.py", "import dashboard.words"),
        ("protocol/keys.py", "import workers.starting.slots"),
        ("protocol/keys.py", "import producer.batch"),
        ("protocol/keys.py", "import straggler"),
        ("protocol/keys.py", "import arq"),
        ("producer/batch.py", "from arq.connections import ArqRedis"),
        ("workers/starting/slots.py", "def f():\n    import arq.worker"),
        ("straggler/inprocess.py", "from arq import create_pool"),
    ],
)
def test_an_import_across_the_rooms_is_found(module: str, line: str, tmp_path: Path) -> None:
    for room in ROOMS:
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / module).open("a") as file:
        file.write(f"\n{line}\n")
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", "--no-logo"]
    outcome = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert outcome.returncode == 1, outcome.stdout
    assert "2 kept, 1 broken" in outcome.stdout


@pytest.mark.parametrize("room", ROOMS)
def test_no_module_is_over_300_lines_and_no_function_body_over_40(room: str) -> None:
    texts = {str(path.relative_to(ROOT)): path.read_text() for path in (ROOT / room).rglob("*.py")}
    assert {name: text.count("\n") for name, text in texts.items() if text.count("\n") > 300} == {}
    functions = {
        f"{name}:{node.lineno} {node.name}": body_length(node)
        for name, text in texts.items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {name: length for name, length in functions.items() if length > 40} == {}


def body_length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


@needs_make
def test_make_names_the_cure_for_a_python_that_is_too_old(tmp_path: Path) -> None:
    old = tmp_path / "python3.10"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && { echo Python 3.10.13; exit; }\nexit 1\n')
    old.chmod(0o755)
    command = [str(MAKE), "test", f"PYTHON={old}", f"VENV={tmp_path / 'venv'}"]
    outcome = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert outcome.returncode != 0
    assert "needs Python 3.11 or newer" in outcome.stderr
    assert "Python 3.10.13" in outcome.stderr
    assert "make test PYTHON=python3.11" in outcome.stderr
    assert not (tmp_path / "venv").exists()


@needs_make
def test_make_lists_what_it_can_do() -> None:
    outcome = subprocess.run([str(MAKE)], cwd=ROOT, check=True, capture_output=True, text=True)
    for target in ("demo", "test", "check", "bench", "clean"):
        assert f"make {target} " in outcome.stdout
