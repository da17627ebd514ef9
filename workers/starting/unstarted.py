"""The jobs of a chunk that have not started: in which turn."""

from __future__ import annotations

from collections.abc import Container

from workers.starting.slots import Slots


class Unstarted:
    """Keep them, counted among those that wait for the worker's slots.

    Args:
        indexes: Which these are, in order.
        slots: The worker's slots.

    Attributes:
        left: The next one last.
        at_door: The one that has its slot, and waits until the process is ready.
    """

    def __init__(self, indexes: list[int], slots: Slots) -> None:
        self.left = indexes[::-1]
        self.at_door: int | None = None
        self._slots = slots
        slots.waiting += len(indexes)

    @property
    def are_over(self) -> bool:
        """Whether no job is left that could start."""
        return not self.left and self.at_door is None

    def every(self) -> list[int]:
        """List those that may be told not to start any more."""
        return self.left if self.at_door is None else [*self.left, self.at_door]

    def pop(self) -> int:
        """Take the next one, which starts now."""
        self._slots.waiting -= 1
        return self.left.pop()

    def take_out(self, indexes: Container[int]) -> None:
        """Take out those that shall not start."""
        if self.at_door is not None and self.at_door in indexes:
            self.at_door = None
        self._keep([index for index in self.left if index not in indexes])

    def clear(self) -> None:
        """Take out all but the one that waits for its process."""
        self._keep([])

    def _keep(self, left: list[int]) -> None:
        self._slots.waiting -= len(self.left) - len(left)
        self.left = left
        self._slots.tell()
