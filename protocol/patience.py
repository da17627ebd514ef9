"""Wait for a Redis that is away: try a call again for as long as it takes, and say so once.

Every command of ours may run twice, so one whose reply was lost is sent again. What time does not heal, such as a wrong
password or a key of another kind, is raised at once. A caller that wants to wait no longer cancels its call, by
`asyncio.timeout` or otherwise.
"""

from __future__ import annotations

import asyncio
import builtins
import logging
import random
import re
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

from redis.asyncio.client import Pipeline
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ConnectionError,  # noqa: A004
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TimeoutError,  # noqa: A004
)

logger = logging.getLogger(__name__)

T = TypeVar("T")

# An outage shorter than this, s, is nobody's business: a client that was killed is back after 0.02 s.
_WORTH_SAYING = 0.3
# Waits between two tries, s: doubled from the first to the last.
_SHORTEST_PAUSE = 0.02
_LONGEST_PAUSE = 1.0

# A server that was paused, or a network that drops what it is given, says nothing: a call that has no reply after this
# long, s, is made again on another connection. Blocking commands of ours end before. Each such try takes twice as long
# as the one before it, up to the longest, as what is large and travels slowly would never arrive.
_PATIENCE = 6.0
_LONGEST_PATIENCE = 24.0

# Refusals that pass, as Redis 7 writes them, as Redis 6 does where a script met one (": -OOM ..."), and where one broke
# a transaction off ("because of: OOM ..."). UNBLOCKED: Redis became a replica while the call waited in it.
_PASSING = re.compile(
    r"(?:^|: -|because of: )"
    r"(?:LOADING|READONLY|OOM|MASTERDOWN|MISCONF|NOREPLICAS|TRYAGAIN|CLUSTERDOWN|BUSY|UNBLOCKED)(?= |$)"
)


def is_passing(error: object) -> bool:
    """Whether an error says that Redis cannot serve just now, so that the same call may succeed later."""
    error = _said_at_connection(error)
    if isinstance(error, AuthenticationError | AuthorizationError):  # ConnectionErrors, to redis-py
        return False
    if isinstance(error, ConnectionError | TimeoutError | OSError):
        return True
    return is_refusal(error)


def is_refusal(error: object) -> bool:
    """Whether an error is Redis' own word that it is there and does not serve just now."""
    error = _said_at_connection(error)
    if isinstance(error, BusyLoadingError | OutOfMemoryError | ReadOnlyError):  # redis-py cuts their first word off
        return True
    return isinstance(error, ResponseError) and _PASSING.search(str(error)) is not None


def _said_at_connection(error: object) -> object:
    # What Redis says to the greetings on a unix socket, redis-py wraps in a ConnectionError, a wrong password too.
    if type(error) is ConnectionError and error.args and isinstance(error.args[0], Exception):
        return error.args[0]
    return error


def pauses() -> Iterator[float]:
    """Yield the waits between tries, s: exponential up to 1 s, with jitter, so that clients do not come all at once."""
    longest = _SHORTEST_PAUSE
    while True:
        yield random.uniform(longest / 2, longest)
        longest = min(_LONGEST_PAUSE, longest * 2)


class NoReplyError(TimeoutError):
    """Redis has said nothing, for as long as it is waited for."""


class Outage:
    """What all calls of one client know of their Redis: said once when it goes, once when it is back.

    Redis may refuse writes while it answers reads: it is back once a call succeeds and none is failing.

    Attributes:
        is_said: Whether Redis is away, and that has been said.
    """

    def __init__(self) -> None:
        self.is_said = False
        self._failing = 0
        self._since = 0.0
        self._error: Exception | None = None
        self._timer: asyncio.TimerHandle | None = None

    def began(self, error: Exception) -> None:
        """Take note that a call fails, and is tried again from now on."""
        self._failing += 1
        self._error = error
        if self._failing == 1 and not self.is_said:
            self._since = asyncio.get_running_loop().time()
            self._look_later()

    def goes_on(self, error: Exception) -> None:
        """Take note of how a call failed again."""
        self._error = error

    def ended(self, *, answered: bool) -> None:
        """Take note that a call fails no more: Redis answered, or the caller waits no longer."""
        self._failing -= 1
        if self._failing == 0 and self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if answered:
            self.answered()

    def answered(self) -> None:
        """Take note that Redis has answered a call."""
        if self.is_said and not self._failing:
            self.is_said = False
            # A warning, too: whoever was told that Redis is away is to be told that it is back.
            logger.warning(
                "Redis is back after %.1f s", asyncio.get_running_loop().time() - self._since,
                extra={"event": "redis.back"},
            )  # fmt: skip

    def _look_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(_WORTH_SAYING, self._look, loop.time() + _WORTH_SAYING)

    def _look(self, due: float) -> None:
        if asyncio.get_running_loop().time() > due + _WORTH_SAYING:
            # A job held this loop, so it was us who were away: the call has had no chance to succeed yet.
            self._look_later()
            return
        self._timer = None
        self.is_said = True
        logger.warning("Redis is away (%s): trying again", self._error, extra={"event": "redis.away"})


class Patience:
    """Make calls that are tried again for as long as it takes.

    Args:
        is_local: Whether the Redis is in this process: its replies are waited for, as it is away when we are.

    Attributes:
        outage: What these calls know of their Redis.
        retries: How often a call has been made again.
    """

    def __init__(self, *, is_local: bool = False) -> None:
        self._is_local = is_local
        self.outage = Outage()
        self.retries = 0

    async def keep_trying(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Make a call until Redis has answered it.

        Raises:
            redis.exceptions.RedisError: If the answer is an error that does not pass.
        """
        limit = None if self._is_local else _PATIENCE
        try:
            reply = await in_time(attempt, limit)
        except Exception as error:
            if not is_passing(error):
                raise
            self.outage.began(error)
            limit = _next_limit(limit, error)
        else:
            self.outage.answered()
            return reply
        return await self._try_again(attempt, limit)

    async def _try_again(self, attempt: Callable[[], Awaitable[T]], limit: float | None) -> T:
        answered = False
        waits = pauses()
        try:
            while True:
                await asyncio.sleep(next(waits))
                self.retries += 1
                try:
                    reply = await in_time(attempt, limit)
                except Exception as error:
                    answered = not is_passing(error)
                    if answered:
                        raise
                    self.outage.goes_on(error)
                    limit = _next_limit(limit, error)
                else:
                    answered = True
                    return reply
        finally:
            self.outage.ended(answered=answered)


async def in_time(attempt: Callable[[], Awaitable[T]], limit: float | None) -> T:
    """Make a call once.

    Raises:
        NoReplyError: If there is no reply within `limit` s.
    """
    # Not redis-py's socket_timeout: it sends inside `wait_for`, which before Python 3.12 may swallow a cancellation.
    clock = asyncio.timeout(limit)
    try:
        async with clock:
            return await attempt()
    except builtins.TimeoutError:
        if clock.expired():
            raise NoReplyError(f"no reply within {limit:g} s") from None
        raise


def _next_limit(limit: float | None, error: Exception) -> float | None:
    return min(_LONGEST_PATIENCE, limit * 2) if limit and isinstance(error, NoReplyError) else limit


class PatientPipeline(Pipeline):
    """A pipeline that goes again as a whole while Redis is away, also where only some of its replies say so.

    What follows a WATCH is not tried again: what was read under it is to be read anew.

    Args:
        patience: The client's.
        arguments: redis-py's own.
    """

    def __init__(self, patience: Patience, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._patience = patience

    async def execute(self, raise_on_error: bool = True) -> list[Any]:  # noqa: FBT001, FBT002  # redis-py's
        """Send all commands and return their replies."""
        if self.watching:
            return await super().execute(raise_on_error)
        stack = self.command_stack
        replies = await self._patience.keep_trying(lambda: self._execute(stack))
        if raise_on_error:
            self.raise_first_error(stack, replies)
        return replies

    def annotate_exception(self, exception: Exception, number: int, command: Any) -> None:
        """Name the command that failed; what passes stays as Redis said it, to be known for what it is."""
        if not is_passing(exception):
            super().annotate_exception(exception, number, command)

    async def _execute(self, stack: list[Any]) -> list[Any]:
        self.command_stack = stack  # redis-py puts an empty one in its place after each try
        replies = await super().execute(raise_on_error=False)
        for reply in replies:
            if is_passing(reply):
                raise reply
        return replies
