"""Iterators that know how many items are to come, for progress bars, and cost an item nothing."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Generator, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class _Sized:
    def __init__(self, total: int | None) -> None:
        self._total = total

    def __bool__(self) -> bool:
        return True

    def __len__(self) -> int:
        if self._total is None:
            raise TypeError(
                "how many results will come is not known: the batch is open, or the loop began in its middle"
            )
        return self._total

    def __length_hint__(self) -> int:
        return NotImplemented if self._total is None else self._total


class SizedIterator(_Sized, Generic[T]):
    """The items of an async generator.

    Args:
        items: The generator, which a loop over this iterates itself.
        total: How many items it has, if that is known.
    """

    def __init__(self, items: AsyncGenerator[T, None], total: int | None) -> None:
        super().__init__(total)
        self._items = items

    def __aiter__(self) -> AsyncIterator[T]:
        return self._items

    def __anext__(self) -> Awaitable[T]:
        return self._items.__anext__()

    async def aclose(self) -> None:
        """End the loop before its end."""
        await self._items.aclose()


class SizedLoop(_Sized, Generic[T]):
    """The items of a generator; arguments as above."""

    def __init__(self, items: Generator[T, None, None], total: int | None) -> None:
        super().__init__(total)
        self._items = items

    def __iter__(self) -> Iterator[T]:
        return self._items

    def __next__(self) -> T:
        return next(self._items)

    def close(self) -> None:
        """End the loop before its end."""
        self._items.close()
