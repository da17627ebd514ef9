"""An exception as the fields of a `FailureResult`."""

from __future__ import annotations

import traceback

from protocol.errors import StragglerError
from protocol.results import TRACEBACK_LIMIT

# A message is for people and for grouping; what a library puts into one (a whole page, say) is not.
MESSAGE_LIMIT = 2_000


class DescribedError(StragglerError):
    """A job raised in another process; carries what `describe` said of it there."""

    def __init__(self, described: dict[str, str]) -> None:
        super().__init__(described["message"])
        self.described = described


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


def _text(error: BaseException) -> str:
    try:
        return _encodable(str(error))
    except BaseException as broken:  # noqa: BLE001  # a job's exception may be unable to say itself
        return f"(its text cannot be had: {type(broken).__name__})"


def _traceback(error: BaseException) -> str:
    try:
        return _encodable("".join(traceback.format_exception(error)))
    except BaseException as broken:  # noqa: BLE001  # as above
        return f"(its traceback cannot be had: {type(broken).__name__})"


def _encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
