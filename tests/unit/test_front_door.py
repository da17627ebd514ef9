"""The front door: every public name is there, and loaded no sooner than it is used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType

import pytest

import straggler


@pytest.mark.parametrize("name", straggler.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(straggler, name) is not None
    assert name in dir(straggler)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = straggler.nonsense


def test_importing_straggler_loads_no_room() -> None:
    rooms = {"producer", "workers", "protocol", "redis", "pydantic"}
    code = f"import straggler, sys; print(sorted({rooms} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("room", [straggler, straggler.sync])
def test_no_module_has_a_public_name_which_would_then_depend_on_what_was_imported_first(room: ModuleType) -> None:
    modules = {module.name for module in iter_modules(room.__path__)}
    assert modules & set(room.__all__) == set()


def test_sync_is_loaded_when_it_is_used_and_hides_nothing() -> None:
    code = "import straggler; straggler.sync.Producer, straggler.sync.embedded; print(straggler.embedded.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "embedded"


@pytest.mark.parametrize(
    ("module", "dead_weight"),
    [
        ("straggler.usage.app", {"redis", "pydantic", "rich.console", "producer", "workers"}),
        ("straggler.commands.worker", {"rich", "producer.producer", "workers.worker", "workers.crew"}),
        ("straggler.commands.workerprocess", {"typer", "rich", "producer", "fakeredis", "aiohttp"}),
    ],
)
def test_what_people_wait_for_loads_no_more_than_it_needs(module: str, dead_weight: set[str]) -> None:
    code = f"import {module}, sys; print(sorted({dead_weight} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_script_that_shadows_one_of_our_packages_is_told_to_take_another_name(tmp_path: Path) -> None:
    script = tmp_path / "producer.py"
    script.write_text("from straggler import Producer\n")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith(
        "ImportError: a file of yours named producer.py stands before straggler's package 'producer'"
    )
