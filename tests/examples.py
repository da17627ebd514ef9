"""The examples of our pages, as a reader would run them: each block of Python is imported as a module of its own.

A test module names the pages of docs/ whose examples it tries, in `PAGES`, asks for the fixture `example`, and asserts
that `untried` finds none.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from workers import registry

DOCS = Path(__file__).parent.parent / "docs"

Example = Callable[[str], Any]
"""Import the example that defines a name."""


@pytest.fixture
def example(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Example]:
    """Import examples of the test module's pages; the jobs that they define are forgotten afterwards."""
    before = dict(registry._jobs)
    monkeypatch.syspath_prepend(str(tmp_path))
    loaded: list[str] = []

    def load(name: str) -> Any:
        [text] = [block for block in blocks(request.module.PAGES) if name in names(block)]
        path = tmp_path / f"example_of_{name}.py"
        path.write_text(text)
        loaded.append(path.stem)
        return importlib.import_module(path.stem)

    yield load
    for module in loaded:
        sys.modules.pop(module, None)  # another page may have an example of that name
    registry._jobs.clear()
    registry._jobs.update(before)


def untried(pages: Sequence[str], test: str) -> list[str]:
    """Return the pages' examples that no test of a module, given by its `__file__`, asks for."""
    tried = Path(test).read_text()
    return [block for block in blocks(pages) if not any(f'example("{name}")' in tried for name in names(block))]


def blocks(pages: Sequence[str]) -> list[str]:
    """Return the examples of some pages."""
    return re.findall(r"```python\n(.*?)```", "".join((DOCS / f"{page}.md").read_text() for page in pages), re.DOTALL)


def names(block: str) -> list[str]:
    """Name the functions that an example defines."""
    return re.findall(r"def (\w+)\(", block)
