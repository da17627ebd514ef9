"""Measure everything, or some questions; write the results and the plots; print the goals with their figures.

    python -m benchmarks [QUESTION ...] [--size quick|normal|full] [--out FOLDER]

Each question has a process of its own, and a time that it may take. One that fails, or takes longer, is named in the
results with what it said last, and the others go on; nothing that it started is left.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import readme, results
from benchmarks.figures import Answer
from benchmarks.goals import goals_table
from benchmarks.harness import HERE, start
from benchmarks.peers.environments import FOLDER
from workers.vitals.endings import kill_session

# The longest time of each, s: many times what it takes on a machine that is idle. In this order they are measured.
QUESTIONS = {
    "throughput": 300,
    "kinds": 180,
    "latency": 120,
    "slots": 120,
    "stragglers": 180,
    "growth": 600,
    "server": 300,
    "startup": 120,
    "embedded": 120,
    "scheduling": 180,
    "dashboard": 600,
    "beside_peers": 1800,
}
# A question that is told to stop has this long for it, s.
_LONGEST_END = 30.0
# `full` measures more.
_FULL = 4


def ask(question: str, size: str) -> results.Outcome:
    """Answer one question, in a process of its own."""
    limit, load = QUESTIONS[question] * (_FULL if size == "full" else 1), os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="straggler-bench-") as folder, tempfile.TemporaryFile() as log:
        path = Path(folder) / "answer.json"
        words = [sys.executable, "-m", f"benchmarks.{question}", "--size", size, "--json", str(path)]
        process = start(words, cwd=HERE.parent, stdout=log, stderr=log, start_new_session=True)
        try:
            process.wait(limit)
            problem = "" if process.returncode == 0 else f"exit code {process.returncode}"
        except subprocess.TimeoutExpired:
            problem = f"not at its end after {limit} s"
        finally:
            _end(process)
        if problem:
            log.seek(0)
            said = log.read().decode(errors="replace").strip()
            print(said, file=sys.stderr)
            return results.Outcome.now(size, load, None, f"{problem}: {said.splitlines()[-1][:200] if said else ''}")
        return results.Outcome.now(size, load, Answer.from_dict(json.loads(path.read_text())))


def _end(process: subprocess.Popen[bytes]) -> None:
    """Let a question that is still at work end what it has started, then kill whatever is left of its session."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_LONGEST_END)
    kill_session(process.pid)
    process.wait()


def draw(outcomes: results.Outcomes, folder: Path) -> None:
    """Draw the pictures, where there is something to draw with."""
    try:
        from benchmarks.plots import draw_all  # noqa: PLC0415  # matplotlib is an extra
    except ModuleNotFoundError as error:
        print(f"no pictures: {error}; `make bench` installs it, or pip install '.[bench]'", file=sys.stderr)
        return
    for path in draw_all(outcomes, folder):
        print(f"wrote {path}", file=sys.stderr)


def main() -> None:
    """Answer the questions that are asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("questions", nargs="*", metavar="QUESTION", help=f"of {', '.join(QUESTIONS)}; all by default")
    parser.add_argument("--size", choices=("quick", "normal", "full"), default="normal", help="how much to measure")
    parser.add_argument("--out", type=Path, help="write results and pictures here, and not where the repository's are")
    args = parser.parse_args()
    if args.size == "quick" and args.out is None:  # figures that say nothing do not replace those that do
        args.out = FOLDER / "quick"
    if unknown := set(args.questions) - set(QUESTIONS):
        parser.error(f"no question {', '.join(sorted(unknown))}: there are {', '.join(QUESTIONS)}")
    if shutil.which("redis-server") is None:
        sys.exit("no redis-server on the PATH: the benchmarks start their own (apt-get install redis-server)")
    answer_all(args.questions or list(QUESTIONS), args.size, args.out)


def answer_all(questions: list[str], size: str, out: Path | None) -> None:
    """Answer questions one after the other; what is found is kept after each."""
    started = time.monotonic()
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    kept = out / "results.json" if out else results.JSON
    shown = out / "results.md" if out else results.MARKDOWN
    outcomes = results.load(kept)
    ours = outcomes.setdefault(results.this_python(), {})
    for question in questions:
        print(f"[{time.monotonic() - started:4.0f} s] {question}", file=sys.stderr)
        ours[question] = ask(question, size)
        results.save(outcomes, kept)
    table = goals_table(outcomes)
    shown.write_text(results.markdown(outcomes, table))
    draw(outcomes, out or HERE.parent / "docs" / "images")
    if out is None:
        readme.update(outcomes)
    print(f"[{time.monotonic() - started:4.0f} s] wrote {kept} and {shown}", file=sys.stderr)
    print(table)
    if size == "quick":
        print("\nSize quick: it works; the sizes are not those that the goals name, so the figures say nothing.")


if __name__ == "__main__":
    main()
