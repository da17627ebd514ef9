"""Ctrl-C while a batch is collected: however fast a second one follows, it cancels the batch."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import pytest

from straggler.commands import interrupts
from straggler.commands.interrupts import Interrupts


class Cancellable:
    """A batch that notes why it was cancelled."""

    id = "b"

    def __init__(self) -> None:
        self.reasons: list[str] = []

    async def cancel(self, reason: str) -> int:
        self.reasons.append(reason)
        return 5


async def collect(batch: Any, presses: int) -> None:
    with Interrupts() as listening:
        for _ in range(presses):
            signal.raise_signal(signal.SIGINT)  # at once: the loop has no turn between them
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await listening.cancel_if_told_again(batch)
            raise


@pytest.mark.parametrize(("presses", "reasons"), [(1, []), (2, ["Ctrl-C"]), (3, ["Ctrl-C"])])
async def test_what_a_second_press_promises_it_keeps_however_fast(
    monkeypatch: pytest.MonkeyPatch, presses: int, reasons: list[str]
) -> None:
    monkeypatch.setattr(interrupts, "_SECOND_THOUGHTS", 0.05)
    before, batch = signal.getsignal(signal.SIGINT), Cancellable()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(collect(batch, presses))
    assert batch.reasons == reasons
    assert signal.getsignal(signal.SIGINT) is before
