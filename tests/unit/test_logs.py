"""What is logged: each event is in the catalogue with its level and fields, and has the form that was asked for."""

from __future__ import annotations

import ast
import json
import logging
import re
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from protocol.settings import Settings
from straggler.commands.logs import JsonFormatter, set_up_logs
from tests.conftest import ROOT

ROOMS = ("protocol", "producer", "workers", "straggler", "dashboard")
LEVELS = {"debug": "debug", "info": "info", "warning": "warning", "error": "error", "exception": "error"}
# What a run says of itself (`Run.fields`).
SPREAD = {"batch", "job"}
ROW = re.compile(r"^\| `([a-z_.]+)` \| (\w+) \| (.*?) \| .+ \|$", re.MULTILINE)

Said = tuple[str, str, frozenset[str]]


def said_in_the_code() -> Iterator[Said]:
    """Find each event, its level and its fields."""
    for path in sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if is_log_call(node):
                assert isinstance(node, ast.Call)
                assert isinstance(node.func, ast.Attribute)
                yield from events_of(node, f"{path.relative_to(ROOT)}:{node.lineno}", LEVELS[node.func.attr])


def is_log_call(node: ast.AST) -> bool:
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Name(id="logger"), attr=method)):
            return method in LEVELS
        case _:
            return False


def events_of(call: ast.Call, place: str, level: str) -> Iterator[Said]:
    extra = next((keyword.value for keyword in call.keywords if keyword.arg == "extra"), None)
    assert isinstance(extra, ast.Dict), f"{place}: every line has its event"
    fields: set[str] = set()
    names: list[str] = []
    for key, value in zip(extra.keys, extra.values, strict=True):
        if key is None:
            fields |= SPREAD
        elif ast.literal_eval(key) == "event":
            names = [ast.literal_eval(each) for each in choices(value)]
        else:
            fields.add(ast.literal_eval(key))
    assert names, f"{place}: every line has its event"
    for name in names:
        yield name, level, frozenset(fields)


def choices(value: ast.expr) -> list[ast.expr]:
    return [value.body, value.orelse] if isinstance(value, ast.IfExp) else [value]


def test_catalogue_has_each_event_with_its_level_and_fields_and_no_other() -> None:
    code = {(name, level): fields for name, level, fields in said_in_the_code()}
    page = (ROOT / "docs" / "logs.md").read_text()
    rows = {(name, level): frozenset(re.findall(r"`(\w+)`", fields)) for name, level, fields in ROW.findall(page)}
    assert rows == code


def test_example_of_the_page_is_as_it_would_be_written() -> None:
    [line] = re.findall(r"^    ({.*})$", (ROOT / "docs" / "logs.md").read_text(), re.MULTILINE)
    told = json.loads(line)
    code = {name: fields for name, _, fields in said_in_the_code()}
    assert list(told)[:4] == ["time", "level", "event", "message"]
    assert set(list(told)[4:]) == code[told["event"]]


def test_messages_are_constant() -> None:
    for path in (path for room in ROOMS for path in (ROOT / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if is_log_call(node):
                assert isinstance(node, ast.Call)
                assert isinstance(node.args[0], ast.Constant), f"{path}:{node.lineno}"


# ---- the form


def record(message: str = "chunk %s done", *args: Any, **extra: Any) -> logging.LogRecord:
    return logging.getLogger("workers.test").makeRecord(
        "workers.test", logging.INFO, __file__, 1, message, args or ("b:0",), None, extra=extra
    )


def test_json_has_the_events_fields() -> None:
    told = json.loads(JsonFormatter().format(record(event="chunk.done", batch="b", path=Path("x"))))
    assert datetime.fromisoformat(told.pop("time")).tzinfo is not None
    assert told == {"level": "info", "event": "chunk.done", "message": "chunk b:0 done", "batch": "b", "path": "x"}


def test_json_of_a_library_that_knows_no_events_names_it() -> None:
    assert json.loads(JsonFormatter().format(record()))["event"] == "workers.test"


def test_json_is_one_line_whatever_is_said() -> None:
    made = record("%s", 'two\nlines "quoted" \ud800 \u2028')
    try:
        int("a\nb")
    except ValueError:
        made.exc_info = sys.exc_info()
    line = JsonFormatter().format(made)
    assert len(line.splitlines()) == 1
    assert json.loads(line)["traceback"].startswith("Traceback")


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """Give the root logger without handlers; put all back in the end."""
    root = logging.getLogger()
    names = ("", *ROOMS)
    before = {name: logging.getLogger(name).level for name in names}
    handlers, raises = root.handlers[:], logging.raiseExceptions
    yield root
    root.handlers, logging.raiseExceptions = handlers, raises
    for name, level in before.items():
        logging.getLogger(name).setLevel(level)


@pytest.mark.parametrize(
    ("level", "verbose", "expected"),
    [(None, False, "warning"), (None, True, "info"), ("debug", False, "debug"), ("error", True, "error")],
)
def test_level_is_that_of_the_settings_or_of_verbose(
    root: logging.Logger, level: Any, verbose: bool, expected: str
) -> None:
    root.handlers = []  # pytest's own, of this step
    set_up_logs(Settings(log_level=level), verbose=verbose)
    own, others = logging.getLogger("workers"), logging.getLogger("someone.else")
    assert own.isEnabledFor(getattr(logging, expected.upper()))
    assert not own.isEnabledFor(getattr(logging, expected.upper()) - 1)
    assert not others.isEnabledFor(logging.DEBUG)


def test_form_is_that_of_the_settings(root: logging.Logger) -> None:
    root.handlers = []  # pytest's own, of this step
    set_up_logs(Settings(log_format="json"))
    assert isinstance(root.handlers[0].formatter, JsonFormatter)
