"""The texts of our scripts (`protocol/scripts`), and the names that Redis gives them."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from importlib.resources import files


@lru_cache
def source(name: str) -> str:
    """Read a script; a line `-- @include name` stands for what is in that file, the first time that it is named."""
    included: set[str] = set()

    def read(name: str) -> str:
        included.add(name)
        text = files("protocol.scripts").joinpath(f"{name}.lua").read_text()
        return re.sub(r"^-- @include (\w+)$", include, text, flags=re.MULTILINE)

    def include(line: re.Match[str]) -> str:
        return "" if line[1] in included else read(line[1])

    return read(name)


@lru_cache
def sha(name: str, text: Callable[[str], str] = source) -> str:
    """Say how Redis names a script, whose text is `text(name)`."""
    from hashlib import sha1  # noqa: PLC0415  # Redis names scripts by it

    return sha1(text(name).encode(), usedforsecurity=False).hexdigest()
