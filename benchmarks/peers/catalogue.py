"""The peers: how each is run, by its own best way, and what it does not guarantee, set up so.

What is said of guarantees was read in the source of the pinned versions; the places are named beside it. `{python}` and
`{bin}` stand for the interpreter of the peer's environment and its folder.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Peer:
    """One library.

    Args:
        name: As it is called; its requirements are `requirements/<name>.txt`, in small letters.
        workers: The commands that start two worker processes.
        way: Its bulk call and settings, for people.
        stops: What its timeout stops.
        records: What it does when a job runs twice.
        recovers: When a job of a worker that was killed (-9) runs again.
        packages: What its version is told by; by default the package of its name.
    """

    name: str
    workers: tuple[str, ...]
    way: str
    stops: str
    records: str
    recovers: str
    packages: tuple[str, ...] = ()

    @property
    def adapter(self) -> str:
        """The module beside this one that speaks to it."""
        return f"on_{self.name.lower()}"

    @property
    def versions(self) -> tuple[str, ...]:
        """The packages whose versions are told."""
        return self.packages or (self.name.lower(),)


_QUIET_CELERY = "--loglevel WARNING --without-gossip --without-mingle --without-heartbeat"

STRAGGLER = Peer(
    name="straggler",
    workers=("{python} -m straggler.cli worker --jobs benchmarks/jobs.py --processes 2 --concurrency 64",),
    way="`submit`, `gather`; `--processes 2 --concurrency 64`",
    stops="all code: cancelled, interrupted or its process killed",
    records="the first result stays",
    recovers="within 10 s",
)

PEERS = (
    Peer(
        name="dramatiq",
        workers=("{bin}/dramatiq benchmarks.peers.on_dramatiq --processes 2 --threads 8 --skip-logging",),
        way="`group.run`, `get_results(block=True)`; `--processes 2 --threads 8`",
        # middleware/time_limit.py: an exception set in the thread, "can't cancel system calls"; looked for every second
        stops="Python code, within a second; no system call",
        # results/backends/redis.py: each store deletes what was there
        records="the last result stays",
        # brokers/redis.py: DEFAULT_HEARTBEAT_TIMEOUT
        recovers="after 60 s",
    ),
    Peer(
        name="huey",
        workers=("{bin}/huey_consumer benchmarks.peers.on_huey.app --workers 2 --worker-type process --quiet",),
        way="`task.map`, `get(blocking=True)`; two processes, `notify_result=True`",
        # consumer.py, ProcessEnvironment.timeout: SIGALRM raises in the task
        stops="Python code; no C code",
        # put_data in storage.py sets the hash's field
        records="the last result stays",
        # storage.py: dequeue is a bare BRPOP
        recovers="never: it is lost",
    ),
    Peer(
        name="SAQ",
        workers=("{bin}/saq benchmarks.peers.on_saq.settings --workers 2 --quiet",),
        way="`queue.map(poll_interval=0.01)`; two processes, concurrency 100",
        # worker.py, process: wait_for around the task
        stops="code that awaits",
        # queue/redis.py: _finish sets the job's key
        records="the last result stays",
        # worker.py: sweep every 60 s; job.py: stuck once the timeout has passed, retryable only if retries > 1
        recovers="its timeout + up to 60 s later it is aborted, or runs again if `retries` > 1",
    ),
    Peer(
        name="streaQ",
        workers=("{bin}/streaq run benchmarks.peers.on_streaq:worker --workers 2",),
        way="`enqueue_many`, `get_tasks_by_status(DONE)`; two processes, concurrency 32, uvloop",
        # worker.py, run_task: move_on_after around the task
        stops="code that awaits",
        # finish_task in worker.py sets the result's key, of a task that was reclaimed meanwhile too
        records="the last result stays",
        # idle_timeout in worker.py is 60 s
        recovers="after 60 s",
    ),
    Peer(
        name="arq",
        workers=("{bin}/arq benchmarks.peers.on_arq.WorkerSettings",) * 2,
        way="`gather` of `enqueue_job`, of `result`; two workers, `max_jobs=50`, `poll_delay=0.005`",
        # worker.py, run_job: wait_for around the task
        stops="code that awaits",
        # worker.py, finish_job: sets the result's key
        records="the last result stays",
        # worker.py: in_progress_timeout_s, 310 s by default
        recovers="after the longest timeout + 10 s",
    ),
    Peer(
        name="taskiq",
        workers=("{bin}/taskiq worker benchmarks.peers.on_taskiq:broker --workers 2 --max-async-tasks 64 --no-parse",),
        way="`gather` of `kiq`, `taskiq.gather`; `ListQueueBroker`, `--workers 2 --max-async-tasks 64`, uvloop",
        # receiver.py, run_task: fail_after around the task
        stops="code that awaits",
        # redis_backend.py: set_result sets the key
        records="the last result stays",
        # redis_broker.py, ListQueueBroker: a bare BRPOP; RedisStreamBroker has an idle_timeout of 10 minutes
        recovers="never: it is lost (`RedisStreamBroker`: after 10 minutes)",
        packages=("taskiq", "taskiq-redis"),
    ),
    Peer(
        name="celery",
        workers=("{bin}/celery -A benchmarks.peers.on_celery worker --concurrency 2 " + _QUIET_CELERY,),
        way="`group.apply_async`, `join_native`; prefork, two processes, prefetch 64",
        # concurrency/asynpool.py: a hard time limit kills the process
        stops="all code: its process is killed",
        # backends/base.py, _store_result: a stored success is kept; what else was there is not
        records="the first success stays",
        # app/defaults.py: acks_late is off; kombu/transport/redis.py: visibility_timeout
        recovers="never: it is lost (`acks_late`: after an hour)",
    ),
    Peer(
        name="RQ",
        workers=("{bin}/rq worker-pool --worker-class rq.worker.SimpleWorker --num-workers 2 --quiet --url {url}",),
        way="`enqueue_many`, `latest_result`; two `SimpleWorker`s, which do not fork",
        # timeouts.py: signal.alarm, whole seconds, an Exception like others
        stops="Python code, in whole seconds; no C code",
        # results.py: each result is added to the job's stream
        records="all results stay",
        # registry.py and defaults.py: found at maintenance, every 10 minutes; failed unless it has retries left
        recovers="at the next maintenance, up to 10 minutes later, it fails, or runs again if `retry` is set",
    ),
)
