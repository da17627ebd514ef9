"""The demo: `straggler run http.fetch` over 1,000 URLs of which 20 go wrong, and what became of them.

Starts `demo_server.py`, writes its list of URLs to a folder (`demo`, or the one that is given), runs the command that
anybody would type, and checks the results that it wrote. Exits with 1 if they are not those that are expected.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

EXPECTED = {
    "success": 980,
    "timeout (running)": 10,
    "failure (500)": 5,
    "failure (read timeout)": 5,
}
# `straggler run` exits with this where the batch ended and some of its jobs did not succeed.
SOME_DID_NOT_SUCCEED = 3


def main() -> int:
    """Run the demo; returns the exit code."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "demo")
    folder.mkdir(parents=True, exist_ok=True)
    urls, found = folder / "urls.jsonl", folder / "results.jsonl"
    found.unlink(missing_ok=True)
    with serve() as address:
        with urlopen(f"{address}/urls.jsonl") as answer:
            urls.write_bytes(answer.read())
        print(f"{urls} lists 1,000 pages of a server at {address}, of which 10 never answer.\n")
        command = ["run", "http.fetch", str(urls), "--timeout", "3", "--out", str(found)]
        print(f"$ straggler {' '.join(command)}", flush=True)
        started = time.monotonic()
        code = subprocess.run([sys.executable, "-m", "straggler.cli", *command], check=False).returncode  # noqa: S603  # our own
        elapsed = time.monotonic() - started
    results = [json.loads(line) for line in found.read_text().splitlines()] if found.exists() else []
    return judge(results, code, elapsed, found)


@contextmanager
def serve() -> Iterator[str]:
    """Run the server in a process of its own, which ends with its standard input, so with ours; yields its address."""
    command = [sys.executable, str(Path(__file__).with_name("demo_server.py"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:  # noqa: S603  # our own
        assert server.stdin is not None  # noqa: S101  # both are pipes
        assert server.stdout is not None  # noqa: S101
        address = server.stdout.readline().strip()
        if not address:
            sys.exit("the demo's server did not start")
        try:
            yield address
        finally:
            server.stdin.close()


def judge(results: list[dict[str, Any]], code: int, elapsed: float, path: Path) -> int:
    """Say what came out, and whether that is what was expected."""
    ends = Counter(map(kind, results))
    if ends != EXPECTED or code != SOME_DID_NOT_SUCCEED:
        print(
            f"\nThe demo FAILED: expected {EXPECTED} and exit code {SOME_DID_NOT_SUCCEED}, got {dict(ends)} and {code}."
        )
        return 1
    seconds = max(result["finished_at"] for result in results) - min(result["enqueued_at"] for result in results)
    print(
        f"\n{len(results):,} results in {path}, as expected: "
        f"{', '.join(f'{count} {what}' for what, count in ends.most_common())}.\n"
        f"{seconds:.2f} s from the start of the batch to its last result, {elapsed:.2f} s for the whole command."
    )
    return 0


def kind(result: dict[str, Any]) -> str:
    """Name what a job ended in."""
    match result:
        case {"status": "timeout", "phase": phase}:
            return f"timeout ({phase})"
        case {"status": "failure", "message": str(message)} if message.startswith("500 Internal Server Error for http"):
            return "failure (500)"
        case {"status": "failure", "error_type": str(name)} if name.endswith("SocketTimeoutError"):
            return "failure (read timeout)"
        case _:
            return str(result["status"])


if __name__ == "__main__":
    sys.exit(main())
