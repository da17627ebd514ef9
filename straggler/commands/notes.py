"""Where notes for people go."""

from __future__ import annotations

import sys

from rich.console import Console

# Where there is no terminal there is no width either, and rich would take 80.
notes = Console(stderr=True, emoji=False, highlight=False, width=None if sys.stderr.isatty() else 120)
"""Progress, tables and notes for people, on stderr; stdout is for data."""
