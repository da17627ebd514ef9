"""Imported by a worker, beside its jobs, this makes it claim more than it can start: it has much to give back.

While nothing is here it expects all jobs to be short, and takes them in pieces of ten; after that it knows better.
"""

from __future__ import annotations

from workers.starting.slots import Slots

_ALL = 100
_PIECE = 10


def _soon_over(slots: Slots) -> int:
    return 0 if slots.used or slots.waiting else _ALL


Slots.soon_over = property(_soon_over)  # type: ignore[assignment,method-assign]
Slots.piece = property(lambda _: _PIECE)  # type: ignore[assignment,method-assign]
