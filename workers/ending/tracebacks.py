"""An exception's traceback, as Python writes it, for batches of which many jobs fail alike.

To look up a frame's line and what of it to underline takes Python 60 us, so the text of each place is kept. What is
more than a row of places, as a cause, a note or a hint at the right name, is left to Python.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from types import CodeType, TracebackType

# Of so many places the text is kept, some 200 bytes each.
_MOST_PLACES = 1000
# These have more to say than their text: where in a line, or which name was meant.
_TALKATIVE = (SyntaxError, NameError, AttributeError, ImportError, BaseExceptionGroup)

_places: dict[tuple[CodeType, str, int, int], str] = {}


def format_error(error: BaseException) -> str:
    """Write what `traceback.format_exception` does."""
    frames = list(_frames(error.__traceback__))
    if not _is_plain(error) or len(set(frames)) < len(frames):  # where it repeats itself, Python counts
        return "".join(traceback.format_exception(error))
    head = ["Traceback (most recent call last):\n"] if frames else []
    return "".join([*head, *frames, *_last_line(error)])


def _is_plain(error: BaseException) -> bool:
    has_context = error.__cause__ is not None or (error.__context__ is not None and not error.__suppress_context__)
    return not has_context and not isinstance(error, _TALKATIVE) and not hasattr(error, "__notes__")


def _frames(trace: TracebackType | None) -> Iterator[str]:
    while trace is not None:
        code = trace.tb_frame.f_code
        # Code is the same, to Python, wherever it stands.
        place = code, code.co_filename, trace.tb_lasti, trace.tb_lineno
        text = _places.get(place)
        if text is None:
            if len(_places) >= _MOST_PLACES:
                _places.clear()
            one = TracebackType(None, trace.tb_frame, trace.tb_lasti, trace.tb_lineno)
            text = _places[place] = "".join(traceback.format_tb(one))
        yield text
        trace = trace.tb_next


def _last_line(error: BaseException) -> list[str]:
    kind = type(error)
    try:
        text = str(error)
    except BaseException:  # noqa: BLE001  # the job's own; Python writes the same
        text = "<exception str() failed>"
    name = (
        kind.__qualname__ if kind.__module__ in ("__main__", "builtins") else f"{kind.__module__}.{kind.__qualname__}"
    )
    return [f"{name}: {text}\n" if text else f"{name}\n"]
