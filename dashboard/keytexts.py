"""The keys of results as one text, so that a part of one is found in a million of them within some 30 ms."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence

MOST_BYTES = 16 << 20
"""So much of keys is remembered of one batch: a million of 15 letters."""

# A longer key is known by its beginning.
_LONGEST = 200


class KeyTexts:
    """Rows by their keys, capitals or not.

    Args:
        most_bytes: Once their keys are as long as this, no further rows are taken.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._text = bytearray(b"\n")
        # Where each row's key begins; a row without one begins where the next does.
        self._starts = array("I")

    def __len__(self) -> int:
        """How many rows can be found, from the first on."""
        return len(self._starts)

    @property
    def size(self) -> int:
        """How long the keys are, bytes."""
        return len(self._text)

    def extend(self, keys: Sequence[str | None] | None, count: int) -> None:
        """Take in the keys of the next rows; None: none of them has one."""
        if len(self._text) > self._most_bytes:
            return
        if keys is None:
            self._starts.extend(array("I", [len(self._text)]) * count)
            return
        for key in keys:
            self._starts.append(len(self._text))
            if key is not None:
                self._text += _fold(key) + b"\n"

    def find(self, part: str, most: int) -> list[int]:
        """Find rows whose key holds this, at most so many.

        Returns:
            Those that hold it somewhere, then those that begin with it, then those that are it; each in order.
        """
        wanted = _fold(part)
        ranked: tuple[list[int], list[int], list[int]] = ([], [], [])
        # What is the very key, or its beginning, is not to be left out for many others.
        for rank, pattern in ((2, b"\n" + wanted + b"\n"), (1, b"\n" + wanted), (0, wanted)):
            better = {row for rows in ranked for row in rows}
            for row in self._rows_with(pattern):
                if len(better) + len(ranked[rank]) >= most:
                    break
                if row not in better:
                    ranked[rank].append(row)
        return [row for rows in ranked for row in rows]

    def _rows_with(self, pattern: bytes) -> Iterator[int]:
        # A pattern that begins with a line's end matches one before its row.
        ahead = int(pattern.startswith(b"\n"))
        at = self._text.find(pattern)
        while at >= 0:
            yield bisect_right(self._starts, at + ahead) - 1
            end = self._text.find(b"\n", at + ahead)
            at = self._text.find(pattern, end + 1 - ahead)


def holds(key: str | None, part: str) -> bool:
    """Whether a key is among those that `find` finds."""
    return key is not None and _fold(part) in _fold(key)


def _fold(key: str) -> bytes:
    return key[:_LONGEST].casefold().replace("\n", " ").encode(errors="surrogatepass")
