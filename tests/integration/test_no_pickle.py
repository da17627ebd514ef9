"""Nothing is pickled on the way of a batch, in no process: what crosses Redis is JSON."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from producer.batch import Batch
from producer.producer import Producer
from protocol import keys
from protocol.jobs import JobSpec
from protocol.recording import decode_indexes
from tests.conftest import StartProcess, StartWorker, until
from tests.jobs import fail, hang, square

# Put before a program, it turns every pickle in its process into an error.
NO_PICKLE = """
import pickle, runpy, sys
def refuse(*args, **kwargs):
    raise AssertionError("something was pickled")
class Refused:
    def __init__(self, *args, **kwargs):
        refuse()
pickle.dumps = pickle.loads = pickle.dump = pickle.load = refuse
pickle.Pickler = pickle.Unpickler = Refused
sys.argv = sys.argv[1:]
"""
STRAGGLER = [sys.executable, "-c", NO_PICKLE + "from straggler.cli import main\nmain()", "straggler", "worker"]
ARQ = [
    sys.executable,
    "-c",
    NO_PICKLE + "from arq.cli import cli\ncli()",
    "arq",
    "workers.settings.WorkerSettings",
]

JOBS: list[JobSpec[Any]] = [*(square.spec(n) for n in range(20)), hang.spec(timeout=0.1), fail.spec("no")]


@pytest.fixture
def no_pickle(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("something was pickled")

    for name in ("dumps", "loads", "dump", "load", "Pickler", "Unpickler"):
        monkeypatch.setattr(f"pickle.{name}", refuse)


@pytest.mark.usefixtures("no_pickle")
async def test_producer_and_worker_pickle_nothing(producer: Producer, worker: StartWorker) -> None:
    async with worker():
        batch: Batch[Any] = await producer.submit(JOBS)
        assert len(await batch.results()) == len(JOBS)


@pytest.mark.redis
@pytest.mark.usefixtures("no_pickle")
@pytest.mark.parametrize(("command", "ready"), [(STRAGGLER, "takes jobs from"), (ARQ, "Starting worker")])
async def test_worker_processes_pickle_nothing(
    producer: Producer, worker_process: StartProcess, command: list[str], ready: str
) -> None:
    started = worker_process("tests.jobs", command=command, ready=ready)
    batch: Batch[Any] = await producer.submit(JOBS)
    results = await batch.results()
    assert [result.status for result in results] == ["success"] * 20 + ["timeout", "failure"]
    started.terminate()
    await asyncio.to_thread(started.wait)
    assert "something was pickled" not in started.output


async def test_everything_in_redis_is_json(producer: Producer, redis: Any, worker: StartWorker, door: Path) -> None:
    async with worker(concurrency=3):
        batch: Batch[Any] = await producer.submit([hang.spec(timeout=0.3), fail.spec("no"), square.spec(2)])
        await until(lambda: redis.keys("arq:job:*"))
        for key in redis.keys("arq:job:*"):
            payload = redis.get(key)
            assert payload is None or json.loads(payload)["f"] == "straggler_chunk"
        await batch.wait()
    json.loads(redis.hget(keys.batch(batch.id), "options"))
    for chunk in redis.hvals(keys.chunks(batch.id)):
        json.loads(chunk)
    entries = redis.xrange(keys.results(batch.id))
    assert entries.pop()[1] == {b"end": b"3"}
    for _, entry in entries:
        for name in entry.keys() - {b"indexes"}:
            json.loads(entry[name])
    assert sorted(index for _, entry in entries for index in decode_indexes(entry[b"indexes"].decode())) == [0, 1, 2]
