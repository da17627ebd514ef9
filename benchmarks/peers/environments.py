"""A virtual environment for each peer, made once from its pinned requirements and kept beside the repository's own.

Another Python, or other requirements, make another environment. What pip says goes to a log there.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from hashlib import sha1
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".bench"
REQUIREMENTS = Path(__file__).parent / "requirements"

# An installation that takes longer has lost its registry, s.
_LONGEST_INSTALLATION = 240.0


class NotInstalledError(RuntimeError):
    """An environment could not be made; the message says where to look."""


def place(name: str) -> Path:
    """Tell where a peer's environment is, or will be."""
    wanted = f"{sys.version_info.major}.{sys.version_info.minor}"
    digest = sha1(requirements(name).read_bytes(), usedforsecurity=False).hexdigest()[:8]
    return FOLDER / f"{name.lower()}-{wanted}-{digest}"


def requirements(name: str) -> Path:
    """Tell where a peer's pins stand."""
    return REQUIREMENTS / f"{name.lower()}.txt"


def ready(name: str) -> Path:
    """Make a peer's environment if there is none yet; returns its interpreter.

    Raises:
        NotInstalledError: If it cannot be made; nothing half made is left.
    """
    folder = place(name)
    if not (folder / "ready").exists():
        folder.parent.mkdir(exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        log = folder.with_name(f"{folder.name}.log")
        try:
            _install(name, folder, log)
        except (subprocess.SubprocessError, OSError) as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise NotInstalledError(f"could not be installed: see {log.relative_to(ROOT)}") from error
        (folder / "ready").touch()
    return folder / "bin" / "python"


def _install(name: str, folder: Path, log: Path) -> None:
    with log.open("wb") as said:
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, stdout=said, stderr=said, timeout=120)
        words = [str(folder / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check"]
        words += ["-r", str(requirements(name))]
        subprocess.run(words, check=True, stdout=said, stderr=said, timeout=_LONGEST_INSTALLATION)


def versions(name: str, packages: tuple[str, ...]) -> str:
    """Tell the pinned versions of some packages of a peer."""
    pins = dict(line.split("==", 1) for line in requirements(name).read_text().split() if "==" in line)
    return ", ".join(f"{package} {pins[package]}" for package in packages)
