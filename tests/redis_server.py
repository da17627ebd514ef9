"""Redis servers for tests: real ones, started and ended by us, and never the one on port 6379."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from workers.vitals.endings import die_with_parent

BINARY = shutil.which("redis-server")

# Redis' own name for the folder of its append-only file.
_APPEND_ONLY = "appendonlydir"

# What a long append-only file takes to load on a busy machine, s.
_LONGEST_START = 60.0


class RedisServer:
    """One redis-server on a unix socket in a directory of its own; nothing of it reaches the network.

    Args:
        directory: Where socket, log and, after a restart with `save`, data stand; a fresh one by default.
        arguments: More of redis-server's own.
    """

    def __init__(self, *arguments: str, directory: Path | None = None) -> None:
        # pytest's own directories are too deep: a socket's path may take 107 bytes.
        self.directory = directory or Path(tempfile.mkdtemp(prefix="straggler-redis-"))
        self.socket = self.directory / "redis.sock"
        self.url = f"unix://{self.socket}"
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The server's process id."""
        assert self._process is not None
        return self._process.pid

    def start(self, *arguments: str, ready: bool = True) -> RedisServer:
        """Start the server.

        Args:
            arguments: Of this start only.
            ready: Whether to wait until it serves.
        """
        assert BINARY is not None
        command = [BINARY, "--port", "0", "--unixsocket", str(self.socket), "--dir", str(self.directory)]
        command += [
            "--save",
            "",
            "--appendonly",
            "no",
            "--logfile",
            str(self.directory / "log"),
            *self._arguments,
            *arguments,
        ]
        # A run that is killed leaves no server behind.
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, preexec_fn=die_with_parent)  # noqa: PLW1509
        deadline = time.monotonic() + _LONGEST_START
        while ready and not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"redis-server did not start:\n{(self.directory / 'log').read_text()}")
            time.sleep(0.01)
        return self

    def client(self) -> Redis:
        """Make a blocking client."""
        return Redis(unix_socket_path=str(self.socket))

    def stop(self) -> None:
        """End the server and remove its directory."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def kill(self) -> None:
        """End the server at once, as a power cut would; `start` starts it again."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def remember(self) -> None:
        """Keep what is in the append-only file by now, for `forget`."""
        kept = self.directory / "kept"
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(self.directory / _APPEND_ONLY, kept)

    def forget(self) -> None:
        """End the server at once, and start it without what was written since `remember`."""
        self.kill()
        shutil.rmtree(self.directory / _APPEND_ONLY)
        shutil.copytree(self.directory / "kept", self.directory / _APPEND_ONLY)
        self.start()

    def shut_down(self) -> None:
        """End the server by its own command; `start` starts it again."""
        assert self._process is not None
        with self.client() as client:
            client.shutdown(nosave=True)
        self._process.wait()
        self._process = None

    def pause(self) -> None:
        """Stop the server's clock: it keeps its connections and says nothing."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused server go on."""
        os.kill(self.pid, signal.SIGCONT)

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except (RedisError, OSError):
            return False
