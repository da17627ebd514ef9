"""A set of a batch's indexes, one bit for each: ten million of them take 1.25 MB."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


class Bits:
    """A set of small whole numbers; iterating it goes up.

    Args:
        numbers: What is in it.
    """

    def __init__(self, numbers: Iterable[int] = ()) -> None:
        self._bytes = bytearray()
        self._count = 0
        for number in numbers:
            self.add(number)

    def add(self, number: int) -> None:
        """Put a number in; one that is in already changes nothing."""
        at, bit = number >> 3, 1 << (number & 7)
        if at >= len(self._bytes):
            self._bytes.extend(bytes(max(at + 1, 2 * len(self._bytes)) - len(self._bytes)))
        if not self._bytes[at] & bit:
            self._bytes[at] |= bit
            self._count += 1

    def __contains__(self, number: int) -> bool:
        return number >> 3 < len(self._bytes) and bool(self._bytes[number >> 3] & 1 << (number & 7))

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[int]:
        for at, byte in enumerate(self._bytes):
            if byte:
                yield from (8 * at + number for number in range(8) if byte & 1 << number)

    def within(self, start: int, stop: int) -> list[int]:
        """List those from `start` to before `stop`, a short way."""
        return [number for number in range(start, stop) if number in self]
