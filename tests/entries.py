"""Stream entries as the `record` script writes them."""

from __future__ import annotations

from protocol.connection import Call


def entry_of(call: Call) -> dict[bytes, bytes]:
    """Return what a call of `record` adds to the stream when no job has its result."""
    _, _, (common, _, indexes, _, _, _, chunks, *rest) = call
    columns = rest[3 * chunks :]
    found = {b"common": common, b"indexes": indexes.encode()}
    return found | {name.encode(): b"[%b]" % text for name, text in zip(columns[::2], columns[1::2], strict=True)}
