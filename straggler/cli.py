"""The door to the command line: what takes long is begun before anything is imported."""

# ruff: noqa: PLC0415  # what the command line imports is what its first worker process need not wait for

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from straggler.commands.recruit import Recruit

# Who asks for these wants no worker.
_QUESTIONS = {"--help", "-h", "--check"}


def main() -> None:
    """Run the command line; `worker` finds its first process on the way."""
    recruit = _recruit() if sys.argv[1:2] == ["worker"] and not _QUESTIONS.intersection(sys.argv) else None
    try:
        from straggler.usage.app import command_line

        command_line(prog_name="straggler", obj=recruit)
    finally:
        if recruit:
            recruit.dismiss()


def _recruit() -> Recruit | None:
    from straggler.commands.recruit import Recruit

    with suppress(OSError):  # the supervisor says it, should it find the same
        return Recruit()
    return None


if __name__ == "__main__":
    main()
