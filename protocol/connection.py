"""From a Redis URL to a connection, and the one way to run our scripts on it.

One of the two modules that know arq: `arq`'s Redis class and its payload format come from here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from arq.connections import ArqRedis as ArqRedis  # noqa: PLC0414  # others import it from here
from arq.jobs import DeserializationError, deserialize_job_raw, serialize_job
from pydantic_core import from_json, to_json
from redis.asyncio import ConnectionPool
from redis.exceptions import NoScriptError

from protocol import memory
from protocol.errors import OptionError, ProtocolError
from protocol.lua import sha, source
from protocol.memory import MemoryPool
from protocol.patience import Patience, PatientPipeline, in_time, is_passing
from protocol.pool import QuickPool, exchange

Call = tuple[str, Sequence[str], Sequence[Any]]
"""A script's name, its keys and its arguments."""

CHUNK_FUNCTION = "straggler_chunk"
"""The one arq function that there is: run a chunk."""

SCHEMES = ("redis", "rediss", "unix", "memory")


_LONGEST_CONNECT = 5.0
# What blocks in Redis has its reply so long, s, after its end at the latest, or is taken to have none.
_REPLY = 1.0
# Scripts are taught again so often, should Redis lose them in between by another restart.
_LESSONS = 10


class PatientRedis(ArqRedis):
    """A client whose commands are tried again for as long as Redis is away (`protocol.patience`).

    Args:
        pool: Where its connections come from.

    Attributes:
        patience: Who tries again.
    """

    def __init__(self, pool: ConnectionPool) -> None:
        super().__init__(pool, job_serializer=to_json, job_deserializer=from_json)
        self.patience = Patience(is_local=isinstance(pool, MemoryPool))

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Run a command; raises only what time does not heal."""
        return await self.patience.keep_trying(partial(super().execute_command, *args, **options))

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> PatientPipeline:  # noqa: FBT001, FBT002  # redis-py's
        """Make a pipeline that is patient, too."""
        return PatientPipeline(self.patience, self.connection_pool, self.response_callbacks, transaction, shard_hint)


def connect(url: str, *, patient: bool = True) -> ArqRedis:
    """Make a client for a Redis URL; nothing is sent before its first command.

    Args:
        url: `redis://`, `rediss://` or `unix://`, or `memory://[name]`: a fakeredis server inside this process.
        patient: Whether commands are tried again for as long as Redis is away; else each is tried once.

    Raises:
        OptionError: If the URL is of no known kind.
    """
    scheme = urlsplit(url).scheme
    if scheme not in SCHEMES:
        raise OptionError(
            f"{url!r} is no Redis URL: use redis://host:6379/0, rediss://..., unix:///path/to.sock or memory://"
        )
    try:
        pool = MemoryPool(url) if scheme == "memory" else QuickPool.from_url(url, **_options(scheme))
    except ValueError as error:
        raise OptionError(f"{url!r} is no Redis URL: {error}") from None
    if patient:
        return PatientRedis(pool)
    return ArqRedis(pool, job_serializer=to_json, job_deserializer=from_json)


@dataclass(frozen=True, slots=True)
class Payload:
    """What arq's queue carries for a chunk: where its jobs stand.

    Args:
        batch_id: Its batch.
        first: Index of its first job.
        count: How many jobs stand there.
        index: The one of them that is to run, after a failure; None for all.
        enqueued_at: Unix s.
    """

    batch_id: str
    first: int
    count: int
    index: int | None
    enqueued_at: float

    @property
    def start(self) -> int:
        """Index of the first job that is to run."""
        return self.first if self.index is None else self.index

    @property
    def jobs(self) -> int:
        """How many jobs are to run."""
        return self.count if self.index is None else 1

    @property
    def place(self) -> str:
        """How its bytes say where its jobs stand."""
        return f",{self.first},{self.count}]" if self.index is None else f",{self.first},{self.count},{self.index}]"


def encode_payload(batch_id: str, first: int, count: int, enqueued_at: float, index: int | None = None) -> bytes:
    """Write a chunk's payload: in arq's format, as JSON. What `index` and the others are `Payload` says."""
    args = (batch_id, first, count) if index is None else (batch_id, first, count, index)
    return serialize_job(CHUNK_FUNCTION, args, {}, None, int(enqueued_at * 1000), serializer=to_json)


def decode_payload(data: bytes, key: str) -> Payload:
    """Read a chunk's payload.

    Raises:
        ProtocolError: If these bytes are no payload of ours; names `key`.
    """
    try:
        function, (batch_id, first, count, *index), _, _, enqueued_ms = deserialize_job_raw(
            data, deserializer=from_json
        )
        if function != CHUNK_FUNCTION:
            raise ProtocolError(key, f"an arq job {function!r}, not one of straggler's")
        return Payload(str(batch_id), int(first), int(count), int(*index) if index else None, enqueued_ms / 1000)
    except (DeserializationError, TypeError, ValueError) as error:
        raise ProtocolError(key, f"no payload of a chunk ({error})") from None


class Scripts:
    """Run our Lua scripts by their hash; Redis is taught one that it does not know.

    Args:
        redis: Where they run.
    """

    def __init__(self, redis: ArqRedis) -> None:
        self.redis = redis
        self._is_memory = isinstance(redis.connection_pool, MemoryPool)
        self._text = memory.call if self._is_memory else source

    async def run(self, name: str, script_keys: Sequence[str], args: Sequence[Any]) -> Any:
        """Run one script and return its reply."""
        [reply] = await self.run_all([(name, script_keys, args)])
        return reply

    async def run_all(self, calls: Sequence[Call]) -> list[Any]:
        """Run scripts in order, in one round trip, and return their replies.

        Raises:
            redis.exceptions.RedisError: If one of them failed; those after it ran all the same.
        """
        replies = await self._send(calls)
        for _ in range(_LESSONS):
            if not any(isinstance(reply, NoScriptError) for reply in replies):
                break
            for name in {name for name, _, _ in calls}:
                await self._teach(name)
            # Every script of ours may run twice, so the whole list goes again: their order matters.
            replies = await self._send(calls)
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        return replies

    async def run_when_pushed(self, key: str, timeout: float, call: Call) -> Any:
        """Wait until something is pushed to a list, take it, and run a script; returns its reply, in one round trip.

        Redis runs the script in the moment in which the wait ends: by a push, or after `timeout` s, 5 at most. Unlike
        all else this is tried once: None says that nothing is known of it. The script may have run.

        Raises:
            redis.exceptions.RedisError: If the answer is an error that does not pass.
        """
        commands = [("BLPOP", key, timeout), self._command(*call)]
        try:
            limit = None if self._is_memory else timeout + _REPLY
            replies = await in_time(partial(exchange, self.redis.connection_pool, commands), limit)
        except Exception as error:  # noqa: BLE001  # what does not pass is raised below
            replies = [error]
        for reply in replies:
            if isinstance(reply, Exception):
                if is_passing(reply) or isinstance(reply, NoScriptError):
                    return None
                raise reply
        return replies[-1]

    async def _send(self, calls: Sequence[Call]) -> list[Any]:
        attempt = partial(self._try, [self._command(*call) for call in calls])
        if isinstance(self.redis, PatientRedis):
            return await self.redis.patience.keep_trying(attempt)
        return await attempt()

    async def _try(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        replies = await exchange(self.redis.connection_pool, commands)
        for reply in replies:
            if isinstance(reply, Exception) and is_passing(reply):
                raise reply
        return replies

    def _command(self, name: str, script_keys: Sequence[str], args: Sequence[Any]) -> tuple[Any, ...]:
        return ("EVALSHA", sha(name, self._text), len(script_keys), *script_keys, *args)

    async def _teach(self, name: str) -> None:
        if self._is_memory:
            await self.redis.eval(memory.definition(name), 0)  # type: ignore[misc]  # typed for both clients
        await self.redis.script_load(self._text(name))


def _options(scheme: str) -> dict[str, Any]:
    # redis-py does not try again by itself unless it is told to: there is one place that does, our patience.
    options: dict[str, Any] = {"socket_connect_timeout": _LONGEST_CONNECT}
    if scheme != "unix":
        options["socket_keepalive"] = True
    return options
