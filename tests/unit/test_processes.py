"""Plain functions in processes: there and back as JSON, killed with all that they started, and never a slot lost."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic_core import from_json

from protocol.errors import OptionError
from protocol.jobs import JobSpec
from straggler import job
from tests import rough_jobs
from tests.conftest import PATIENCE, ROOT, until
from tests.rough_jobs import Picture
from workers import processes as module
from workers import registry
from workers.calling.calls import Encoded
from workers.ending.failures import DescribedError
from workers.ending.outcomes import HandedBack, Outcome, Raised, Returned, TimedOut
from workers.processes import ProcessDiedError, Processes, leaves_process_fit
from workers.registry import Job
from workers.timeouts import Run
from workers.timing.deadlines import Deadlines
from workers.vitals.endings import describe_exit

LONG = 30.0
LIMIT = 1 << 20


@asynccontextmanager
async def processes(limit: int = 2) -> AsyncIterator[Processes]:
    made = Processes(limit)
    try:
        yield made
    finally:
        await made.close()


def is_there(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"  # a zombie waits for init, which is not ours


class Trial(Run):
    """One job in a process, as a chunk runs it."""

    def __init__(self, pool: Processes, process: module.Process, spec: JobSpec[Any], limit: float, most: int) -> None:
        self.over = asyncio.Event()
        self.pool = pool
        self.process = process
        call = process.run(registry.find(spec.function), spec, most)
        super().__init__(call, limit, 5.0, Deadlines(), stopped="killed")

    def ended(self) -> None:
        self.pool.give(self.process, is_fit=leaves_process_fit(self.outcome))
        self.over.set()


async def trial(pool: Processes, spec: JobSpec[Any], limit: float = LONG, most: int = LIMIT) -> Trial:
    run = Trial(pool, await pool.take(), spec, limit, most)
    await run.over.wait()
    return run


async def value_of(pool: Processes, spec: JobSpec[Any]) -> Any:
    """Run a job that is to succeed."""
    outcome = (await trial(pool, spec)).outcome
    assert isinstance(outcome, Returned), outcome
    assert isinstance(outcome.value, Encoded)
    return from_json(outcome.value.text)["value"]


async def error_of(pool: Processes, spec: JobSpec[Any], most: int = LIMIT) -> BaseException:
    """Run a job that is to fail."""
    outcome = (await trial(pool, spec, most=most)).outcome
    assert isinstance(outcome, Raised), outcome
    return outcome.error


# ---- there and back


async def test_arguments_and_values_travel_as_json_in_their_types() -> None:
    async with processes() as pool:
        assert await value_of(pool, rough_jobs.sum_numbers.spec(2, two=3)) == 5
        picture = Picture(Path("/a/b.png"), (3, 4), b"\x00\xff\x10")
        back = await value_of(pool, rough_jobs.turn.spec(picture))
    assert rough_jobs.turn.signature.decode_value(back) == Picture(Path("/a/b.turned"), (4, 3), b"\x10\xff\x00")


def test_nothing_is_pickled() -> None:
    code = """
import asyncio, pickle, sys
def refuse(*_, **__): raise AssertionError("pickled")
pickle.dumps = pickle.loads = pickle.dump = pickle.load = refuse
from tests.rough_jobs import sum_numbers as add
from workers.processes import Processes
async def main():
    pool = Processes(1)
    process = await pool.take()
    print((await process.run(add, add.spec(1), 1000)).text.decode())
    pool.give(process, is_fit=True)
    await pool.close()
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ('{"value":2}\n', "")
    for name in ("processes", "calling/child"):
        assert "import pickle" not in Path(ROOT / f"workers/{name}.py").read_text()


async def test_a_process_runs_one_job_after_the_other() -> None:
    async with processes(1) as pool:
        assert len({await value_of(pool, rough_jobs.process_id.spec(number)) for number in range(20)}) == 1


async def test_no_more_run_at_a_time_than_the_limit_and_all_get_their_turn() -> None:
    async with processes(2) as pool:
        calls = [value_of(pool, rough_jobs.process_id.spec(number)) for number in range(30)]
        assert len(set(await asyncio.gather(*calls))) == 2


async def test_what_a_job_prints_does_not_break_the_line(capfd: pytest.CaptureFixture[str]) -> None:
    async with processes(1) as pool:
        assert await value_of(pool, rough_jobs.chatter.spec('{"value": 1}\n\x00')) == ""
        assert await value_of(pool, rough_jobs.sum_numbers.spec(1)) == 2
    out, err = capfd.readouterr()
    assert (out.count('{"value": 1}'), err) == (2, '{"value": 1}\n\x00')


def run_script(folder: Path, lines: str, last: str) -> subprocess.CompletedProcess[str]:
    """Run a script with a job `double`, embedded: lines of its `main`, and its last ones."""
    script = folder / "script.py"
    script.write_text(f"""
import asyncio
from straggler import embedded, job
@job
def double(number: int) -> int:
    return 2 * number
async def main():
    async with embedded() as producer:
        {lines}
{last}
""")
    words, environment = [sys.executable, str(script)], {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=50)


async def test_a_function_of_a_script_is_found_by_its_file(tmp_path: Path) -> None:
    line = "print(await (await producer.submit(double.map([1, 2, 3]))).gather())"
    done = run_script(tmp_path, line, "if __name__ == '__main__': asyncio.run(main())")
    assert (done.stdout, done.stderr) == ("[2, 4, 6]\n", "")


async def test_a_script_that_does_not_ask_for_main_starts_no_processes_without_end(tmp_path: Path) -> None:
    line = "print(*((one.status, one) for one in await (await producer.submit([double.spec(1)])).results()))"
    done = run_script(tmp_path, line, "asyncio.run(main())")
    inner, outer = done.stdout.splitlines()
    assert "put what it runs under `if __name__ == '__main__':`" in inner
    assert outer.startswith("('success'")


# ---- failures


@pytest.mark.parametrize(("name", "told"), [("ValueError", "no"), ("SystemExit", "3"), ("KeyboardInterrupt", "")])
async def test_what_a_job_raises_is_its_failure_and_its_process_goes_on(name: str, told: str) -> None:
    async with processes(1) as pool:
        before = await value_of(pool, rough_jobs.process_id.spec())
        error = await error_of(pool, rough_jobs.raise_it.spec(name))
        assert isinstance(error, DescribedError)
        assert (error.described["error_type"], error.described["message"]) == (name, told)
        assert "in raise_it" in error.described["traceback"]
        assert await value_of(pool, rough_jobs.process_id.spec()) == before


@pytest.mark.parametrize(
    ("spec", "how"),
    [
        (rough_jobs.leave_process.spec(0), "exit code 0"),
        (rough_jobs.leave_process.spec(3), "exit code 3"),
        (rough_jobs.die_by_signal.spec(signal.SIGKILL), "signal SIGKILL"),
        (rough_jobs.die_by_signal.spec(signal.SIGSEGV), "signal SIGSEGV"),
        (rough_jobs.fork_and_leave.spec(4), "exit code 4"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_process_that_dies_under_a_job_is_its_failure_and_names_how(spec: JobSpec[Any], how: str) -> None:
    async with processes(1) as pool:
        error = await error_of(pool, spec)
        assert isinstance(error, ProcessDiedError)
        assert str(error) == f"the job's process ended by itself: {how}"
        assert await value_of(pool, rough_jobs.sum_numbers.spec(1)) == 2


async def test_memory_over_the_limit_is_a_failure_that_says_so() -> None:
    async with processes(1) as pool:
        before = await value_of(pool, rough_jobs.process_id.spec())
        error = await error_of(pool, rough_jobs.take_memory.spec(1 << 30))
        assert isinstance(error, DescribedError)
        assert error.described["error_type"] == "MemoryError"
        assert error.described["message"] == "the job needs more than its max_memory of 300,000,000 bytes"
        assert await value_of(pool, rough_jobs.process_id.spec()) != before  # who knows what is left of it
        assert await value_of(pool, rough_jobs.take_memory.spec(1000)) == 1000


async def test_the_memory_limit_holds_for_its_own_job_only() -> None:
    async with processes(1) as pool:
        assert await value_of(pool, rough_jobs.take_memory.spec(1000)) == 1000
        assert len(await value_of(pool, rough_jobs.grow_text.spec(500_000))) == 500_000


async def test_a_value_over_the_limit_is_refused_and_one_that_is_no_json() -> None:
    async with processes(1) as pool:
        error = await error_of(pool, rough_jobs.grow_text.spec(200_000_000), most=1000)
        assert "the value takes 200,000,012 bytes as JSON, at most 1,000 may be kept" in str(error)
        assert "returned what cannot be its result" in str(await error_of(pool, rough_jobs.give_set.spec()))


async def test_a_module_that_a_process_cannot_import_is_a_clear_failure() -> None:
    async with processes(1) as pool:
        process = await pool.take()
        function: Job[Any, Any, Any] = Job(rough_jobs.sum_numbers.function, "sum_numbers", isolation="process")
        for name, told in (("no.such.module", "ModuleNotFoundError"), ("/no/file.py", "no file '/no/file.py' here")):
            function.function.__module__, before = name, function.function.__module__
            try:
                with pytest.raises(DescribedError, match=told):
                    await process.run(function, rough_jobs.sum_numbers.spec(1), LIMIT)
            finally:
                function.function.__module__ = before
        pool.give(process, is_fit=True)


async def test_arguments_that_a_process_cannot_take_are_a_failure() -> None:
    async with processes(1) as pool:
        assert "one: Input should be a valid integer" in str(await error_of(pool, rough_jobs.sum_numbers.spec("x")))


# ---- killed


async def test_a_job_past_its_deadline_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    async with processes(1) as pool:
        started = asyncio.create_task(trial(pool, rough_jobs.hang_with_child.spec(pids), limit=2.0))
        await until(pids.exists)
        found = [int(pid) for pid in pids.read_text().split()]
        assert all(is_there(pid) for pid in found)
        run = await started
        assert run.outcome == TimedOut(2.0, "running", "killed")
        assert run.finished - run.started < 2.0 + 30.0  # it would hang for a minute
        await until(lambda: not any(is_there(pid) for pid in found))
        assert await value_of(pool, rough_jobs.sum_numbers.spec(1)) == 2


async def test_many_hanging_jobs_cost_no_slot() -> None:
    async with processes(2) as pool:
        ended = await asyncio.gather(*(trial(pool, rough_jobs.sleep_on.spec(60), limit=0.05) for _ in range(16)))
        assert all(isinstance(run.outcome, TimedOut) for run in ended)
        calls = [value_of(pool, rough_jobs.sum_numbers.spec(number)) for number in range(30)]
        assert await asyncio.gather(*calls) == list(range(1, 31))


async def test_a_process_that_has_closed_its_line_is_killed_at_the_deadline() -> None:
    async with processes(1) as pool:
        run = await trial(pool, rough_jobs.close_everything.spec(), limit=0.5)
        assert run.outcome == TimedOut(0.5, "running", "killed")


async def test_processes_are_ended_though_jobs_hold_all_threads_of_the_loop() -> None:
    go_on = asyncio.Event()
    loop = asyncio.get_running_loop()

    def hold() -> None:
        asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result()

    holding = [asyncio.create_task(asyncio.to_thread(hold)) for _ in range(40)]
    async with processes(1) as pool:
        assert "exit code 3" in str(await error_of(pool, rough_jobs.leave_process.spec(3)))
        assert isinstance((await trial(pool, rough_jobs.sleep_on.spec(60), limit=0.05)).outcome, TimedOut)
    go_on.set()
    await asyncio.gather(*holding)


async def test_a_process_that_died_while_it_was_idle_fails_nobody() -> None:
    async with processes(1) as pool:
        pid = await value_of(pool, rough_jobs.process_id.spec())
        os.kill(pid, signal.SIGKILL)
        await until(lambda: not is_there(pid))
        assert await value_of(pool, rough_jobs.process_id.spec()) != pid


# ---- forks


async def test_what_a_job_forks_does_not_answer_for_it() -> None:
    async with processes(1) as pool:
        pid = await value_of(pool, rough_jobs.fork_and_return.spec())
        assert pid == str(await value_of(pool, rough_jobs.process_id.spec()))
        assert [await value_of(pool, rough_jobs.sum_numbers.spec(number)) for number in range(20)] == list(range(1, 21))


async def test_a_job_may_use_a_pool_of_its_own() -> None:
    async with processes(1) as pool:
        assert await value_of(pool, rough_jobs.use_a_pool.spec(10)) == 55


# ---- waiting, closing


async def test_a_cancelled_wait_for_a_process_loses_none() -> None:
    async with processes(1) as pool:
        process = await pool.take()
        waiting = [asyncio.create_task(pool.take()) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        pool.give(process, is_fit=True)  # the turn of the second
        waiting[1].cancel()  # has it, and does not know yet
        assert await waiting[2] is process
        assert await asyncio.gather(*waiting[:2], return_exceptions=True) != []
        pool.give(process, is_fit=True)
        assert await value_of(pool, rough_jobs.sum_numbers.spec(1)) == 2


async def test_a_cancelled_start_leaves_no_process_and_no_gap() -> None:
    async with processes(1) as pool:
        starting = asyncio.create_task(pool.take())
        await until(lambda: pool._all)
        starting.cancel()
        await asyncio.wait({starting})
        assert await value_of(pool, rough_jobs.sum_numbers.spec(1)) == 2


async def test_a_process_that_cannot_be_started_is_an_error_and_no_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    async with processes(1) as pool:
        with monkeypatch.context() as patched:
            patched.setattr(subprocess, "Popen", refuse)
            for _ in range(3):
                with pytest.raises(ProcessDiedError, match=r"no process can be started .* Resource temporarily"):
                    await pool.take()
        assert await value_of(pool, rough_jobs.sum_numbers.spec(1)) == 2


@pytest.mark.parametrize(
    ("start", "told"),
    [("import os; os._exit(7)", "exit code 7"), ("import time; time.sleep(60)", "not ready after 0.2 s")],
)
async def test_a_process_that_is_never_ready_is_an_error_and_no_gap(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, start: str, told: str
) -> None:
    broken = tmp_path / "python"
    broken.write_text(f"#!{sys.executable}\n{start}\n")
    broken.chmod(0o755)
    async with processes(1) as pool:
        with monkeypatch.context() as patched:
            patched.setattr(sys, "executable", str(broken))
            patched.setattr(module, "_LONGEST_START", 0.2 if "sleep" in start else 20.0)
            with pytest.raises(ProcessDiedError, match=told):
                await pool.take()
        assert await value_of(pool, rough_jobs.sum_numbers.spec(1)) == 2


async def test_close_leaves_no_process_busy_ones_included() -> None:
    async with processes(3) as pool:
        await value_of(pool, rough_jobs.sum_numbers.spec(1))
        taken = [await pool.take(), await pool.take()]
        call = taken[0].run(rough_jobs.sleep_on, rough_jobs.sleep_on.spec(60), LIMIT)
        busy = asyncio.create_task(call)
        await asyncio.sleep(0)
        await pool.close()
        with pytest.raises(ProcessDiedError, match="SIGKILL"):
            await busy
        assert not any(process.is_alive for process in taken)
        for process in taken:
            pool.give(process, is_fit=False)
    # The guard against leaked processes looks for the rest.


def test_processes_end_with_their_worker_however_that_ends(tmp_path: Path) -> None:
    code = """
import asyncio
from pathlib import Path
from tests.rough_jobs import process_id, sleep_on
from workers.processes import Processes
async def main():
    pool = Processes(2)
    idle, busy = await pool.take(), await pool.take()
    pids = [(await p.run(process_id, process_id.spec(), 1000)).text.decode() for p in (idle, busy)]
    print(*(pid[9:-1] for pid in pids), flush=True)
    await busy.run(sleep_on, sleep_on.spec(60), 1000)
asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        pids = [int(pid) for pid in worker.stdout.readline().split()]
        assert len(pids) == 2
        worker.kill()
    deadline = time.monotonic() + PATIENCE
    while any(is_there(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.01)


# ---- what is told, and what is refused


def test_exit_codes_and_signals_have_names() -> None:
    assert [describe_exit(code) for code in (0, 3, -9, -11, -99)] == [
        "exit code 0", "exit code 3", "signal SIGKILL", "signal SIGSEGV", "signal 99",
    ]  # fmt: skip


def test_only_what_ended_in_order_leaves_its_process_fit() -> None:
    fit: list[Outcome | None] = [
        Returned(Encoded(b"")),
        Raised(DescribedError({"error_type": "ValueError", "message": "no"})),
    ]
    unfit: list[Outcome | None] = [
        Raised(DescribedError({"error_type": "MemoryError", "message": "no"})),
        Raised(ProcessDiedError("gone")),
        TimedOut(1.0, "running", "killed"),
        HandedBack(),
        None,
    ]
    assert [leaves_process_fit(outcome) for outcome in fit + unfit] == [True] * 2 + [False] * 5


def test_a_plain_function_inside_another_is_refused_where_it_is_defined() -> None:
    def inner() -> None: ...

    with pytest.raises(OptionError, match=r"<locals>\.inner' is defined inside a function, where its process cannot"):
        job(inner)
    assert job(isolation="thread")(inner).isolation == "thread"


@pytest.mark.parametrize(
    ("options", "function", "told"),
    [
        ({"isolation": "loop"}, rough_jobs.sum_numbers.function, "use 'process' or 'thread'"),
        ({"isolation": "process"}, rough_jobs.swallow_then_hold.function, "runs on the event loop"),
        ({"max_memory": 1}, rough_jobs.swallow_then_hold.function, "runs on the event loop"),
        ({"isolation": "thread", "max_memory": 1}, rough_jobs.sum_numbers.function, "whose memory cannot be limited"),
        ({"max_memory": 0}, rough_jobs.sum_numbers.function, "a number of bytes above 0"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], function: Callable[..., Any], told: str) -> None:
    with pytest.raises(OptionError, match=told):
        job(name="refused", **options)(function)
    assert "refused" not in registry.names()


def test_a_jobs_process_loads_nothing_that_speaks_to_redis() -> None:
    """Each of them would wait for that import: 0.1 s and more."""
    code = (
        "import sys, workers.calling.child; sys.exit(', '.join({'redis', 'arq', 'fakeredis'} & set(sys.modules)) or 0)"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr.strip()) == (0, "")
