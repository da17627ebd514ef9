"""Where a command's results go, and how it shows how far it is."""

from __future__ import annotations

import json
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from producer.export import STDOUT, Export
from producer.progress import Progress, make_progress
from straggler.commands.notes import notes
from straggler.commands.watching import WatchProgress


@dataclass(frozen=True, slots=True)
class Output:
    """What the command line says of the output.

    Args:
        path: `--out`: a file, `-` for stdout, None for nowhere.
        as_json: `--json`: the closing summary as JSON on stdout.
        watches: `--watch`: a screen full in place of a bar.
    """

    path: str | None = None
    as_json: bool = False
    watches: bool = False

    @property
    def is_on_stdout(self) -> bool:
        """Whether stdout is for data, and nothing else may be printed there."""
        return self.path == STDOUT or self.as_json

    def export(self, *, append: bool = False) -> AbstractContextManager[Export | None]:
        """Open the file that results go to, if they go to any."""
        return nullcontext() if self.path is None else Export(self.path, append=append)

    def progress(self) -> Progress:
        """Choose how to show progress: live on a terminal, unless that is where the results go; else in plain lines."""
        is_live = notes.is_terminal and not (self.path == STDOUT and sys.stdout.isatty())
        return WatchProgress(notes) if is_live and self.watches else make_progress(notes, live=is_live)


def print_json(facts: Any) -> None:
    """Print facts on stdout, for programs."""
    json.dump(facts, sys.stdout, indent=2)
    sys.stdout.write("\n")
    sys.stdout.flush()
