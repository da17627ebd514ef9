"""Settings come from the environment or a `.env`; what is unknown or cannot be is an error in one line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from protocol.errors import OptionError
from protocol.settings import Settings


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("STRAGGLER_"):
            monkeypatch.delenv(name)


def test_nothing_need_be_set() -> None:
    settings = Settings.read()
    assert (settings.redis_url, settings.queue, settings.concurrency) == ("redis://localhost:6379", "default", 100)
    assert settings.max_arguments_bytes == settings.max_result_bytes == 1 << 20


def test_the_environment_is_read_and_wins_over_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("STRAGGLER_QUEUE=file\nSTRAGGLER_CONCURRENCY=7\nSOMEBODY_ELSES=1\n")
    monkeypatch.setenv("STRAGGLER_QUEUE", "environment")
    settings = Settings.read()
    assert (settings.queue, settings.concurrency) == ("environment", 7)


@pytest.mark.parametrize("name", ["STRAGGLER_QEUE", "straggler_qeue"])
def test_an_unknown_variable_is_an_error(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "x")
    with pytest.raises(OptionError, match=rf"unknown setting {name}; did you mean STRAGGLER_QUEUE\?"):
        Settings.read()


def test_a_variable_that_is_like_none_is_answered_with_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRAGGLER_ZZZ", "x")
    with pytest.raises(OptionError, match="unknown setting STRAGGLER_ZZZ; known are STRAGGLER_CONCURRENCY, "):
        Settings.read()


def test_an_unknown_name_in_the_file_is_an_error() -> None:
    Path(".env").write_text("STRAGGLER_QEUE=x\n")
    with pytest.raises(OptionError, match="unknown setting STRAGGLER_QEUE"):
        Settings.read()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CONCURRENCY", "0"),
        ("CONCURRENCY", "many"),
        ("LEASE", "0.5"),
        ("LEASE", "nan"),
        ("LEASE", "inf"),
        ("SHUTDOWN_WAIT", "-1"),
        ("QUEUE", "a b"),
        ("MAX_RESULT_BYTES", "0"),
        ("JOB_PROCESSES", "0"),
        ("KILL_FLOOR", "0"),
        ("MAX_ABANDONED", "-1"),
    ],
)
def test_a_value_that_cannot_be_is_named_in_one_line(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"STRAGGLER_{name}", value)
    with pytest.raises(
        OptionError, match=rf"(?s)setting {name.lower()}: .*, got '{value}' \(as STRAGGLER_{name}\)"
    ) as raised:
        Settings.read()
    assert "\n" not in str(raised.value)


def test_a_value_that_is_empty_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.setenv(f"STRAGGLER_{name.upper()}", "")
    read = Settings.read()
    for name in Settings.model_fields:
        monkeypatch.delenv(f"STRAGGLER_{name.upper()}")
    assert read == Settings()


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().queue = "other"
