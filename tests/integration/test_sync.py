"""Producers without asyncio: the same surface, streamed both ways, interrupted without loss, and no thread left."""

from __future__ import annotations

import asyncio
import inspect
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

import producer.batch
import producer.producer
from protocol.errors import (
    BatchLostError,
    BatchNotFoundError,
    JobFailedError,
    OptionError,
    RedisUnavailableError,
    StragglerError,
    UsageError,
)
from protocol.jobs import JobSpec
from protocol.settings import Settings
from straggler import SuccessResult, sync
from tests.conftest import PATIENCE, ROOT, StartProcess
from tests.jobs import fail, square


@pytest.fixture(autouse=True)
def no_leaked_threads() -> Iterator[None]:
    """Fail a test that leaves a thread behind."""
    before = set(threading.enumerate())
    yield
    left = [thread for thread in threading.enumerate() if thread not in before and "straggler" in thread.name]
    assert not left


@pytest.fixture
def made(redis_url: str) -> Iterator[sync.Producer]:
    """Give a sync producer on the test's Redis."""
    with sync.Producer(redis_url, settings=Settings()) as made:
        yield made


def eventually(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


# ---- the surface


def surface(kind: type) -> dict[str, Any]:
    return {name: inspect.getattr_static(kind, name) for name in dir(kind) if not name.startswith("_")}


@pytest.mark.parametrize(
    ("ours", "twin"), [(sync.Producer, producer.producer.Producer), (sync.Batch, producer.batch.Batch)]
)
def test_each_method_has_its_twin(ours: type, twin: type) -> None:
    found = surface(ours)
    for name, member in surface(twin).items():
        assert name in found, f"{twin.__name__}.{name} has no twin in straggler.sync: add it to straggler/sync/"
        assert isinstance(member, property) == isinstance(found[name], property)
        if not isinstance(member, property):
            own = list(inspect.signature(found[name]).parameters.values())
            assert [(p.name, p.default) for p in own] == [
                (p.name, p.default) for p in inspect.signature(member).parameters.values()
            ]
            if inspect.iscoroutinefunction(member):
                assert not inspect.iscoroutinefunction(inspect.unwrap(found[name], stop=lambda _: True))


# ---- batches


@pytest.mark.redis
def test_script_submits_and_collects(made: sync.Producer, worker_process: StartProcess) -> None:
    worker_process()
    batch = made.submit(square.map(range(1000)), name="n")
    values: list[int] = []
    for result in batch.as_completed():
        match result:
            case SuccessResult(value=value):
                values.append(value)
    assert sorted(values) == [number**2 for number in range(1000)]
    assert batch.gather() == [number**2 for number in range(1000)]
    assert batch.status().success == 1000
    assert (batch.queue, batch.options.name) == ("default", "n")
    assert [status.batch_id for status in made.batches()] == [batch.id]
    assert made.attach(batch.id).status() == batch.status()
    assert len(made.workers()) == batch.workers() == 1
    assert made.running() == []


@pytest.mark.redis
def test_errors_are_the_same(made: sync.Producer, worker_process: StartProcess) -> None:
    worker_process()
    batch = made.submit([fail.spec("no")])
    with pytest.raises(JobFailedError, match="no"):
        batch.gather()
    with pytest.raises(BatchNotFoundError):
        made.attach("gone")
    with pytest.raises(OptionError, match="batch option timeout"):
        made.submit((square.spec(number) for number in count()), timeout=0)
    with pytest.raises(UsageError, match="job 1 is 3, not a JobSpec"):
        made.submit(iter([square.spec(1), 3]))
    with pytest.raises(TypeError):
        made.submit(3)
    again = batch.retry("failure", batch_id="again")
    assert isinstance(again, sync.Batch)
    assert [result.status for result in again.results(lineage=True)] == ["failure"]
    again.delete()
    with pytest.raises(BatchLostError):
        again.status()


def test_batch_is_waited_for_and_cancelled(made: sync.Producer) -> None:
    batch = made.submit(square.map(range(3)))
    done, pending = batch.wait(timeout=0.01)
    assert (done, pending) == ([], [0, 1, 2])
    assert batch.cancel([1], "not that") == 1
    done, pending = batch.wait(return_when="FIRST_COMPLETED")
    assert [result.index for result in done] == [1]
    batch.cancel()
    assert {result.status for result in batch.results()} == {"cancelled"}


@pytest.mark.redis
def test_crawler_adds_as_it_goes_and_ends_by_itself(made: sync.Producer, worker_process: StartProcess) -> None:
    worker_process()
    batch = made.open_batch(name="crawl")
    assert batch.add(square.spec(1)) == [0]
    found = []
    for result in batch.as_completed(close_when_idle=True):
        found.append(result.index)
        if result.index < 50:
            batch.add(square.spec(number) for number in range(2))
    assert sorted(found) == list(range(101))
    assert batch.status().closed
    other = made.open_batch()
    assert other.add(square.spec(number, key=str(number)) for number in range(2500)) == list(range(2500))
    assert other.add([square.spec(3, key="3")], unique=True) == [2500]
    other.close()
    assert len(other.results()) == 2501


def test_redis_that_is_not_there_leaves_no_thread() -> None:
    with pytest.raises(RedisUnavailableError), sync.Producer("unix:///nowhere", settings=Settings()):
        pass


def test_whole_of_it_in_one_process() -> None:
    with sync.embedded(Settings()) as made:
        batch = made.submit(square.map(number for number in range(300)), timeout=5)
        assert batch.gather() == [number**2 for number in range(300)]
    with pytest.raises(UsageError, match="this producer is closed"):
        batch.status()


# ---- jobs come from the thread that submits them


@pytest.mark.redis
def test_source_may_block_and_ask_for_what_it_has_begun(made: sync.Producer, worker_process: StartProcess) -> None:
    worker_process()
    threads = set()

    def jobs() -> Iterator[JobSpec[int]]:
        threads.add(threading.current_thread())
        yield square.spec(1)
        eventually(lambda: [status.success for status in made.batches()] == [1])
        yield square.spec(2)

    assert made.submit(jobs(), batch_id="b").gather() == [1, 4]
    assert threads == {threading.current_thread()}


def test_source_is_never_far_ahead(made: sync.Producer) -> None:
    """Jobs that nobody has taken yet are not made."""
    jobs_made: list[int] = []
    seen: list[int] = []
    held = threading.Event()

    def jobs() -> Iterator[JobSpec[int]]:
        for number in range(5000):
            jobs_made.append(number)
            yield square.spec(number)

    async def stand_still() -> None:
        held.set()
        eventually(lambda: len(jobs_made) >= 256)
        time.sleep(0.1)  # a loop that takes nothing meanwhile
        seen.append(len(jobs_made))

    standing = threading.Thread(target=lambda: made.portal.call(stand_still()))
    standing.start()
    held.wait()
    submitting = threading.Thread(target=lambda: made.submit(jobs(), batch_id="b"))
    submitting.start()
    standing.join()
    submitting.join()
    assert seen[0] <= 258
    assert made.attach("b").status().total == 5000


def test_what_a_source_raises_is_raised_and_the_rest_can_be_submitted(made: sync.Producer) -> None:
    def jobs() -> Iterator[JobSpec[int]]:
        yield from square.map(range(10))
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        made.submit(jobs(), batch_id="b")
    assert not made.attach("b").status().closed
    batch = made.submit(square.map(range(20)), batch_id="b")
    assert (batch.status().total, batch.status().closed) == (20, True)


# ---- results are fetched as they are asked for


@pytest.mark.redis
def test_cursor_is_behind_each_result_that_was_given(made: sync.Producer, worker_process: StartProcess) -> None:
    worker_process()
    batch = made.submit(square.map(range(500)))
    assert len(batch.results()) == 500
    seen: list[int] = []
    for stop in (3, 256, 301):
        for result in batch.as_completed():
            seen.append(result.index)
            if len(seen) == stop:
                break
        rest = [result.index for result in made.attach(batch.id, cursor=batch.cursor).as_completed()]
        assert sorted(seen + rest) == list(range(500))
    groups = [[result.index for result in group] for group in made.attach(batch.id).as_recorded()]
    assert sorted(index for group in groups for index in group) == list(range(500))
    assert max(map(len, groups)) > 1


@pytest.mark.redis
def test_slow_consumer_costs_no_memory(made: sync.Producer, worker_process: StartProcess) -> None:
    worker_process()
    batch = made.submit(square.map(range(20_000)))
    results = batch.as_completed()
    next(results)
    eventually(lambda: batch.status().complete)
    for _ in range(2000):
        next(results)
        assert len(batch._ahead) <= 256
    results.close()


def test_time_that_is_up_leaves_the_batch_usable(made: sync.Producer) -> None:
    batch = made.submit(square.map(range(3)))
    with pytest.raises(TimeoutError):
        list(batch.as_completed(timeout=0.05))
    assert batch.status().queued == 3
    assert batch.cursor == "0-0"


# ---- threads and loops


async def test_it_is_used_beside_a_running_loop(redis_url: str) -> None:
    def script() -> int:
        with sync.Producer(redis_url, settings=Settings()) as made:
            return made.submit(square.map(range(3))).status().total

    assert list(await asyncio.gather(asyncio.to_thread(script), asyncio.to_thread(script))) == [3, 3]


@pytest.mark.redis
def test_two_producers_in_two_threads(redis_url: str, worker_process: StartProcess) -> None:
    worker_process()
    found: dict[int, list[Any]] = {}

    def script(number: int) -> None:
        with sync.Producer(redis_url, settings=Settings()) as made:
            batch = made.submit(square.map(range(number, number + 500)))
            found[number] = sorted(result.unwrap() for result in batch.as_completed())

    threads = [threading.Thread(target=script, args=(number,)) for number in (0, 1000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {start: [number**2 for number in range(start, start + 500)] for start in (0, 1000)}


def test_handles_tell_where_they_are(made: sync.Producer, redis_url: str) -> None:
    assert (made.url, made.queue, made.settings) == (redis_url, "default", Settings())
    assert repr(made.submit(square.map(range(3)), batch_id="b")) == "<sync <Batch b>>"


def test_memory_is_shared_by_the_threads_of_a_process() -> None:
    url = "memory://shared-by-threads"
    with sync.embedded(Settings(), url=url), sync.Producer(url, settings=Settings()) as made:
        assert made.submit(square.map(range(300))).gather() == [number**2 for number in range(300)]


def test_use_after_close_and_on_its_own_loop_is_refused(made: sync.Producer, redis_url: str) -> None:
    async def ask() -> None:
        made.workers()

    with pytest.raises(UsageError, match="on its own event loop"):
        made.portal.call(ask())
    made.close()
    made.close()
    with pytest.raises(UsageError, match="this producer is closed"):
        made.workers()


def test_forked_process_is_told_to_make_its_own(made: sync.Producer) -> None:
    assert made.workers() == []
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            made.workers()
        except UsageError as error:
            os.write(writer, str(error).encode())
            made.close()
        finally:
            os._exit(0)
    try:
        assert select.select([reader], [], [], 10)[0], "it hangs"
        assert b"make another one here" in os.read(reader, 1000)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(reader)
        os.close(writer)
    assert made.workers() == []


def test_close_ends_the_wait_of_another_thread(redis_url: str) -> None:
    made = sync.Producer(redis_url, settings=Settings())
    batch = made.submit(square.map(range(3)))
    errors: list[BaseException] = []

    def collect() -> None:
        try:
            batch.results()
        except StragglerError as error:
            errors.append(error)

    collecting = threading.Thread(target=collect)
    collecting.start()
    time.sleep(0.1)
    made.close()
    collecting.join(PATIENCE)
    assert ["the producer was closed while this call waited" in str(error) for error in errors] == [True]


SCRIPT = """
import sys, threading
from straggler.sync import Producer
from tests.jobs import square, wait_for_file

def endless():
    for number in range(10):
        yield square.spec(number)
    print("waiting", flush=True)
    threading.Event().wait()

with Producer(sys.argv[1]) as producer:
    batch = producer.submit([*square.map(range(10)), wait_for_file.spec(sys.argv[2])])
    seen = []
    for wait in (lambda: seen.extend(result.index for result in batch.as_completed()), batch.results, batch.wait):
        print("waiting", flush=True)
        try:
            wait()
        except KeyboardInterrupt:
            print("interrupted", len(seen), batch.status().success, flush=True)
    try:
        producer.submit(endless(), batch_id="cut")
    except KeyboardInterrupt:
        print("interrupted", producer.attach("cut").status().closed, flush=True)
    print("waiting", flush=True)
    print(sorted(seen + [result.index for result in batch.as_completed()]), flush=True)
print(threading.active_count())
"""


@pytest.mark.redis
def test_ctrl_c_leaves_the_batch_running_and_its_handle_usable(
    redis_url: str, worker_process: StartProcess, door: Path
) -> None:
    worker_process()
    command = [sys.executable, "-c", SCRIPT, redis_url, str(door)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as script:
        assert script.stdout is not None
        for told in ("interrupted 10 10\n", "interrupted 10 10\n", "interrupted 10 10\n", "interrupted False\n"):
            assert script.stdout.readline() == "waiting\n"
            time.sleep(0.5)  # until it waits
            script.send_signal(signal.SIGINT)
            assert script.stdout.readline() == told
        assert script.stdout.readline() == "waiting\n"
        door.touch()
        assert script.stdout.readline() == f"{list(range(11))}\n"
        assert script.stdout.readline() == "1\n"
    assert script.returncode == 0
