"""A worker's slots: how many jobs it runs at a time, counted over all its chunks."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable

from workers.starting.turns import Turns

# So many jobs are taken on before they have a slot as will start within this time, s, but no more than one claim
# brings: short ones never wait for a claim, and none is held here for longer that another worker could start now.
# Those that end at once need less time; with 5 ms for those of 20 ms, too, claims would be twice as many, and 200 slots
# be filled to 0.88 of the ideal where they are to 0.91.
_AHEAD = 0.010
_AHEAD_AT_ONCE = 0.005
_MOST_AHEAD = 1000
# So long, s, what was learned of jobs that end at once holds for those that follow.
_FRESH = 0.05
# Jobs that hold the loop start one after another, however many slots there are. No more of them are here than start
# within this time, s: with as many as there are slots one of two workers had all of eight jobs of 0.5 s, for 4 s.
_AT_HAND = 0.05


class Slots:
    """Count free slots and let jobs wait for one, first come, first served.

    Args:
        total: How many there are.
        ahead: How many more jobs are taken on, in any case, than there are free slots.
        soon: Jobs are taken on before they have a slot that will have one within this time, s.
        rounds: But no more of them for each slot.

    Attributes:
        ahead: As given.
        waiting: Jobs that are here and have not started.
    """

    def __init__(self, total: int, ahead: int = 0, soon: float = _AHEAD, rounds: int = 1) -> None:
        self.total = total
        self.ahead = ahead
        self.free = total
        self.waiting = 0
        self._soon = soon
        self._rounds = rounds
        self._at_once = 0
        self._at_hand, self._at_hand_until = sys.maxsize, 0.0
        self._typical = self._last_end = self._last_turn = 0.0
        self._turns = Turns()
        self._freed = asyncio.Event()

    @property
    def used(self) -> int:
        """Jobs that hold a slot."""
        return self.total - self.free

    @property
    def soon_over(self) -> int:
        """How many jobs more than there are free slots start here within milliseconds, as others are over by then."""
        now = time.monotonic()
        # What follows upon a pause may be of another kind.
        ahead = self._at_once if now < self._last_turn + _FRESH else 0
        if self._typical:
            # Where none has ended for longer than they use to take, those at work are of another kind.
            typical = max(self._typical, now - self._last_end)
            ahead = max(ahead, int(self.used * min(self._rounds, self._soon / typical)))
        return max(self.ahead, ahead)

    @property
    def piece(self) -> int:
        """How many jobs may share what becomes of a chunk: of short ones those that start within milliseconds."""
        return max(self._at_once, self.whole)

    @property
    def whole(self) -> int:
        """A chunk of no more jobs is taken whole: any, where nobody else would take the rest."""
        return _MOST_AHEAD if self.ahead else self.soon_over

    @property
    def at_hand(self) -> int:
        """How many jobs can start here one after another within moments, as the last ones have each held the loop."""
        return sys.maxsize if self.ahead or time.monotonic() > self._at_hand_until else self._at_hand

    @property
    def empty(self) -> int:
        """Slots for which no job is here, as far as the loop can start jobs in them; below 0 if jobs wait for slots."""
        return min(self.free, self.at_hand) - self.waiting

    @property
    def room(self) -> int:
        """How many more jobs may be taken on: as many as can start at once, or within milliseconds."""
        return self.empty + self.soon_over

    def has_half(self, soon: int) -> bool:
        """Whether half of all stand empty, or do once `soon` more jobs have started.

        A chunk that was run before is not cut, and may be larger than all slots: half of them is enough for any.
        """
        return self.free - self.waiting + soon >= max(1, self.total // 2)

    @property
    def has_room(self) -> bool:
        """Whether it is worth while to ask for jobs: a slot stands empty, or half of what was ahead has started."""
        ahead = -self.empty
        return ahead < 0 or 2 * ahead < self.soon_over

    def took(self, seconds: float) -> None:
        """Take note of how long a job has held its slot."""
        self._last_end = time.monotonic()
        self._typical += 0.1 * (seconds - self._typical) if self._typical else seconds

    def stall(self) -> None:
        """Take note that jobs wait in vain: those at work last longer than was thought."""
        self._at_once = 0
        self._typical = max(self._typical, 2 * self._soon * self.used)

    def took_turn(self, pace: float) -> None:
        """Take note of how many jobs/s have ended at once, without awaiting; 0 where the last one did not."""
        self._at_once = min(_MOST_AHEAD, int(pace * _AHEAD_AT_ONCE))
        if pace:
            now = time.monotonic()
            self._at_hand, self._at_hand_until = max(1, int(pace * _AT_HAND)), now + _FRESH + 2 / pace
        if self._at_once:
            self._last_turn = now
            self.tell()

    def go_on(self) -> None:
        """Take note that a job awaits something, and lets others start meanwhile."""
        self._at_hand_until = 0.0

    def no_longer(self, longest: float) -> float:
        """Say how long, s, to wait for room: until it is out of date what held the loop, and `longest` at most."""
        left = self._at_hand_until - time.monotonic()
        return min(longest, left) if left > 0 else longest

    def tell(self) -> None:
        """Let those look again who wait for room."""
        self._freed.set()

    def try_take(self) -> bool:
        """Take a slot if one is free and nobody waits for it."""
        if self.free and not self._turns:
            self.free -= 1
            return True
        return False

    async def take(self, use: Callable[[], bool] | None = None) -> None:
        """Take a slot, as soon as one is free.

        Args:
            use: Uses those that are given back meanwhile, in turn with others who wait; false for one that it cannot.
        """
        if not self.try_take():
            await self._turns.wait(self.give, use)

    def give(self) -> None:
        """Give a slot back, to who waits longest."""
        if not self._turns.pass_on():
            self.free += 1
            self._freed.set()

    async def wait_empty(self) -> None:
        """Wait until a slot stands empty, and no job is here for it."""
        while self.free <= self.waiting:
            self._freed.clear()
            await self._freed.wait()

    async def wait_room(self, count: int) -> None:
        """Wait until it is worth while to ask for jobs, and there is room for so many; takes none."""
        while not self.has_room or self.free - self.waiting + self.soon_over < min(count, self.total):
            self._freed.clear()
            await self._freed.wait()
