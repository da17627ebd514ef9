"""Jobs as people name them on the command line: by their indexes."""

from __future__ import annotations

from collections.abc import Sequence

from protocol.errors import OptionError


def read_indexes(words: Sequence[str] | None) -> list[int] | None:
    """Read indexes; None where none were given.

    Raises:
        OptionError: If one is no number.
    """
    for word in words or ():
        if not word.isdecimal():
            raise OptionError(f"--index {word}: a job's index is its place in its batch, from 0")
    return None if words is None else [int(word) for word in words]
