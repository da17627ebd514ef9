"""The names and lifetimes of all keys in Redis. What each holds is in docs/architecture.md.

A chunk's id is `<batch>:<index of its first job>`, so chunk and job ids tell where they belong without a look-up.
"""

from __future__ import annotations

PREFIX = "straggler:"
BATCHES = f"{PREFIX}batches"
QUEUES = f"{PREFIX}queues"
# The channel on which workers hear that something was decided about a batch; JSON: {"batch": id}.
CONTROL = f"{PREFIX}control"

# arq's own names, which its worker and its tools expect.
ARQ_JOB = "arq:job:"
ARQ_IN_PROGRESS = "arq:in-progress:"
ARQ_RETRY = "arq:retry:"

# An open batch that nobody touches lives this long, and a queue's place in the list of queues; submit, claim and record
# of a job renew the former.
OPEN_BATCH_LIFETIME = 7 * 86_400.0
WORKER_LIFETIME = 15.0
# A worker that Redis has been away from for longer than this is not asked to leave any more.
DRAIN_LIFETIME = 900.0
# Ids in `batches` beyond this many are trimmed, oldest first; their batches live on until their own lifetime ends.
BATCHES_KEPT = 10_000


def queue(name: str) -> str:
    """Name arq's queue: chunk id by due time, ms."""
    return f"{PREFIX}queue:{name}"


def leases(name: str) -> str:
    """The chunks of a queue that are leased, by the end of their lease, ms; scripts write it (see lapsing.lua)."""
    return f"{PREFIX}leases:{name}"


def wake(name: str) -> str:
    """A list that idle workers wait on."""
    return f"{PREFIX}wake:{name}"


def workers(queue_name: str) -> str:
    """The live workers of a queue: worker id by the time it was last seen, s."""
    return f"{PREFIX}workers:{queue_name}"


def worker(worker_id: str) -> str:
    """What one worker says of itself."""
    return f"{PREFIX}worker:{worker_id}"


def running(worker_id: str) -> str:
    """What one worker tells of the jobs that it runs."""
    return f"{PREFIX}running:{worker_id}"


def drain(worker_id: str) -> str:
    """Somebody wants this worker to leave."""
    return f"{PREFIX}drain:{worker_id}"


def health(queue_name: str) -> str:
    """Name arq's health key, which `straggler worker --check` and `arq --check` read."""
    return f"{PREFIX}health:{queue_name}"


def batch(batch_id: str) -> str:
    """A batch's header: options, total, counts, times."""
    return f"{PREFIX}batch:{batch_id}"


def chunks(batch_id: str) -> str:
    """Index of a chunk's first job -> its jobs."""
    return f"{PREFIX}batch:{batch_id}:chunks"


def done(batch_id: str) -> str:
    """Bitmap of the jobs that have their result."""
    return f"{PREFIX}batch:{batch_id}:done"


def results(batch_id: str) -> str:
    """The stream of results."""
    return f"{PREFIX}batch:{batch_id}:results"


def holders(batch_id: str) -> str:
    """Chunk id -> the worker that has taken it and not let go of it, and which of its jobs it runs alone."""
    return f"{PREFIX}batch:{batch_id}:holders"


def crashes(batch_id: str) -> str:
    """Chunk id -> the workers that have died under it, and under which of its jobs, JSON (see crashes.lua)."""
    return f"{PREFIX}batch:{batch_id}:crashes"


def retries(batch_id: str) -> str:
    """Index of a job that runs again after a failure, in a chunk of its own -> its failures so far."""
    return f"{PREFIX}batch:{batch_id}:retries"


def attempts(batch_id: str) -> str:
    """Index of a job that has run more than once -> its attempts that did not become its result (see attempts.lua)."""
    return f"{PREFIX}batch:{batch_id}:attempts"


def origins(batch_id: str) -> str:
    """Which jobs of its parent a redrive consists of, 8 bytes each (see producer/redrives/origins.py)."""
    return f"{PREFIX}batch:{batch_id}:origins"


def cancelled(batch_id: str) -> str:
    """Index of each job that is cancelled, or `*` for all -> why."""
    return f"{PREFIX}batch:{batch_id}:cancelled"


def heard(batch_id: str) -> str:
    """Chunk id -> the last decision about the batch of which the worker that holds the chunk knows."""
    return f"{PREFIX}batch:{batch_id}:heard"


def names(batch_id: str) -> str:
    """Of an open batch: name of a job -> its index, so that it is not added again."""
    return f"{PREFIX}batch:{batch_id}:names"


def of_batch(batch_id: str) -> tuple[str, ...]:
    """Name all keys of a batch but those of its chunks in the queue; the header first."""
    made = (batch, chunks, done, results, holders, crashes, retries, attempts, origins, cancelled, heard, names)
    return tuple(name(batch_id) for name in made)


def claim(worker_id: str) -> str:
    """A worker's last claim, for the case that its reply is lost: its token and the chunks."""
    return f"{PREFIX}claim:{worker_id}"


def chunk_id(batch_id: str, first: int) -> str:
    """Name the chunk whose first job has this index."""
    return f"{batch_id}:{first}"


def retry_id(batch_id: str, first: int, index: int) -> str:
    """Name the chunk in which one job of another chunk runs again."""
    return f"{batch_id}:{first}+{index}"
