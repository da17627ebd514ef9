"""An exception as the fields of a `FailureResult`, and the wish to run again."""

from __future__ import annotations

from protocol.errors import StragglerError
from protocol.results import TRACEBACK_LIMIT
from workers.ending.tracebacks import format_error

# A message is for people and for grouping; what a library puts into one (a whole page, say) is not.
MESSAGE_LIMIT = 2_000


class Again(BaseException):
    """A job wants to run again.

    Attributes:
        after: When, s from now; None leaves it to the usual back-off.
    """

    after: float | None = None


class DescribedError(StragglerError):
    """A job raised, here or in another process.

    Args:
        described: What `describe` said of it there.
        again: The job's wish to run again, if it was that.
    """

    def __init__(self, described: dict[str, str], again: Again | None = None) -> None:
        super().__init__(described["message"])
        self.described = described
        self.again = again


def describe(error: BaseException) -> dict[str, str]:
    """Tell an exception's type, message and traceback, whatever its own methods do."""
    if isinstance(error, DescribedError):
        return error.described
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return {
        "error_type": name,
        "message": _text(error)[:MESSAGE_LIMIT],
        "traceback": _traceback(error)[-TRACEBACK_LIMIT:],
    }


def described(error: BaseException) -> DescribedError:
    """Describe an exception, to be told where it cannot go itself."""
    return DescribedError(describe(error), asks_again(error))


def asks_again(error: BaseException) -> Again | None:
    """Say whether an exception is a job's wish to run again."""
    if isinstance(error, DescribedError):
        return error.again
    return error if isinstance(error, Again) else None


def _text(error: BaseException) -> str:
    try:
        return _encodable(str(error))
    except BaseException as broken:  # noqa: BLE001  # a job's exception may be unable to say itself
        return f"(its text cannot be had: {type(broken).__name__})"


def _traceback(error: BaseException) -> str:
    try:
        return _encodable(format_error(error))
    except BaseException as broken:  # noqa: BLE001  # as above
        return f"(its traceback cannot be had: {type(broken).__name__})"


def _encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
