"""A traceback is what Python writes, and the text of a place is looked up once."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

import pytest

from workers.ending import tracebacks
from workers.ending.tracebacks import format_error


class OwnError(ValueError):
    """An error of a module's own."""


def deep(times: int) -> None:
    if times:
        deep(times - 1)
    raise OwnError("deep")


def fail_first() -> None:
    raise KeyError("first")


def with_cause() -> None:
    try:
        fail_first()
    except KeyError as error:
        raise OwnError("second") from error


def with_context() -> None:
    try:
        fail_first()
    except KeyError:
        raise OwnError("second")  # noqa: B904  # what is looked at


def without_context() -> None:
    try:
        fail_first()
    except KeyError:
        raise OwnError("second") from None


def with_note() -> None:
    error = OwnError("text")
    error.add_note("and a note\nof two lines")
    raise error


def group() -> None:
    raise ExceptionGroup("several", [OwnError("a"), KeyError("b")])


def misspelt() -> None:
    [].apend(1)  # type: ignore[attr-defined]  # what is looked at


def unnamed() -> None:
    raise OwnError


class MuteError(Exception):
    """An error that cannot say itself."""

    def __str__(self) -> str:
        raise OwnError("no text")


def mute() -> None:
    raise MuteError


def many_lines() -> None:
    raise OwnError("one\ntwo\n")


def compiled() -> None:
    exec("raise RuntimeError('no source')")  # noqa: S102  # what is looked at


RAISING = [
    deep, with_cause, with_context, without_context, with_note, group, misspelt, unnamed, mute, many_lines, compiled,
]  # fmt: skip


def caught(call: Callable[..., Any], *args: Any) -> BaseException:
    with pytest.raises(BaseException) as raised:  # noqa: PT011  # any
        call(*args)
    return raised.value


@pytest.mark.parametrize("raising", RAISING, ids=lambda raising: raising.__name__)
def test_a_traceback_is_what_python_writes(raising: Callable[..., None]) -> None:
    args = (0,) if raising is deep else ()
    for _ in range(2):
        error = caught(raising, *args)
        assert format_error(error) == "".join(traceback.format_exception(error))


@pytest.mark.parametrize("times", [1, 2, 3, 4, 20])
def test_one_that_repeats_itself_is_what_python_writes(times: int) -> None:
    error = caught(deep, times)
    assert format_error(error) == "".join(traceback.format_exception(error))


def test_an_error_that_was_never_raised_has_no_places() -> None:
    assert format_error(OwnError("x")) == f"{__name__}.OwnError: x\n"


def test_two_functions_that_are_alike_stand_in_files_of_their_own() -> None:
    calls: list[dict[str, Any]] = [{}, {}]
    for name, names in zip("ab", calls, strict=True):
        exec(compile("def fail():\n    raise ValueError('no')\n", f"/{name}.py", "exec"), names)  # noqa: S102
    assert calls[0]["fail"].__code__ == calls[1]["fail"].__code__
    for name, names in zip("ab", calls, strict=True):
        assert f'File "/{name}.py", line 2, in fail' in format_error(caught(names["fail"]))


def test_a_place_is_looked_up_once_and_no_more_places_are_kept_than_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracebacks, "_places", {})
    monkeypatch.setattr(tracebacks, "_MOST_PLACES", 4)
    looked_up, format_tb = [], traceback.format_tb

    def count(trace: Any) -> list[str]:
        looked_up.append(trace)
        return format_tb(trace)

    monkeypatch.setattr(traceback, "format_tb", count)
    for _ in range(3):
        format_error(caught(unnamed))
    assert len(looked_up) == 2
    for raising in (many_lines, without_context, with_note):
        format_error(caught(raising))
        assert len(tracebacks._places) <= 4
