"""What jobs may do to the tasks, signals and processes of their worker, and what they may not."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from protocol.settings import Settings
from straggler import FailureResult, TimeoutResult, current_job, embedded, job
from tests.conftest import PATIENCE, ROOT, StartProcess
from tests.jobs import nap, square
from workers.starting.tasks import GuardedTask, Tasks


async def test_a_job_cancels_its_own_tasks_and_no_others() -> None:
    begun = asyncio.Event()

    @job
    async def victim() -> str:
        begun.set()
        await asyncio.gather(asyncio.sleep(0.2), asyncio.sleep(0.1))
        return "unharmed"

    @job
    async def attacker() -> list[bool]:
        await begun.wait()
        mine = asyncio.create_task(asyncio.sleep(60))
        others = [task for task in asyncio.all_tasks() if isinstance(task, GuardedTask)]
        told = [task.cancel() for task in others if task not in (mine, asyncio.current_task())]
        return [mine.cancel(), any(told)]

    async with embedded(Settings()) as producer:
        assert await (await producer.submit([victim.spec(), attacker.spec()], timeout=5)).gather() == [
            "unharmed",
            [True, False],
        ]


async def test_a_task_that_outlives_its_job_is_nobodys() -> None:
    left: list[asyncio.Task[Any]] = []

    @job
    async def leaves_a_task() -> None:
        left.append(asyncio.create_task(asyncio.sleep(60)))

    async with embedded(Settings()) as producer:
        await (await producer.submit([leaves_a_task.spec()])).wait()
        assert left[0].cancel()
        await asyncio.wait(left)


async def test_tasks_of_jobs_look_like_any_task() -> None:
    @job
    async def look() -> tuple[str, int, bool]:
        async def inner() -> str:
            await asyncio.sleep(0)
            return current_job().job_id

        task = asyncio.create_task(inner(), name="inner")
        text = repr(task)
        frames = len(task.get_stack())
        return await task, frames, "inner" in text

    async with embedded(Settings()) as producer:
        batch = await producer.submit([look.spec()])
        assert await batch.gather() == [(f"{batch.id}:0", 1, True)]


async def test_another_task_factory_is_kept_and_given_back() -> None:
    made: list[str] = []

    def factory(loop: asyncio.AbstractEventLoop, call: Any, **options: Any) -> asyncio.Task[Any]:
        made.append(getattr(call, "__name__", ""))
        return asyncio.Task(call, loop=loop, **options)

    @job
    async def start_one() -> int:
        return await asyncio.create_task(square.function(3))

    loop = asyncio.get_running_loop()
    loop.set_task_factory(factory)
    try:
        async with embedded(Settings()) as producer:
            assert await (await producer.submit([start_one.spec()])).gather() == [9]
        assert loop.get_task_factory() is factory
        assert "square" in made
    finally:
        loop.set_task_factory(None)


async def test_one_loop_has_one_factory_of_ours() -> None:
    loop, first, second = asyncio.get_running_loop(), Tasks(), Tasks()
    first.start(loop)
    ours = loop.get_task_factory()
    second.start(loop)
    second.stop()
    assert loop.get_task_factory() is ours
    first.stop()
    assert loop.get_task_factory() is None


async def test_a_job_that_takes_sigalrm_loses_it_and_the_next_one_is_interrupted() -> None:
    @job
    async def steal() -> None:
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        signal.setitimer(signal.ITIMER_REAL, 0)

    @job
    async def block() -> None:
        await asyncio.sleep(0.3)
        time.sleep(60)

    async with embedded(Settings()) as producer:
        _, result = await (await producer.submit([steal.spec(), block.spec()], timeout=0.5)).results()
    assert isinstance(result, TimeoutResult)
    assert result.stopped == "interrupted"
    assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
async def test_a_task_of_a_job_that_exits_is_that_jobs_failure_and_the_worker_lives(error: BaseException) -> None:
    @job
    async def starts_a_task_that_exits() -> None:
        async def leave() -> None:
            raise error

        await asyncio.gather(leave())

    async with embedded(Settings()) as producer:
        failed, napped = await (
            await producer.submit([starts_a_task_that_exits.spec(), nap.spec(0.01)], timeout=5)
        ).results()
    assert isinstance(failed, FailureResult)
    assert failed.error_type == "workers.starting.tasks.TaskExitedError"
    assert napped.status == "success"


@pytest.mark.redis
async def test_a_worker_process_that_is_told_to_stop_is_replaced(
    worker_process: StartProcess, redis: Any, producer: Any
) -> None:
    words = ["straggler", "worker", "--jobs", "tests.jobs"]
    supervisor = worker_process(command=words)
    first = _child_of(supervisor.pid)
    os.kill(first, signal.SIGTERM)
    while _child_of(supervisor.pid) in (0, first):
        await asyncio.sleep(0.02)
    assert await (await producer.submit([nap.spec(0.0)], timeout=5)).gather() == [0.0]
    supervisor.terminate()
    assert await asyncio.to_thread(supervisor.wait) == 0


@job
def leave_a_program(path: str) -> None:
    """Start a program, and say which."""
    program = subprocess.Popen(["sleep", "62.5"])
    with open(path, "w") as file:  # noqa: PTH123  # a plain job's plain way
        print(program.pid, file=file)
    program.wait()


@pytest.mark.redis
async def test_what_a_plain_job_has_started_ends_with_its_worker_process(
    worker_process: StartProcess, producer: Any, tmp_path: Path
) -> None:
    pid = tmp_path / "pid"
    words = ["straggler", "worker", "--jobs", "tests.timeouts.test_tasks"]
    supervisor = worker_process(command=words)
    await producer.submit([leave_a_program.spec(str(pid))], timeout=60)
    while not (pid.exists() and pid.read_text().endswith("\n")):
        await asyncio.sleep(0.02)
    program = Path(f"/proc/{pid.read_text().strip()}")
    assert program.exists()
    os.kill(_child_of(supervisor.pid), signal.SIGKILL)
    async with asyncio.timeout(PATIENCE):
        while program.exists():
            await asyncio.sleep(0.02)


def _child_of(pid: int) -> int:
    done = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False, cwd=ROOT)
    return int((done.stdout.split() or ["0"])[0])
