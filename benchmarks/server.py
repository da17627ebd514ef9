"""What jobs cost Redis: its CPU a job, bytes a queued job and a kept result, an idle worker's commands, a claim.

    python -m benchmarks.server [--size quick|normal|full]

Read from Redis itself: INFO cpu and commandstats, SLOWLOG for each claim, MEMORY USAGE, and MONITOR for what an idle
worker sends.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections import Counter
from statistics import mean
from typing import Any

from benchmarks.figures import Answer, median
from benchmarks.harness import Effort, main, redis_server, workers
from benchmarks.jobs import noop
from benchmarks.throughput import CONCURRENCY, WORKERS, end_to_end, forget, run_batch
from protocol import keys
from protocol.clock import RedisClock
from straggler import Producer
from workers.claims import Claims
from workers.starting.slots import Slots

# Of a line of MONITOR: what a script calls says `lua` where others say the client's address.
_SENT = re.compile(r'\[\d+ (?!lua)[^\]]*\] "([^"]+)"')
# Chunks in progress ahead of those that are claimed, and claims that are measured. So many, as Redis doubles its table
# of keys at 4,096 of them: the next 160 claims move it over, bit by bit, and take a sixth longer. 1,000,000 jobs are
# 3,907 chunks, each of them a key, and one more while in progress: the first 60 claims would tell of nothing else.
IN_PROGRESS = 200
CLAIMS = 400
LARGEST_CHUNK = 256


async def cpu(producer: Producer) -> float:
    """Tell how much CPU Redis has used so far, s: its main thread where it says so, as the others only free memory."""
    info = await producer.redis.info("cpu")
    ending = "_main_thread" if "used_cpu_user_main_thread" in info else ""
    return float(info[f"used_cpu_user{ending}"]) + float(info[f"used_cpu_sys{ending}"])


async def memory(producer: Producer) -> int:
    """Tell how many bytes the keys of batches and chunks take."""
    redis = producer.redis
    names = [key async for key in redis.scan_iter(count=1000) if b":batch:" in key or key.startswith(b"arq:job:")]
    names.append(keys.queue(producer.queue).encode())
    return sum([int(await redis.memory_usage(name, samples=0) or 0) for name in names])


async def spent(producer: Producer) -> Counter[str]:
    """Tell for how long, µs, Redis has run each command so far; what a script calls counts in `evalsha`, too."""
    stats = await producer.redis.info("commandstats")
    return Counter({name.removeprefix("cmdstat_"): int(one["usec"]) for name, one in stats.items()})


async def cpu_a_job(producer: Producer, count: int) -> float:
    """Run no-op jobs; returns Redis' CPU for one, µs."""
    before = await cpu(producer)
    await run_batch(producer, count)
    used = await cpu(producer) - before
    await forget(producer)
    return used / count * 1e6


async def bytes_a_queued_job(producer: Producer, count: int) -> float:
    """Queue no-op jobs; returns the bytes that one takes."""
    await producer.submit(noop.map(range(count)))
    return await memory(producer) / count


async def bytes_a_result(producer: Producer, count: int) -> float:
    """Run no-op jobs; returns the bytes that one's result takes while it is kept."""
    before = await memory(producer)
    batch = await producer.submit(noop.map(range(count)))
    async for _ in batch.as_completed():
        pass
    await asyncio.sleep(0.5)  # the last chunks are let go
    return (await memory(producer) - before) / count


async def idle_commands(url: str, seconds: float) -> tuple[float, Counter[str]]:
    """Watch what one idle worker, supervisor included, sends for so long; returns how much a second, and of what."""
    async with workers(url, 1, CONCURRENCY):
        await asyncio.sleep(1.0)
        lines = await _monitored(url, seconds)
    sent = Counter(match[1].lower() for line in lines if (match := _SENT.search(line)))
    return sent.total() / seconds, sent


async def _monitored(url: str, seconds: float) -> list[str]:
    reader, writer = await asyncio.open_unix_connection(url.removeprefix("unix://"))
    lines: list[str] = []
    try:
        writer.write(b"MONITOR\r\n")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while line := await reader.readline():
                    lines.append(line.decode(errors="replace"))
    finally:
        writer.close()
    return lines


async def claim_cost(queued: int, in_progress: int, count: int) -> float:
    """Claim chunks one by one; returns Redis' time for one, µs, the slowest tenth left out.

    Args:
        queued: Jobs in the queue.
        in_progress: Chunks before them that somebody has leased.
        count: How many claims.
    """
    with redis_server() as url:
        async with Producer(url) as producer:
            await producer.submit(noop.map(range(queued)), batch_id="queued")
            await _claim(producer, "other", in_progress)
            await producer.redis.config_set("slowlog-log-slower-than", 0)
            await producer.redis.config_set("slowlog-max-len", 100 * count)
            await producer.redis.slowlog_reset()
            await _claim(producer, "measured", count)
            entries = await producer.redis.slowlog_get(100 * count)
    took: list[int] = sorted(entry["duration"] for entry in entries if entry["command"].startswith(b"EVALSHA"))
    # In the slowest tenth something else had Redis' core.
    return mean(took[: len(took) - len(took) // 10])


async def _claim(producer: Producer, worker_id: str, chunks: int) -> None:
    claims = Claims(producer.scripts, producer.queue, worker_id, RedisClock(), 600.0)
    claimed = 0
    # As a worker of that many slots does whose jobs end at once: it takes a whole chunk.
    slots = Slots(LARGEST_CHUNK)
    slots.free = 0
    while claimed < chunks:
        slots.took_turn(LARGEST_CHUNK / 0.005)
        found = len((await claims.due(slots)).chunks)
        assert found, "the queue is empty before all were claimed"
        claimed += found


async def measure(effort: Effort) -> Answer:
    """Measure each with a Redis of its own."""
    count, many = effort.pick(5_000, 100_000, 100_000), effort.pick(100_000, 1_000_000, 1_000_000)
    started = time.perf_counter()
    figures, by_command = await _costs(effort, count)
    with redis_server() as url:
        figures["idle commands/s"], sent = await idle_commands(url, effort.pick(4.0, 15.0, 60.0))
    claims = effort.pick(60, CLAIMS, CLAIMS)
    few = (claims + 50) * LARGEST_CHUNK
    pairs = [
        (await claim_cost(many, IN_PROGRESS, claims), await claim_cost(few, 0, claims)) for _ in range(effort.runs)
    ]
    figures["claim µs, many queued"], figures["claim µs, few queued"] = (
        median(times) for times in zip(*pairs, strict=True)
    )
    figures["claim ratio"] = median([with_many / with_few for with_many, with_few in pairs])
    rows: list[dict[str, Any]] = [
        {"": f"CPU a no-op job ({count:,}), µs", "Redis": f"{figures['cpu µs a job']:.2f}"},
        {"": "bytes a queued no-op job", "Redis": f"{figures['bytes queued']:.0f}"},
        {"": "bytes a kept result of a no-op job", "Redis": f"{figures['bytes a result']:.0f}"},
        {"": "commands a second of an idle worker", "Redis": f"{figures['idle commands/s']:.2f}"},
        {"": f"a claim, {few:,} jobs queued, none in progress, µs", "Redis": f"{figures['claim µs, few queued']:.0f}"},
        {
            "": f"a claim, {many:,} jobs queued, {IN_PROGRESS} chunks in progress, µs",
            "Redis": f"{figures['claim µs, many queued']:.0f}",
        },
    ]
    notes = [
        f"An idle worker sends: {', '.join(f'{number} {name}' for name, number in sent.most_common())}.",
        f"By command, µs a job, those of scripts in evalsha, too: {by_command}.",
    ]
    settings = {"workers": WORKERS, "concurrency": CONCURRENCY, "runs": effort.runs}
    settings["seconds"] = round(time.perf_counter() - started)
    return Answer("What jobs cost Redis (medians)", settings, rows, figures, notes=notes)


async def _costs(effort: Effort, count: int) -> tuple[dict[str, float], str]:
    with redis_server() as url:
        async with Producer(url) as producer:
            queued = await bytes_a_queued_job(producer, count)
    with redis_server() as url:
        async with workers(url, WORKERS, CONCURRENCY), Producer(url) as producer:
            await end_to_end(producer, count)
            before = await spent(producer)
            used = median([await cpu_a_job(producer, count) for _ in range(effort.runs)])
            commands = (await spent(producer) - before).most_common(8)
            kept = await bytes_a_result(producer, count)
    said = ", ".join(f"{name} {usec / effort.runs / count:.2f}" for name, usec in commands)
    return {"cpu µs a job": used, "bytes queued": queued, "bytes a result": kept}, said


if __name__ == "__main__":
    main(measure)
