"""What a job can ask about itself while it runs: `current_job()`."""

from __future__ import annotations

import time
from asyncio import get_running_loop
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextvars import Context, ContextVar
from typing import Any, Protocol

from protocol.errors import StragglerError
from protocol.jobs import JobSpec
from protocol.newjobs import NewJob, encode_new
from workers.calling import reports

_current: ContextVar[RunsJob] = ContextVar("straggler_current_job")


class CurrentJob:
    """The job that is running here.

    Args:
        run: Its run.
        batch_id: Its batch.
        index: Its place in the batch, from 0.
        key: What the producer called it.
        attempt: From 1.
    """

    __slots__ = ("_run", "attempt", "batch_id", "index", "key")

    def __init__(self, run: RunsJob, batch_id: str, index: int, key: str | None, attempt: int) -> None:
        self._run = run
        self.batch_id = batch_id
        self.index = index
        self.key = key
        self.attempt = attempt

    def __repr__(self) -> str:
        return f"<job {self.job_id}, attempt {self.attempt}>"

    @property
    def job_id(self) -> str:
        """`batch:index`."""
        return f"{self.batch_id}:{self.index}"

    @property
    def deadline(self) -> float:
        """When its time is up, on `time.monotonic()`; it moves while another job blocks the event loop."""
        return self._run.deadline

    @property
    def cancelling(self) -> bool:
        """Whether the job was asked to stop: its deadline has passed, it was cancelled, or its worker stops.

        A CancelledError that comes while this is false is the job's own. Always false in a job's own process, which is
        killed without being asked.
        """
        return self._run.cancelling

    def remaining(self) -> float:
        """Seconds until the deadline; 0 once it has passed."""
        return max(0.0, self.deadline - time.monotonic())

    def heartbeat(self, progress: float | None = None, note: str = "") -> None:
        """Say that the job is alive, and how far it is; people see it in the batch's status within a second or two.

        As cheap as a few assignments: nothing is sent here, so call it as often as you like, from the job, its tasks,
        threads and processes. After the job's end it does nothing.

        Args:
            progress: 0 to 1; what was said before stays if it is left out.
            note: A line for people, e.g. `page 4 of 10`; the same holds. Cut at 200 letters.

        Raises:
            OptionError: If the progress is no number from 0 to 1, or the note no text.
        """
        if progress is not None or note != "":
            reports.check(progress, note)
        if self._run.outcome is None:
            self._run.report(progress, note)

    async def add(self, jobs: Iterable[JobSpec[Any]] | JobSpec[Any], *, unique: bool = False) -> list[int]:
        """Add jobs to this job's own batch, which `Producer.open_batch` has made; they may start at once.

        Should this job run again, it adds nothing twice: what it adds is known by the order in which it does, so that
        its first addition is the same job each time. Where that order may differ between attempts, or several jobs may
        add the same, give each a `key` and `unique=True`.

        Args:
            jobs: Jobs, or one job.
            unique: Whether each job is known by its key, in the whole batch, whoever adds it.

        Returns:
            The index of each job in the batch, in order; of one that was there already, that one's.

        Raises:
            UsageError: If a job cannot be: ArgumentsError, PayloadTooLargeError, ...; none is added then.
            OptionError: If a job has no key with `unique=True`; as above.
            BatchClosedError: If the batch takes no more jobs. (That all of them were added before is no error.)
            StragglerError: If this job is over.
        """
        return await self._run.add(self._written(jobs, unique=unique))

    def add_sync(self, jobs: Iterable[JobSpec[Any]] | JobSpec[Any], *, unique: bool = False) -> list[int]:
        """Do as `add`, from a plain function, in its process or thread, which waits for it.

        Raises:
            StragglerError: If it is called on an event loop, which it would block; else as `add`.
        """
        if _has_loop():
            raise StragglerError("add_sync(...) would block the event loop: use `await current_job().add(...)` here")
        return self._run.add_sync(self._written(jobs, unique=unique))

    def _written(self, jobs: Iterable[JobSpec[Any]] | JobSpec[Any], *, unique: bool) -> list[NewJob]:
        some = [jobs] if isinstance(jobs, JobSpec) else jobs
        return list(encode_new(some, self._run.arguments_limit, unique=unique))


class RunElsewhere:
    """A run as the job's own process knows it.

    Args:
        about: What `describe` said of it in the worker.
        report: Where the job says that it is alive, and the worker until when it may run.
        add: Asks the worker to add jobs to this batch; waits for its answer.
    """

    cancelling = False

    def __init__(
        self, about: dict[str, Any], report: reports.SharedReport, add: Callable[[str, Sequence[NewJob]], list[int]]
    ) -> None:
        self.arguments_limit: int = about.pop("arguments_limit")
        self._add = add
        self.outcome: Any = None
        self.report = report.say
        self._shared = report
        self._about = about

    @property
    def deadline(self) -> float:
        """When the job's time is up."""
        return self._shared.deadline

    def current_job(self) -> CurrentJob:
        """Describe the job."""
        return CurrentJob(self, **self._about)

    async def add(self, jobs: Sequence[NewJob]) -> list[int]:
        """Add jobs; this process runs nothing else."""
        return self.add_sync(jobs)

    def add_sync(self, jobs: Sequence[NewJob]) -> list[int]:
        """Add jobs.

        Raises:
            StragglerError: If the job is over.
        """
        if self.outcome is not None:
            raise StragglerError(f"job {self.current_job().job_id} is over, and adds no more jobs")
        return self._add(self._about["batch_id"], jobs)


class RunsJob(Protocol):
    """A run that can tell which job it runs; asked only if the job asks, as most never do."""

    outcome: Any
    """What it ended in; None while it goes on."""

    @property
    def deadline(self) -> float:
        """When the job's time is up, on `time.monotonic()`."""

    @property
    def cancelling(self) -> bool:
        """Whether the job was asked to stop."""

    @property
    def report(self) -> Callable[[float | None, str], None]:
        """Take note of a heartbeat: its progress, its note."""

    @property
    def arguments_limit(self) -> int:
        """Longest arguments of a job that it adds, bytes of JSON."""

    @property
    def add(self) -> Callable[[Sequence[NewJob]], Awaitable[list[int]]]:
        """Add jobs to the job's batch."""

    @property
    def add_sync(self) -> Callable[[Sequence[NewJob]], list[int]]:
        """Add jobs to the job's batch, not from the loop."""

    def current_job(self) -> CurrentJob:
        """Describe the job."""


def current_job() -> CurrentJob:
    """Return the job that is running here.

    Raises:
        StragglerError: If it is not called from inside a job.
    """
    run = _current.get(None)
    if run is None:
        raise StragglerError("current_job() was called outside a job; only a worker runs jobs")
    return run.current_job()


def enter(run: RunsJob) -> None:
    """Let `current_job()` return this run's job for the rest of the current task."""
    _current.set(run)


def asking() -> Any:
    """Return the run in whose context this is, whether or not it has ended; None outside of all."""
    return _current.get(None)


def running(context: Context | None = None) -> Any:
    """Return the run in whose context this is, if it has not ended.

    Args:
        context: Which to look into; the current one by default.
    """
    run: Any = _current.get(None) if context is None else context.get(_current)
    return None if run is None or run.outcome is not None else run


def describe() -> dict[str, Any] | None:
    """Tell the job's own process what `current_job()` is to return there; nothing outside a job."""
    run = running()
    if run is None:
        return None
    job: CurrentJob = run.current_job()
    names = ("batch_id", "index", "key", "attempt")
    about = {name: getattr(job, name) for name in names}
    return {**about, "arguments_limit": run.arguments_limit}


def _has_loop() -> bool:
    try:
        get_running_loop()
    except RuntimeError:
        return False
    return True
