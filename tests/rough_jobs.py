"""Jobs that are rough with their processes, importable as `tests.rough_jobs`."""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from straggler import job
from tests.jobs import stubborn


@dataclass
class Picture:
    path: Path
    size: tuple[int, int]
    data: bytes


# ---- plain functions, each in a process


@job
def sum_numbers(one: int, two: int = 1) -> int:
    return one + two


@job
def turn(picture: Picture) -> Picture:
    width, height = picture.size
    return Picture(picture.path.with_suffix(".turned"), (height, width), picture.data[::-1])


@job
def process_id(_number: int = 0) -> int:
    return os.getpid()


@job
def sleep_on(seconds: float) -> None:
    time.sleep(seconds)


@job
def hang_with_child(path: Path) -> None:
    """Start a program that starts another, write down all ids, and hang."""
    program = (
        "import subprocess, sys, time; p = subprocess.Popen(['sleep', '60']); print(p.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        grandchild = child.stdout.readline().strip()
        path.with_suffix(".new").write_text(f"{os.getpid()} {child.pid} {grandchild}")
        path.with_suffix(".new").rename(path)
        time.sleep(60)


@job
def leave_process(code: int) -> None:
    os._exit(code)


@job
def die_by_signal(signum: int) -> None:
    os.kill(os.getpid(), signum)
    time.sleep(60)


@job
def raise_it(name: str) -> None:
    raise {"SystemExit": SystemExit(3), "KeyboardInterrupt": KeyboardInterrupt(), "ValueError": ValueError("no")}[name]


@job(max_memory=300_000_000)
def take_memory(size: int) -> int:
    return len(bytes(size))


@job
def chatter(text: str) -> str:
    print(text)  # noqa: T201  # what it is about
    sys.stdout.flush()
    os.write(1, text.encode())
    os.write(2, text.encode())
    return sys.stdin.read()


@job
def grow_text(size: int) -> str:
    return "x" * size


@job
def give_set() -> Any:
    return {object()}


@job
def fork_and_return() -> str:
    os.fork()
    return str(os.getpid())


@job
def fork_and_leave(code: int) -> None:
    """Leave a child behind that holds whatever it has inherited, and end."""
    if os.fork() == 0:
        time.sleep(60)
    os._exit(code)


@job
def use_a_pool(number: int) -> int:
    with multiprocessing.get_context("fork").Pool(2) as pool:
        return sum(pool.map(abs, range(-number, 0)))


@job
def close_everything() -> None:
    os.closerange(3, 100)
    time.sleep(60)


# ---- coroutines, which hold their worker's loop


@job
async def hold_in_c() -> None:
    """Run C code that looks at no signals."""
    sum(itertools.repeat(1, 10**12))


@job
def note_and_sleep_on(trace: Path) -> None:
    """Leave a line, then sleep for a while, in a process of its own."""
    with trace.open("a") as file:
        file.write("plain\n")
    time.sleep(1.5)


@job
async def hold_loop(seconds: float) -> None:
    """Hold the loop."""
    time.sleep(seconds)


@job
async def crash_worker(how: str, path: Path | None = None) -> None:
    """End this process: by `exit <code>` or `signal <number>`; leave a trace of each run."""
    if path is not None:
        with path.open("a") as file:
            file.write(f"{os.getpid()}\n")
    word, number = how.split()
    if word == "exit":
        os._exit(int(number))
    os.kill(os.getpid(), int(number))


@job
async def swallow_then_hold(seconds: float) -> None:
    """Ignore every cancellation for this long, then hold the loop in C code."""
    await stubborn(seconds)
    sum(itertools.repeat(1, 10**12))


@job
async def wait_for_door(door: Path, trace: Path, line: str) -> int:
    """Leave a trace of each run, then run until the door is open."""
    with trace.open("a") as file:
        file.write(f"{os.getpid()} {line}\n")
    while not door.exists():  # noqa: ASYNC110  # nobody tells us
        await asyncio.sleep(0.01)
    return os.getpid()


@job
async def start_program(path: Path) -> None:
    """Start a program, write down its id, and hold the loop in C code."""
    with subprocess.Popen(["sleep", "60"]) as child:  # noqa: S607  # any sleep will do
        path.with_suffix(".new").write_text(str(child.pid))
        path.with_suffix(".new").rename(path)
        sum(itertools.repeat(1, 10**12))


@job
async def start_program_and_wait(path: Path) -> None:
    """Start a program, write down its id, and wait for it."""
    program = await asyncio.create_subprocess_exec("sleep", "60")
    path.with_suffix(".new").write_text(str(program.pid))
    path.with_suffix(".new").rename(path)
    await program.wait()
