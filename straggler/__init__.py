"""straggler: batches of jobs on a pool of workers, each job inside a timeout of its own.

Everything that users import stands here; each name is loaded when it is first used, so importing costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from producer.batch import RAISE as RAISE
    from producer.batch import Batch as Batch
    from producer.producer import Producer as Producer
    from producer.waiting import ALL_COMPLETED as ALL_COMPLETED
    from producer.waiting import FIRST_COMPLETED as FIRST_COMPLETED
    from producer.waiting import FIRST_EXCEPTION as FIRST_EXCEPTION
    from protocol.attempts import Attempt as Attempt
    from protocol.batches import BatchOptions as BatchOptions
    from protocol.batches import BatchStatus as BatchStatus
    from protocol.errors import ArgumentsError as ArgumentsError
    from protocol.errors import BatchClosedError as BatchClosedError
    from protocol.errors import BatchEndedError as BatchEndedError
    from protocol.errors import BatchLostError as BatchLostError
    from protocol.errors import BatchNotFoundError as BatchNotFoundError
    from protocol.errors import InputError as InputError
    from protocol.errors import JobCancelledError as JobCancelledError
    from protocol.errors import JobFailedError as JobFailedError
    from protocol.errors import JobLostError as JobLostError
    from protocol.errors import JobTimeoutError as JobTimeoutError
    from protocol.errors import OptionError as OptionError
    from protocol.errors import PayloadTooLargeError as PayloadTooLargeError
    from protocol.errors import ProtocolError as ProtocolError
    from protocol.errors import RedisUnavailableError as RedisUnavailableError
    from protocol.errors import StragglerError as StragglerError
    from protocol.errors import UnknownFunctionError as UnknownFunctionError
    from protocol.errors import UnsuccessfulError as UnsuccessfulError
    from protocol.errors import UsageError as UsageError
    from protocol.jobs import JobSpec as JobSpec
    from protocol.results import CancelledResult as CancelledResult
    from protocol.results import FailureResult as FailureResult
    from protocol.results import LostResult as LostResult
    from protocol.results import Result as Result
    from protocol.results import SuccessResult as SuccessResult
    from protocol.results import TimeoutResult as TimeoutResult
    from protocol.running import RunningJob as RunningJob
    from protocol.settings import Settings as Settings
    from straggler import sync as sync
    from straggler.inprocess import embedded as embedded
    from workers.calling.context import current_job as current_job
    from workers.ending.retries import Retry as Retry
    from workers.local import with_result as with_result
    from workers.local import with_timeout as with_timeout
    from workers.registry import job as job

_HOMES = {
    "producer.batch": ("RAISE", "Batch"),
    "producer.producer": ("Producer",),
    "producer.waiting": ("ALL_COMPLETED", "FIRST_COMPLETED", "FIRST_EXCEPTION"),
    "protocol.attempts": ("Attempt",),
    "protocol.batches": ("BatchOptions", "BatchStatus"),
    "protocol.errors": (
        "ArgumentsError", "BatchClosedError", "BatchEndedError", "BatchLostError", "BatchNotFoundError", "InputError",
        "JobCancelledError", "JobFailedError", "JobLostError", "JobTimeoutError", "OptionError",
        "PayloadTooLargeError", "ProtocolError", "RedisUnavailableError", "StragglerError", "UnknownFunctionError",
        "UnsuccessfulError", "UsageError",
    ),
    "protocol.jobs": ("JobSpec",),
    "protocol.results": (
        "CancelledResult", "FailureResult", "LostResult", "Result", "SuccessResult", "TimeoutResult",
    ),
    "protocol.running": ("RunningJob",),
    "protocol.settings": ("Settings",),
    "straggler.inprocess": ("embedded",),
    "workers.calling.context": ("current_job",),
    "workers.local": ("with_result", "with_timeout"),
    "workers.registry": ("job",),
    "workers.ending.retries": ("Retry",),
}  # fmt: skip
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)  # noqa: PLE0605  # built from the table above


def __getattr__(name: str) -> Any:
    if name == "sync":
        return _import("straggler.sync")
    if name not in _HOME_OF:
        raise AttributeError(f"module 'straggler' has no attribute {name!r}")
    value = getattr(_import(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def _import(home: str) -> Any:
    try:
        return import_module(home)
    except ModuleNotFoundError as error:
        if not str(error).endswith("is not a package"):
            raise
        room = home.partition(".")[0]
        raise ImportError(
            f"a file of yours named {room}.py stands before straggler's package {room!r} on Python's path: rename it"
        ) from None


def __dir__() -> list[str]:
    return [*globals(), *__all__]
