"""Any exception becomes a failure's fields, whatever its own methods do."""

from __future__ import annotations

import pytest

from protocol.results import TRACEBACK_LIMIT, FailureResult
from workers.ending.failures import MESSAGE_LIMIT, describe


class OwnError(Exception):
    pass


class UnspeakableError(Exception):
    def __str__(self) -> str:
        raise SystemExit

    def __repr__(self) -> str:
        raise KeyboardInterrupt


class WordyError(Exception):
    def __str__(self) -> str:
        return 3  # type: ignore[return-value]  # noqa: PLE0307  # what broken libraries do


def raised(error: BaseException) -> BaseException:
    with pytest.raises(type(error)) as caught:
        raise error
    return caught.value


def test_an_error_is_told_by_qualified_type_message_and_traceback() -> None:
    assert describe(ValueError("no"))["error_type"] == "ValueError"
    told = describe(raised(OwnError("no")))
    assert told["error_type"] == f"{__name__}.OwnError"
    assert told["message"] == "no"
    assert "raise error" in told["traceback"]
    assert told["traceback"].endswith("OwnError: no\n")


def test_long_texts_are_cut_where_they_tell_least() -> None:
    told = describe(raised(ValueError("begin" + "x" * 50_000 + "end")))
    assert (len(told["message"]), told["message"][:5]) == (MESSAGE_LIMIT, "begin")
    assert len(told["traceback"]) == TRACEBACK_LIMIT
    assert told["traceback"].endswith("end\n")


@pytest.mark.parametrize(
    "error", [UnspeakableError(), WordyError(), ValueError("\ud800"), ExceptionGroup("g", [OwnError()])]
)
def test_an_error_that_cannot_say_itself_is_told_all_the_same(error: BaseException) -> None:
    told = describe(raised(error))
    result = FailureResult(job_id="b:0", index=0, function="f", **told)  # type: ignore[arg-type]  # all texts
    assert FailureResult.model_validate_json(result.model_dump_json()) == result
    assert type(error).__name__ in told["error_type"]
    assert told["message"]
