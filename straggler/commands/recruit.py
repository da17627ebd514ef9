"""A worker process is started before it is known what it is to do: it imports meanwhile, and is told then.

Its words come through its stdin, where nobody else reads them: the Redis URL among them may hold a password. Where they
end before they came, its supervisor has ended or has no use for it, and it leaves without a word.

This loads little: the command line starts the first one before it imports anything else.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import IO, cast


class Recruit:
    """A worker process that waits to be told what to do.

    Raises:
        OSError: If the system starts no process.
    """

    def __init__(self) -> None:
        words = [sys.executable, "-m", "straggler.commands.workerprocess"]
        # A session of its own: Ctrl-C is its supervisor's to pass on, and a kill reaches what the jobs have started.
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, start_new_session=True)  # noqa: S603  # ourselves
        self._orders = cast("IO[bytes]", self.process.stdin)

    def tell(self, words: Sequence[str], environment: Mapping[str, str]) -> None:
        """Tell it its command line, and what its environment has beyond ours."""
        order = json.dumps([words, environment])
        with suppress(BrokenPipeError), self._orders:  # its end is noticed elsewhere
            self._orders.write(order.encode() + b"\n")

    def dismiss(self) -> None:
        """Wait until it has left, unless it was told what to do."""
        if not self._orders.closed:
            self._orders.close()
            self.process.wait()


def await_words() -> list[str] | None:
    """Wait in a worker process for its words, and take over its environment; None if there will be none."""
    order = sys.stdin.buffer.readline()
    if not order.endswith(b"\n"):
        return None
    words, environment = json.loads(order)
    os.environ.update(environment)
    return [str(word) for word in words]
