"""`straggler worker` as an operator meets it: what hangs is killed, what dies is replaced, and no neighbour pays."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from producer.producer import Producer
from protocol import keys
from protocol.settings import Settings
from straggler import JobSpec, LostResult, Result, TimeoutResult
from tests import rough_jobs
from tests.conftest import PATIENCE, WorkerProcess, until
from tests.jobs import append_line, hang, square, stubborn
from tests.redis_server import RedisServer

pytestmark = pytest.mark.redis

StartSupervisor = Callable[..., WorkerProcess]
# A lease longer than any test: what runs again within the test has not waited for one to lapse.
NEVER_LAPSES = 600


@pytest.fixture
def supervisor(worker_process: Callable[..., WorkerProcess]) -> StartSupervisor:
    """Start `straggler worker`: `supervisor("--processes", "2", shutdown_wait=1)`, settings by their names."""

    def start(*words: str, **settings: Any) -> WorkerProcess:
        """Takes `ready` as `worker_process` does."""
        command = ["straggler", "worker", *words]
        settings = {"jobs": "tests.jobs,tests.rough_jobs", "job_processes": 2, **settings}
        return worker_process(command=command, **settings)

    return start


def children_of(process: WorkerProcess) -> list[int]:
    """Name the worker processes of a supervisor."""
    try:
        return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def tree_below(pid: int) -> list[str]:
    """Name the children of a process."""
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def is_there(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def starts(process: WorkerProcess) -> int:
    return process.output.count("takes jobs from")


async def alive(producer: Producer, count: int) -> None:
    """Wait until so many workers have told their slots, by which a batch is cut into chunks."""
    async with asyncio.timeout(PATIENCE):
        while len(await producer.workers()) < count:  # noqa: ASYNC110  # nobody tells us
            await asyncio.sleep(0.01)


async def end(process: WorkerProcess) -> int:
    """Tell a supervisor to stop; returns its exit code."""
    process.terminate()
    return await asyncio.to_thread(process.wait)


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


# ---- a job that holds the loop


async def test_a_job_in_c_code_is_killed_within_its_bound_and_its_neighbours_run_elsewhere_at_once(
    producer: Producer, supervisor: StartSupervisor, door: Path, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    workers = supervisor("--processes", "2", "--concurrency", "8", lease=NEVER_LAPSES)
    await alive(producer, 2)
    holder = rough_jobs.hold_in_c.spec(timeout=0.5)
    neighbours = [rough_jobs.wait_for_door.spec(door, trace, str(number)) for number in range(7)]
    batch = await producer.submit([*neighbours, holder], grace=0.2)
    await until(lambda: "hung and was killed" in workers.output)
    # Where the chunk ran, nothing runs now; its seven others run again at once.
    await until(lambda: len(lines(trace)) >= 14)
    door.touch()
    *others, held = await batch.results()
    assert isinstance(held, TimeoutResult)
    assert (held.stopped, held.phase, held.limit) == ("killed", "running", 0.5)
    assert held.duration is not None
    assert held.duration < 0.5 + 0.2 + 5.0  # 0.25 on an idle machine; nothing else would have ended it
    assert {result.status for result in others} == {"success"}
    assert {result.attempt for result in others} == {1}
    assert await end(workers) == 0


async def test_what_a_killed_job_had_started_is_killed_with_it(
    producer: Producer, supervisor: StartSupervisor, tmp_path: Path
) -> None:
    path = tmp_path / "pid"
    workers = supervisor()
    batch = await producer.submit([rough_jobs.start_program.spec(path, timeout=0.5)], grace=0.1)
    [result] = await batch.results()
    assert isinstance(result, TimeoutResult)
    assert result.stopped == "killed"
    await until(lambda: not is_there(int(path.read_text())))
    assert await end(workers) == 0


async def test_a_job_that_is_left_behind_and_then_holds_the_loop_costs_no_innocent_its_result(
    producer: Producer, supervisor: StartSupervisor, door: Path, tmp_path: Path
) -> None:
    # Its chunk is over and another has its place in the shared memory when the process is killed for it.
    workers = supervisor("--concurrency", "4")
    await (await producer.submit([rough_jobs.swallow_then_hold.spec(0.8, timeout=0.1)], grace=0.1)).results()
    trace = tmp_path / "trace"
    batch = await producer.submit([rough_jobs.wait_for_door.spec(door, trace, "x") for _ in range(2)])
    await until(lambda: len(lines(trace)) == 2)
    await until(lambda: "hung and was killed" in workers.output)
    await until(lambda: len(lines(trace)) == 4)
    door.touch()
    assert {result.status for result in await batch.results()} == {"success"}
    assert await end(workers) == 0


async def test_two_workers_share_what_one_has_no_slots_for(
    producer: Producer, supervisor: StartSupervisor, door: Path, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    workers = supervisor("--processes", "2", "--concurrency", "2")
    await alive(producer, 2)
    for round_ in range(1, 6):
        batch = await producer.submit([rough_jobs.wait_for_door.spec(door, trace, str(n)) for n in range(4)])
        await until(lambda round_=round_: len(lines(trace)) == 4 * round_)  # type: ignore[misc]
        door.touch()
        await batch.results()
        door.unlink()
    assert await end(workers) == 0


async def test_a_job_that_holds_the_loop_costs_its_neighbours_no_lease(
    producer: Producer, supervisor: StartSupervisor, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    workers, other = (supervisor("--concurrency", "2", lease=1) for _ in range(2))
    await alive(producer, 2)

    async def stream() -> AsyncIterator[JobSpec[Any]]:  # travels as one chunk
        yield append_line.spec(trace, "neighbour", 1.0)
        yield rough_jobs.hold_loop.spec(4.0)

    batch = await producer.submit(stream())
    assert [(result.status, result.attempt) for result in await batch.results()] == [("success", 1)] * 2
    assert len(lines(trace)) == 1
    assert not [log for log in (workers.output, other.output) if "was lost" in log]


async def test_a_stop_that_reaches_every_process_of_a_service_is_one_stop(
    producer: Producer, supervisor: StartSupervisor, door: Path, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    workers = supervisor("--concurrency", "4", shutdown_wait=20)
    jobs: list[JobSpec[Any]] = [
        rough_jobs.wait_for_door.spec(door, trace, "a"),
        rough_jobs.note_and_sleep_on.spec(trace),
    ]
    batch = await producer.submit(jobs)
    await until(lambda: len(lines(trace)) == 2)
    [worker] = children_of(workers)
    for pid in (workers.pid, worker, *map(int, tree_below(worker))):
        os.kill(pid, signal.SIGTERM)
    await asyncio.sleep(0.3)
    door.touch()
    assert await asyncio.to_thread(workers.wait) == 0
    assert [(result.status, result.attempt) for result in await batch.results()] == [("success", 1)] * 2


async def test_a_job_that_holds_the_loop_keeps_no_worker_from_stopping(
    producer: Producer, supervisor: StartSupervisor, redis: Any
) -> None:
    workers = supervisor("--concurrency", "2", shutdown_wait=0.5)
    batch = await producer.submit([rough_jobs.hold_loop.spec(600.0)], timeout=900)
    async with asyncio.timeout(PATIENCE):
        while (await batch.status()).running < 1:  # noqa: ASYNC110  # nobody tells us
            await asyncio.sleep(0.01)
    assert await end(workers) == 0
    assert not redis.keys("arq:in-progress:*"), "handed back"
    assert not redis.exists(keys.crashes(batch.id)), "nobody's doing"


# ---- a job under which its process dies


async def test_what_jobs_of_a_crashed_worker_had_started_is_killed(
    producer: Producer, supervisor: StartSupervisor, tmp_path: Path
) -> None:
    path = tmp_path / "pid"
    workers = supervisor()
    batch = await producer.submit([rough_jobs.start_program_and_wait.spec(path)])
    await until(path.exists)
    [pid] = children_of(workers)
    os.kill(pid, signal.SIGKILL)
    await until(lambda: not is_there(int(path.read_text())))
    await until(lambda: starts(workers) == 2)
    workers.terminate()
    assert await end(workers) == 0
    assert (await batch.status()).running == 0


@pytest.mark.parametrize(
    ("how", "told"),
    [("exit 0", "exit code 0"), (f"signal {signal.SIGSEGV}", "signal SIGSEGV")],
)
async def test_a_job_that_crashes_its_worker_three_times_is_lost_and_the_others_are_unharmed(
    producer: Producer, supervisor: StartSupervisor, tmp_path: Path, how: str, told: str
) -> None:
    trace = tmp_path / "trace"
    workers = supervisor("--concurrency", "2", lease=NEVER_LAPSES)  # few slots: large chunks
    await alive(producer, 1)
    poison: JobSpec[Any] = rough_jobs.crash_worker.spec(how, trace)
    specs: list[JobSpec[Any]] = [*square.map(range(60)), poison, *square.map(range(39))]
    results = await (await producer.submit(specs)).results()
    lost = results[60]
    assert isinstance(lost, LostResult)
    assert (lost.attempt, lost.reason) == (3, f"its worker process ended under it 3 times, last by {told}")
    assert lost.worker
    assert lost.started_at is not None
    assert Counter(result.status for result in results) == {"success": 99, "lost": 1}
    assert len(set(lines(trace))) == 3
    assert await end(workers) == 0


def assert_one_death(results: Sequence[Result[Any]]) -> None:
    """Their worker died once: under all of them, or under the one whose code held the loop at that moment."""
    assert {result.status for result in results} == {"success"}
    assert sorted(result.attempt for result in results) in ([2, 2, 2, 2], [1, 1, 1, 2])


async def test_a_worker_that_is_killed_from_outside_is_replaced_and_its_chunks_run_elsewhere_at_once(
    producer: Producer, supervisor: StartSupervisor, door: Path, tmp_path: Path, redis: Any
) -> None:
    trace = tmp_path / "trace"
    workers = supervisor("--concurrency", "4", lease=NEVER_LAPSES)
    batch = await producer.submit([rough_jobs.wait_for_door.spec(door, trace, str(n)) for n in range(4)])
    await until(lambda: len(lines(trace)) == 4)
    [pid] = children_of(workers)
    os.kill(pid, signal.SIGKILL)
    await until(lambda: len(lines(trace)) == 8)
    assert (await batch.status()).running == 4
    door.touch()
    results = await batch.results()
    assert_one_death(results)
    assert f"worker process {pid}: signal SIGKILL" in workers.output
    assert await end(workers) == 0


# ---- jobs left behind


async def test_a_worker_that_bears_no_more_leaves_and_is_replaced(
    producer: Producer, supervisor: StartSupervisor
) -> None:
    workers = supervisor("--concurrency", "8", max_abandoned=2, shutdown_wait=1)
    [first] = children_of(workers)
    left = await producer.submit([stubborn.spec(30, timeout=0.1) for _ in range(3)], grace=0.1)
    results = await left.results()
    assert {result.stopped for result in results if isinstance(result, TimeoutResult)} == {"abandoned"}
    await until(lambda: starts(workers) == 2)
    [second] = children_of(workers)
    assert second != first
    assert "3 jobs were left behind: this worker drains and leaves" in workers.output
    assert "worker process" not in workers.output  # no death: it has left in order
    assert await (await producer.submit(square.map([3]))).gather() == [9]
    assert await end(workers) == 0


# ---- stopping


async def test_sigterm_hands_chunks_back_that_run_elsewhere_soon(
    producer: Producer, supervisor: StartSupervisor, door: Path, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    first = supervisor("--processes", "2", "--concurrency", "2", shutdown_wait=0.2, lease=NEVER_LAPSES)
    await alive(producer, 2)
    batch = await producer.submit([rough_jobs.wait_for_door.spec(door, trace, str(n)) for n in range(4)])
    await until(lambda: len(lines(trace)) == 4)
    second = supervisor("--concurrency", "4")
    assert await end(first) == 0
    await until(lambda: len(lines(trace)) == 8)
    assert not re.search("worker process|Traceback", first.output)
    door.touch()
    assert [(result.status, result.attempt) for result in await batch.results()] == [("success", 1)] * 4
    assert await end(second) == 0


async def test_sigterm_lets_running_jobs_finish_and_a_second_one_hurries(
    producer: Producer, supervisor: StartSupervisor, tmp_path: Path, redis: Any
) -> None:
    trace = tmp_path / "trace"
    workers = supervisor(shutdown_wait=600)
    batch: Any = await producer.submit([append_line.spec(trace, "short", 1.0), hang.spec()], timeout=900)
    await until(lambda: lines(trace))
    workers.terminate()
    await until(lambda: "worker stops" in workers.output)
    await until(lambda: redis.hget(keys.batch(batch.id), "success") == b"1")
    assert workers.process.poll() is None
    assert await end(workers) == 0
    assert (await batch.status()).running == 0


async def test_ctrl_c_on_the_whole_group_stops_it_once(
    producer: Producer, supervisor: StartSupervisor, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    workers = supervisor(shutdown_wait=30)
    batch = await producer.submit([append_line.spec(trace, "x", 0.5)])
    await until(lambda: lines(trace))
    workers.process.send_signal(signal.SIGINT)
    assert await asyncio.to_thread(workers.wait) == 0
    assert len(await batch.gather()) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's part is Linux' own")
async def test_processes_end_with_a_supervisor_that_is_killed_and_another_goes_on(
    producer: Producer, supervisor: StartSupervisor, door: Path, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    workers = supervisor("--processes", "2", "--concurrency", "2", lease=1)
    await alive(producer, 2)
    batch = await producer.submit([rough_jobs.wait_for_door.spec(door, trace, str(n)) for n in range(4)])
    await until(lambda: len(lines(trace)) == 4)
    pids = children_of(workers)
    workers.kill()
    await until(lambda: not any(is_there(pid) for pid in pids))
    others = supervisor("--concurrency", "4")
    await until(lambda: len(lines(trace)) == 8)  # the leases have lapsed
    door.touch()
    assert {result.status for result in await batch.results()} == {"success"}
    assert await end(others) == 0


# ---- starting


def say_why(supervisor: StartSupervisor, *words: str, **settings: Any) -> tuple[int, list[str]]:
    """Start a supervisor that cannot work; returns its exit code and what it said."""
    process = supervisor(*words, ready="", **settings)
    code = process.wait()
    return code, process.output.splitlines()


def test_a_module_that_cannot_be_imported_is_said_once(supervisor: StartSupervisor) -> None:
    code, [line] = say_why(supervisor, "--processes", "4", jobs="no_such_module")
    assert code == 1
    assert line.startswith("error: module 'no_such_module' cannot be imported: ModuleNotFoundError")


def test_no_redis_is_said_once(supervisor: StartSupervisor) -> None:
    code, [line] = say_why(supervisor, "--processes", "2", redis_url="redis://127.0.0.1:1")
    assert code == 1
    assert line.startswith("error: no Redis answers at redis://127.0.0.1:1")


@pytest.mark.parametrize("number", [0, 3])
def test_a_module_that_ends_its_process_is_no_success_and_no_loop(
    supervisor: StartSupervisor, tmp_path: Path, number: int
) -> None:
    (tmp_path / "leaver.py").write_text(f"import os; os._exit({number})")
    code, said = say_why(supervisor, jobs=str(tmp_path / "leaver.py"))
    assert code == (number or 1)
    assert said == []


async def test_a_module_that_breaks_later_stops_no_supervisor(
    producer: Producer, supervisor: StartSupervisor, tmp_path: Path
) -> None:
    module = tmp_path / "shifting.py"
    module.write_text("")
    workers = supervisor(jobs=f"tests.jobs,{module}")
    module.write_text("1 / 0")
    os.kill(children_of(workers)[0], signal.SIGKILL)
    await until(lambda: workers.output.count("ZeroDivisionError") == 2)
    assert workers.process.poll() is None
    module.write_text("")
    await until(lambda: starts(workers) == 2)
    assert await (await producer.submit(square.map([3]))).gather() == [9]
    assert await end(workers) == 0


async def test_burst_ends_once_the_queue_is_empty(producer: Producer, supervisor: StartSupervisor) -> None:
    batch = await producer.submit(square.map(range(100)))
    workers = supervisor("--processes", "2", "--burst")
    assert await asyncio.to_thread(workers.wait) == 0
    assert (await batch.status()).success == 100


async def test_a_worker_that_is_told_to_stop_from_outside_is_replaced(
    producer: Producer, supervisor: StartSupervisor
) -> None:
    workers = supervisor()
    [pid] = children_of(workers)
    os.kill(pid, signal.SIGTERM)
    await until(lambda: starts(workers) == 2)
    assert await (await producer.submit(square.map([3]))).gather() == [9]
    assert await end(workers) == 0


async def test_a_supervisor_that_is_told_to_stop_while_it_starts_stops(supervisor: StartSupervisor) -> None:
    workers = supervisor("--processes", "3", ready="jobs of")
    assert await end(workers) == 0
    assert "worker process" not in workers.output


async def test_it_leaves_no_files_behind(supervisor: StartSupervisor, tmp_path: Path) -> None:
    folder = tmp_path / "tmp"
    folder.mkdir()
    os.environ["TMPDIR"] = str(folder)
    try:
        workers = supervisor("--processes", "2")
    finally:
        del os.environ["TMPDIR"]
    await until(lambda: starts(workers) == 2)
    os.kill(children_of(workers)[0], signal.SIGKILL)
    await until(lambda: starts(workers) == 3)
    [own] = folder.iterdir()
    await until(lambda: len(list(own.iterdir())) == 2)
    assert await end(workers) == 0
    assert not list(folder.iterdir())


async def test_the_health_key_is_there_while_workers_live_and_gone_after_them(
    supervisor: StartSupervisor, redis: Any
) -> None:
    key = keys.health(f"default:{socket.gethostname()}")
    workers = supervisor()
    await until(lambda: redis.exists(key))
    os.kill(children_of(workers)[0], signal.SIGKILL)
    await until(lambda: starts(workers) == 2)
    assert redis.exists(key)
    assert await end(workers) == 0
    assert not redis.exists(key)


# ---- Redis away


@pytest.fixture
async def own_redis() -> AsyncIterator[RedisServer]:
    """Start a server for one test, which may stop it."""
    server = RedisServer().start()
    yield server
    server.stop()


async def test_what_a_dead_worker_left_is_settled_once_redis_is_back_and_others_are_watched_meanwhile(
    own_redis: RedisServer, supervisor: StartSupervisor, door: Path, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    async with Producer(own_redis.url, settings=Settings()) as producer:
        workers = supervisor("--concurrency", "4", redis_url=own_redis.url, lease=NEVER_LAPSES)
        batch = await producer.submit([rough_jobs.wait_for_door.spec(door, trace, str(n)) for n in range(4)])
        await until(lambda: len(lines(trace)) == 4)
        os.kill(own_redis.pid, signal.SIGSTOP)
        try:
            os.kill(children_of(workers)[0], signal.SIGKILL)
            await until(lambda: "signal SIGKILL" in workers.output)
            await until(lambda: len(children_of(workers)) == 1)  # replaced, though nothing is settled
            os.kill(children_of(workers)[0], signal.SIGKILL)
            await until(lambda: workers.output.count("signal SIGKILL") == 2)
        finally:
            os.kill(own_redis.pid, signal.SIGCONT)
        await until(lambda: len(lines(trace)) == 8)
        door.touch()
        assert_one_death(await batch.results())
        assert await end(workers) == 0


async def test_a_supervisor_stops_in_time_though_redis_is_away(
    own_redis: RedisServer, supervisor: StartSupervisor, door: Path, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    async with Producer(own_redis.url, settings=Settings()) as producer:
        workers = supervisor(redis_url=own_redis.url)
        await producer.submit([rough_jobs.wait_for_door.spec(door, trace, "x")])
        await until(lambda: lines(trace))
        os.kill(own_redis.pid, signal.SIGSTOP)
        try:
            [pid] = children_of(workers)
            workers.terminate()
            os.kill(pid, signal.SIGKILL)
            assert await asyncio.to_thread(workers.wait) == 0
        finally:
            os.kill(own_redis.pid, signal.SIGCONT)
