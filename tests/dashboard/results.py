"""Results for tests, made by hand."""

from __future__ import annotations

from typing import Any

from protocol.facts import Facts, decode_facts
from protocol.recording import encode_row
from protocol.results import CancelledResult, FailureResult, LostResult, Result, SuccessResult, TimeoutResult


def _common(index: int, given: dict[str, Any]) -> dict[str, Any]:
    about: dict[str, Any] = {"function": "fetch", "worker": "w1", "enqueued_at": 100.0, "started_at": 101.0}
    about |= {"finished_at": 102.0, **given}
    return {"job_id": f"b:{index}", "index": index, **about}


def success(index: int = 0, value: Any = None, **given: Any) -> SuccessResult[Any]:
    return SuccessResult(value=value, **_common(index, given))


def timeout(index: int = 0, **given: Any) -> TimeoutResult:
    return TimeoutResult(**{"limit": 3.0, "phase": "running", "stopped": "cancelled", **_common(index, given)})


def failure(index: int = 0, message: str = "no", error_type: str = "ValueError", **given: Any) -> FailureResult:
    return FailureResult(message=message, error_type=error_type, **_common(index, given))


def cancelled(index: int = 0, reason: str = "", **given: Any) -> CancelledResult:
    return CancelledResult(reason=reason, **_common(index, given))


def lost(index: int = 0, reason: str = "the worker died", **given: Any) -> LostResult:
    return LostResult(reason=reason, **_common(index, given))


def facts_of(*results: Result[Any]) -> Facts:
    """Write results as one entry of a stream, and read what counts."""
    rows = b",".join(encode_row(**result.model_dump(exclude={"job_id"})) for result in results)
    return decode_facts("b", {b"common": b'{"function": "fetch"}', b"rows": b"[%b]" % rows}, "key")
