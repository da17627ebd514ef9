"""Methods that run their asynchronous twins on the loop of a `Portal`, and wait for them; typed as these are."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterable, Callable, Coroutine, Iterable
from concurrent.futures import Future
from itertools import islice
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from producer.batch import Batch as AsyncBatch
from producer.producer import Producer as AsyncProducer
from protocol.jobs import JobSpec, JobSpecs
from straggler.handover import Handover

if TYPE_CHECKING:
    from straggler.sync.batch import Batch
    from straggler.sync.portal import Portal
    from straggler.sync.producer import Producer

T = TypeVar("T")
R = TypeVar("R")
P = ParamSpec("P")

# Jobs that a source is ahead of their submission.
_JOBS_AHEAD = 256
# Jobs that are added in one step (`Batch.add`).
_JOBS_A_PORTION = 1000


def of_batch(
    method: Callable[Concatenate[AsyncBatch[R], P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Batch[R], P], T]:
    """Make a method of `Batch` from its twin."""
    return _twin(method)


def of_any_batch(
    method: Callable[Concatenate[AsyncBatch[Any], P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Batch[Any], P], T]:
    """Make a method of `Batch` from its twin, whatever the batch's jobs return."""
    return _twin(method)


def batch_of_batch(
    method: Callable[Concatenate[AsyncBatch[R], P], Coroutine[Any, Any, AsyncBatch[R]]],
) -> Callable[Concatenate[Batch[R], P], Batch[R]]:
    """Make a method of `Batch` whose twin returns a batch."""
    return _twin(method)


def of_producer(
    method: Callable[Concatenate[AsyncProducer, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Producer, P], T]:
    """Make a method of `Producer` from its twin."""
    return _twin(method)


def batch_of_producer(
    method: Callable[Concatenate[AsyncProducer, P], Coroutine[Any, Any, AsyncBatch[R]]],
) -> Callable[Concatenate[Producer, P], Batch[R]]:
    """Make a method of `Producer` whose twin returns a batch."""
    return _twin(method)


def _twin(method: Callable[..., Any]) -> Callable[..., Any]:
    """Make a method that runs its twin on the loop; a batch that this returns is handed out as one of ours."""

    @functools.wraps(method)
    def call(self: Producer | Batch[Any], *args: Any, **kwargs: Any) -> Any:
        return _wrapped(self.portal, self.portal.call(method(self.twin, *args, **kwargs)))

    return call


def fed(method: Callable[..., Any]) -> Callable[..., Any]:
    """Make such a method of one whose first argument is jobs: these are made in the thread that calls it."""
    call = _twin(method)

    @functools.wraps(method)
    def call_and_feed(self: Producer | Batch[Any], jobs: Any, *args: Any, **kwargs: Any) -> Any:
        if _is_at_hand(jobs):
            return call(self, jobs, *args, **kwargs)
        handover: Handover[Any] = Handover(self.portal.loop, _JOBS_AHEAD)

        def feed(outcome: Future[Any]) -> None:
            outcome.add_done_callback(lambda _: handover.stop())
            handover.fill(jobs)

        return _wrapped(self.portal, self.portal.call(method(self.twin, handover.stream(), *args, **kwargs), feed))

    return call_and_feed


def fed_by_portions(
    method: Callable[Concatenate[AsyncBatch[Any], P], Coroutine[Any, Any, list[T]]],
) -> Callable[Concatenate[Batch[Any], P], list[T]]:
    """Make such a method of one that takes jobs in portions: each is made whole in the thread that calls it."""
    return _by_portions(method)


def _by_portions(method: Callable[..., Any]) -> Callable[..., Any]:
    call = _twin(method)

    @functools.wraps(method)
    def call_for_each(self: Batch[Any], jobs: Any, *args: Any, **kwargs: Any) -> Any:
        if _is_at_hand(jobs):
            return call(self, jobs, *args, **kwargs)
        coming, found = iter(jobs), []
        while portion := list(islice(coming, _JOBS_A_PORTION)):
            found += call(self, portion, *args, **kwargs)
        return found

    return call_for_each


def _wrapped(portal: Portal, found: Any) -> Any:
    from straggler.sync.batch import Batch  # noqa: PLC0415  # its methods are made here

    return Batch(portal, found) if isinstance(found, AsyncBatch) else found


def _is_at_hand(jobs: Any) -> bool:
    """Whether jobs may be iterated on the loop: nothing that they wait for would hold it."""
    if isinstance(jobs, JobSpecs):
        return jobs.is_at_hand
    return isinstance(jobs, list | tuple | JobSpec | AsyncIterable) or not isinstance(jobs, Iterable)
