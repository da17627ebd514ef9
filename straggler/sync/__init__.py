"""Producers for scripts without asyncio: the same names and the same errors, on an event loop in a thread underneath.

Nothing is implemented here a second time: each method runs its twin on that loop and waits for it. What comes in many
pieces is streamed both ways: jobs are made in the thread that submits them, results are fetched as they are asked for.
Ctrl-C ends the wait, and leaves the batch running and its handle usable.
"""

from straggler.sync.batch import Batch as Batch
from straggler.sync.inprocess import embedded as embedded
from straggler.sync.producer import Producer as Producer

__all__ = ["Batch", "Producer", "embedded"]
