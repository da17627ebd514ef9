"""Logs of a command: lines for people, or a JSON object a line for programs; what the events are is in docs/logs.md."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

from protocol.settings import Settings
from straggler.commands.process import say

# What every record of Python's has, and no event of ours.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def set_up_logs(settings: Settings, *, verbose: bool = False, live: bool = False) -> None:
    """Write logs to stderr, a line for each event, as the settings say: what is no warning only on request.

    Args:
        settings: How they are written, and from which level on.
        verbose: Whether to write what is no warning, too, unless the settings say from which level on.
        live: Whether a progress bar may be on the screen, above which lines are to be put.
    """
    handler = _AboveTheBar() if live else logging.StreamHandler()
    plain = logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    handler.setFormatter(JsonFormatter() if settings.log_format == "json" else plain)
    logging.raiseExceptions = False  # a job may have closed stderr
    level = settings.log_level or ("info" if verbose else "warning")
    # Of others' libraries nobody wants to read each step.
    logging.basicConfig(level=max(logging.INFO, _LEVELS[level]), handlers=[handler])
    for room in ("protocol", "producer", "workers", "straggler", "dashboard"):
        logging.getLogger(room).setLevel(_LEVELS[level])


def log_life(command: logging.Logger) -> None:
    """Let a worker, and the command that runs it, say when it starts and stops, not verbose too."""
    for each in (logging.getLogger("workers.worker"), command):
        each.setLevel(min(logging.INFO, logging.getLogger("workers").level))


class JsonFormatter(logging.Formatter):
    """A record as one JSON object on one line: time (UTC), level, event, message, and the event's fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Write a record."""
        fields = {name: value for name, value in vars(record).items() if name not in _STANDARD}
        told = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": fields.pop("event", None) or record.name,
            "message": record.getMessage(),
            **fields,
        }
        if record.exc_info:
            told["traceback"] = self.formatException(record.exc_info)
        return json.dumps(told, default=str)


class _AboveTheBar(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say(self.format(record))


_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
