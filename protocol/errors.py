"""The errors that users meet, as one tree.

    StragglerError
    ├── UsageError (ValueError)      the caller's input; nothing was lost by it
    │   ├── OptionError              an option, a setting or a URL that cannot be
    │   ├── ArgumentsError           a job's parameters do not fit its function
    │   ├── UnknownFunctionError     no such job, or a name that stands for two
    │   ├── PayloadTooLargeError     a job's arguments are over the limit
    │   └── InputError               a row or a file that cannot be read
    ├── ProtocolError                bytes in Redis that are not ours; names the key
    ├── BatchNotFoundError           no batch of that id: never submitted, deleted, or past its lifetime
    │   └── BatchLostError           it was there, and is gone
    ├── BatchClosedError             it takes no more jobs; those that it has are not touched
    ├── BatchEndedError              its time cannot be changed any more
    ├── RedisUnavailableError        Redis cannot be reached
    └── UnsuccessfulError            raised by `.unwrap()` and `gather()`: a job that did not succeed; has `.result`
        ├── JobTimeoutError (TimeoutError)
        ├── JobFailedError
        ├── JobCancelledError
        └── JobLostError

Each message holds the offending value, what was allowed, and what to do.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import ValidationError


class StragglerError(Exception):
    """Whatever goes wrong in straggler itself."""


class UsageError(StragglerError, ValueError):
    """The caller's input cannot be used."""


class OptionError(UsageError):
    """An option, a setting or a URL that cannot be."""


class ArgumentsError(UsageError):
    """A job's parameters do not fit its function."""


class UnknownFunctionError(UsageError):
    """No job function of that name, or a name that stands for two."""


class PayloadTooLargeError(UsageError):
    """A job's arguments, as JSON, are over the limit."""


class InputError(UsageError):
    """A row or a file that cannot be read."""


class ProtocolError(StragglerError):
    """Bytes in Redis that are not ours.

    Args:
        key: Where they stand.
        problem: What is wrong with them.
    """

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(f"unreadable data in Redis key {key!r}: {problem}")
        self.key = key
        self.problem = problem


class BatchNotFoundError(StragglerError):
    """No batch of that id in Redis."""

    def __init__(self, batch_id: str) -> None:
        super().__init__(
            f"no batch {batch_id!r} in this Redis: it was never submitted here, was deleted, or is past its lifetime; "
            "'straggler status' lists the batches that are kept"
        )
        self.batch_id = batch_id


class BatchLostError(BatchNotFoundError):
    """The batch was in Redis, and is gone, or its last jobs are.

    Args:
        batch_id: The batch.
        is_cut_short: Whether it is there, with fewer jobs than it had, or open again.
    """

    def __init__(self, batch_id: str, *, is_cut_short: bool = False) -> None:
        if is_cut_short:
            message = (
                f"batch {batch_id!r} had more jobs in this Redis, or was closed: Redis has restarted without its last "
                "writes. Submit the same jobs with the same batch_id again, which adds what is missing and nothing "
                "twice; to an open batch add them, and close it"
            )
        else:
            message = (
                f"batch {batch_id!r} was in this Redis and is gone: Redis has restarted without its data, or the batch "
                "was deleted, or it is past its lifetime (keep_results). Submit its jobs again; with 'appendonly yes' "
                "Redis keeps its data over a restart"
            )
        StragglerError.__init__(self, message)
        self.batch_id = batch_id


class BatchClosedError(StragglerError):
    """The batch takes no more jobs.

    Args:
        batch_id: The batch.
        total: How many jobs it has.
    """

    def __init__(self, batch_id: str, total: int) -> None:
        super().__init__(
            f"batch {batch_id!r} is closed with {total:,} jobs, and nothing beyond them was added: it was closed, "
            "stopped or cancelled, it was submitted (only open_batch makes one that is added to), or its deadline has "
            "passed. Submit the others under another id"
        )
        self.batch_id = batch_id
        self.total = total


class BatchEndedError(StragglerError):
    """The batch has ended, so its deadline cannot be moved.

    Args:
        batch_id: The batch.
        why: How it has ended.
    """

    def __init__(self, batch_id: str, why: str) -> None:
        super().__init__(
            f"batch {batch_id!r} cannot be extended: {why}. What has no success there may run again in a batch of its "
            "own: Batch.retry(...), or 'straggler retry'"
        )
        self.batch_id = batch_id


class RedisUnavailableError(StragglerError):
    """Redis cannot be reached."""


class UnsuccessfulError(StragglerError):
    """A job that did not succeed, raised where its value was asked for.

    Args:
        message: What happened to which job.
        result: The job's result.
    """

    def __init__(self, message: str, result: Any) -> None:
        super().__init__(message)
        self.result = result


class JobTimeoutError(UnsuccessfulError, TimeoutError):
    """The job ran out of one of its clocks."""


class JobFailedError(UnsuccessfulError):
    """The job raised, or returned what cannot be a result."""


class JobCancelledError(UnsuccessfulError):
    """The job was cancelled on request."""


class JobLostError(UnsuccessfulError):
    """The worker died under the job, as often as it may."""


def explain(error: ValidationError, limit: int = 3) -> str:
    """Put pydantic's findings on one line: `name: what is wrong, got value`, at most `limit` of them."""
    findings = error.errors(include_url=False)
    # What is wrong with a part says enough: that the whole is too short without it is no finding of its own.
    places = {finding["loc"][:length] for finding in findings for length in range(len(finding["loc"]))}
    findings = [finding for finding in findings if finding["loc"] not in places]
    told = [_finding(finding) for finding in findings[:limit]]
    if len(findings) > limit:
        told.append(f"and {len(findings) - limit} more")
    return "; ".join(told)


def _finding(finding: Any) -> str:
    where = ".".join(str(part) for part in finding["loc"])
    text = _on_one_line(finding["msg"].removeprefix("Value error, "))
    got = "" if finding["type"] == "missing" else f", got {shorten(_on_one_line(repr(finding['input'])))}"
    return f"{where}: {text}{got}" if where else f"{text}{got}"


def _on_one_line(text: str) -> str:
    return " ".join(text.splitlines())


def suggest(name: str, known: Iterable[str], prefix: str = "") -> str:
    """Say which name may have been meant, where all begin with `prefix`; if none is alike, which there are."""
    names = sorted(known)
    alike = get_close_matches(name.removeprefix(prefix), [known.removeprefix(prefix) for known in names], n=3)
    if alike:
        return f"did you mean {' or '.join(prefix + bare for bare in alike)}?"
    return f"known are {', '.join(names) or 'none'}"


def shorten(text: str, limit: int = 80) -> str:
    """Cut a text that is to stand inside a message."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
