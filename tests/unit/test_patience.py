"""Calls while Redis is away: tried again, said once, and given up as soon as the caller wants no more."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ExecAbortError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
)
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
)
from redis.exceptions import (
    TimeoutError as RedisTimeoutError,
)

from protocol.connection import ArqRedis, Scripts, connect
from protocol.patience import Outage, Patience, in_time, is_passing, pauses
from tests.conftest import PATIENCE, until
from tests.redis_server import RedisServer

SET = "redis.call('set', KEYS[1], 'x', 'px', 60000) return redis.call('get', KEYS[1])"


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """Start a server that may be ill-treated."""
    server = RedisServer().start()
    yield server
    server.stop()


@pytest.fixture
async def client(server: RedisServer) -> AsyncIterator[ArqRedis]:
    client = connect(server.url)
    yield client
    await client.aclose(close_connection_pool=True)


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """List the events that were logged."""
    return [record.event for record in caplog.records]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "error",
    [
        RedisConnectionError("Error 111 connecting"), RedisTimeoutError("Timeout reading"), ConnectionResetError(),
        BusyLoadingError("Redis is loading the dataset in memory"), ReadOnlyError("You can't write"),
        OutOfMemoryError("command not allowed"), ResponseError("MISCONF Redis is configured to save"),
        ResponseError("MASTERDOWN Link with MASTER is down"), ResponseError("NOREPLICAS Not enough good replicas"),
        ResponseError("TRYAGAIN Multiple keys request"), ResponseError("CLUSTERDOWN The cluster is down"),
        ResponseError("BUSY Redis is busy running a script"), ResponseError("UNBLOCKED force unblock"),
        ResponseError("Error running script (call to f_1): @user_script:1: @user_script: 1: -OOM command not allowed"),
        ExecAbortError("Transaction discarded because of: OOM command not allowed"),
    ],
)  # fmt: skip
def test_what_time_heals_passes(error: Exception) -> None:
    assert is_passing(error)


@pytest.mark.parametrize(
    "error",
    [
        AuthenticationError("invalid password"), NoPermissionError("this user has no permissions"),
        NoScriptError("No matching script"), ResponseError("WRONGTYPE Operation against a key"),
        ResponseError("BUSYGROUP Consumer Group name already exists"), ResponseError("BUSYKEY Target key name"),
        ExecAbortError("Transaction discarded because of previous errors."), ResponseError("unknown command 'OOM'"),
        RedisConnectionError(AuthenticationError("invalid password")), ValueError("OOM "), b"OOM ", None,
    ],
)  # fmt: skip
def test_what_time_does_not_heal_does_not_pass(error: object) -> None:
    assert not is_passing(error)


def test_tries_are_spaced_ever_wider_up_to_a_second() -> None:
    waits = [wait for _, wait in zip(range(20), pauses(), strict=False)]
    assert 0.01 <= waits[0] <= 0.02
    assert all(0.5 <= wait <= 1 for wait in waits[6:])
    assert len(set(waits)) == 20, "with jitter"


class Away:
    """A call that fails until told otherwise."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error: Exception | None = error or RedisConnectionError("gone")
        self.tries = 0

    async def __call__(self) -> int:
        self.tries += 1
        if self.error is not None:
            raise self.error
        return self.tries


async def test_a_short_outage_is_not_said(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("protocol.patience._WORTH_SAYING", 20.0)  # this machine may be busy
    patience, call = Patience(), Away()
    trying = asyncio.create_task(patience.keep_trying(call))
    await until(lambda: call.tries > 2)
    call.error = None
    assert await trying == call.tries > 3
    assert said(caplog) == []


async def test_an_outage_is_said_once_and_its_end_once_no_call_fails_any_more(
    caplog: pytest.LogCaptureFixture,
) -> None:
    patience = Patience()
    calls = [Away() for _ in range(3)]
    trying = [asyncio.create_task(patience.keep_trying(call)) for call in calls]
    await until(lambda: patience.outage.is_said)
    for call, task in zip(calls, trying, strict=True):
        healthy = Away()
        healthy.error = None
        await patience.keep_trying(healthy)  # e.g. a read, while writes are refused
        assert said(caplog) == ["redis.away"]
        call.error = None
        await task
    assert said(caplog) == ["redis.away", "redis.back"]
    assert caplog.records[0].message == "Redis is away (gone): trying again"


async def test_a_call_that_is_cancelled_is_no_sign_that_redis_is_back(caplog: pytest.LogCaptureFixture) -> None:
    patience, call = Patience(), Away()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await patience.keep_trying(call)
    trying = asyncio.create_task(patience.keep_trying(call))
    await until(lambda: patience.outage.is_said)
    trying.cancel()
    await asyncio.wait({trying})
    assert said(caplog) == ["redis.away"]
    call.error = None
    await patience.keep_trying(call)
    assert said(caplog) == ["redis.away", "redis.back"]


async def test_an_answer_that_does_not_please_is_an_answer(caplog: pytest.LogCaptureFixture) -> None:
    patience, call = Patience(), Away()
    trying = asyncio.create_task(patience.keep_trying(call))
    await until(lambda: patience.outage.is_said)
    call.error = ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value")
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await trying
    assert said(caplog) == ["redis.away", "redis.back"]


async def test_a_loop_that_was_held_is_not_taken_for_an_outage(caplog: pytest.LogCaptureFixture) -> None:
    outage = Outage()
    outage.began(RedisTimeoutError("Timeout reading"))
    time.sleep(0.7)  # a job that holds its loop
    for _ in range(3):  # the timers that are due run
        await asyncio.sleep(0)
    assert said(caplog) == [], "the call has had no chance to be tried again"
    await until(lambda: outage.is_said)
    outage.ended(answered=True)
    assert said(caplog) == ["redis.away", "redis.back"]


async def test_a_redis_in_this_process_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("protocol.patience._PATIENCE", 0.01)
    calls = 0

    async def reply() -> str:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0.1)
        return "there"

    redis: Any = connect("memory://waited-for")
    assert await redis.patience.keep_trying(reply) == "there"
    assert (calls, redis.patience.retries) == (1, 0)


async def test_a_call_without_a_reply_is_made_again_and_given_more_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("protocol.patience._PATIENCE", 0.05)
    limits: list[float] = []

    async def noted(attempt: Callable[[], Awaitable[str]], limit: float) -> str:
        limits.append(limit)
        return await in_time(attempt, limit)

    monkeypatch.setattr("protocol.patience.in_time", noted)

    async def slow() -> str:
        if len(limits) < 3:
            await asyncio.Event().wait()  # a large command on a slow network
        return "arrived"

    assert await Patience().keep_trying(slow) == "arrived"
    assert limits == [0.05, 0.1, 0.2]


async def test_a_cancel_gets_through_whatever_step_a_call_is_at(redis_url: str) -> None:
    client = connect(redis_url)
    for steps in range(40):
        blpop: Any = client.blpop([f"list-{steps}"], timeout=600)
        waiting = asyncio.create_task(blpop)
        for _ in range(steps):
            await asyncio.sleep(0)
        waiting.cancel()
        done, _ = await asyncio.wait({waiting}, timeout=PATIENCE)
        assert done, f"swallowed after {steps} steps"
    await client.aclose(close_connection_pool=True)


# ---- what a real Redis says


async def refused(server: RedisServer, client: ArqRedis, caplog: pytest.LogCaptureFixture) -> None:
    """Assert that each way to write waits while Redis refuses it, and goes on by itself."""
    patience: Patience = client.patience  # type: ignore[attr-defined]

    async def in_transaction(*, transaction: bool) -> list[Any]:
        async with client.pipeline(transaction=transaction) as pipe:
            pipe.get("none")
            pipe.set("key", "value", px=60_000)
            return await pipe.execute()

    ways: list[Any] = [
        client.set("key", "value", px=60_000), client.eval(SET, 1, "key"),
        in_transaction(transaction=True), in_transaction(transaction=False),
        Scripts(client).run_all([("renew", ("queue",), ("worker", 1000, "chunk"))] * 2),
    ]  # fmt: skip
    trying = [asyncio.ensure_future(way) for way in ways]
    await until(lambda: patience.outage.is_said)
    assert [task for task in trying[:4] if task.done()] == []
    with server.client() as other:
        other.execute_command("REPLICAOF", "NO", "ONE")
        other.config_set("maxmemory", 0)
        other.config_set("min-replicas-to-write", 0)
        other.config_set("replica-serve-stale-data", "yes")
    *replies, renewed = await asyncio.gather(*trying)
    assert replies == [True, b"x", [None, True], [None, True]]
    assert [lost for _, _, lost in renewed] == [b"chunk", b"chunk"]
    assert said(caplog) == ["redis.away", "redis.back"]


@pytest.mark.redis
@pytest.mark.parametrize(
    "commands",
    [
        ["CONFIG SET maxmemory 1"],
        ["REPLICAOF 127.0.0.1 1"],
        ["CONFIG SET replica-serve-stale-data no", "REPLICAOF 127.0.0.1 1"],
        ["CONFIG SET min-replicas-to-write 1"],
    ],
    ids=["oom", "readonly", "masterdown", "noreplicas"],
)
async def test_writes_wait_while_redis_refuses_them(
    server: RedisServer, client: ArqRedis, caplog: pytest.LogCaptureFixture, commands: list[str]
) -> None:
    with server.client() as other:
        other.script_flush()
        for command in commands:
            other.execute_command(*command.split())
    await refused(server, client, caplog)


@pytest.mark.redis
async def test_calls_wait_for_a_script_that_holds_redis(server: RedisServer, client: ArqRedis) -> None:
    with server.client() as other:
        other.config_set("lua-time-limit", 10)

        def hold() -> None:
            with pytest.raises(ResponseError, match="Script killed"):
                other.eval("while true do end", 0)

        holding = asyncio.create_task(asyncio.to_thread(hold))
        reading = asyncio.ensure_future(client.get("key"))
        outage = client.patience.outage  # type: ignore[attr-defined]
        await until(lambda: outage.is_said)
        with server.client() as killer:
            killer.script_kill()
        await holding
        assert await reading is None


@pytest.mark.redis
async def test_a_blocked_call_goes_on_waiting_past_a_change_of_roles(server: RedisServer, client: ArqRedis) -> None:
    blpop: Any = client.blpop(["list"], timeout=60)
    waiting = asyncio.create_task(blpop)
    with server.client() as other:
        await until(lambda: other.info("clients")["blocked_clients"])
        other.execute_command("REPLICAOF", "127.0.0.1", "1")
        other.execute_command("REPLICAOF", "NO", "ONE")
        await until(lambda: other.info("clients")["blocked_clients"])
        other.rpush("list", "token")
    assert await waiting == (b"list", b"token")


@pytest.mark.redis
async def test_a_caller_that_waits_no_longer_leaves_its_connections_in_order(
    server: RedisServer, client: ArqRedis
) -> None:
    assert await client.ping()
    server.pause()
    for _ in range(3):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await client.get("key")
    server.resume()
    for number in range(20):
        await client.set("key", number, px=60_000)
        assert await client.get("key") == str(number).encode()
    server.kill()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await client.get("key")
    server.start()
    assert await client.get("key") is None


@pytest.mark.redis
async def test_an_error_of_a_pipeline_names_its_command(client: ArqRedis) -> None:
    for transaction in (True, False):
        await client.set("key", "text", px=60_000)
        async with client.pipeline(transaction=transaction) as pipe:
            pipe.get("key")
            pipe.lpush("key", "x")
            with pytest.raises(ResponseError, match=r"Command # 2 \(LPUSH key x\) of pipeline.*WRONGTYPE"):
                await pipe.execute()


@pytest.mark.redis
async def test_what_was_read_under_a_watch_is_not_written_by_another_try(server: RedisServer, client: ArqRedis) -> None:
    async with client.pipeline(transaction=True) as pipe:
        await pipe.watch("key")
        pipe.multi()  # type: ignore[no-untyped-call]
        pipe.set("key", "x", px=60_000)
        with server.client() as other:
            other.config_set("maxmemory", 1)
            with pytest.raises(OutOfMemoryError):
                async with asyncio.timeout(PATIENCE):
                    await pipe.execute()
            other.config_set("maxmemory", 0)
    assert await client.get("key") is None


@pytest.mark.redis
async def test_a_password_that_is_wrong_is_said_at_once(server: RedisServer) -> None:
    with server.client() as other:
        other.config_set("requirepass", "secret")
    client = connect(f"{server.url}?password=wrong")
    with pytest.raises(RedisConnectionError, match="invalid username-password pair"):
        await client.ping()
    await client.aclose(close_connection_pool=True)
