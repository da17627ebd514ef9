"""Beside peers: a peer without figures is named with its reason, a wrong value is no result."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.beside_peers import answer
from benchmarks.peers import client, environments
from benchmarks.peers.catalogue import PEERS, STRAGGLER
from benchmarks.peers.environments import NotInstalledError
from benchmarks.peers.measuring import Found
from tests.conftest import ROOT


def found(**problems: str) -> dict[str, Found]:
    every = {peer.name: Found([2.0], [0.002]) for peer in PEERS}
    every[STRAGGLER.name] = Found([0.1], [0.001])
    return every | {name: Found([], [], problem) for name, problem in problems.items()}


def test_peers_stand_from_the_fastest_to_the_slowest() -> None:
    made = answer(found(), 1000)
    assert made.rows[0][""] == "straggler"
    assert made.rows[0]["no-op jobs/s"] == "10,000"
    assert made.figures["ratio to best peer"] == pytest.approx(20)


def test_a_peer_without_figures_is_named_with_the_reason() -> None:
    made = answer(found(celery="did not run: no broker"), 1000)
    assert made.rows[-1][""].startswith("celery ")
    assert made.rows[-1]["no-op jobs/s"] == "none"
    assert "celery: did not run: no broker." in made.notes
    assert "celery jobs/s" not in made.figures


def test_no_ratio_is_told_if_straggler_did_not_run() -> None:
    assert "ratio to best peer" not in answer(found(straggler="did not run: x"), 1000).figures


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_each_peer_has_an_adapter_and_pins(peer: Any) -> None:
    assert (ROOT / "benchmarks" / "peers" / f"{peer.adapter}.py").exists()
    assert environments.versions(peer.name, peer.versions)
    lines = environments.requirements(peer.name).read_text().split()
    assert all("==" in line for line in lines)


def test_an_environment_that_cannot_be_made_is_told_and_leaves_nothing_half_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise subprocess.CalledProcessError(1, "pip")

    monkeypatch.setattr(environments, "FOLDER", tmp_path / "bench")
    monkeypatch.setattr(environments, "ROOT", tmp_path)
    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(NotInstalledError, match=r"could not be installed: see bench/arq-.*\.log"):
        environments.ready("arq")
    assert [path.suffix for path in (tmp_path / "bench").iterdir()] == [".log"]


async def test_a_client_that_returns_a_wrong_value_has_no_figures() -> None:
    with pytest.raises(AssertionError, match="not the values of 3 jobs"):
        await client._batch(SimpleNamespace(batch=lambda count: [0] * count), 3)
    with pytest.raises(AssertionError, match="not the value of the job"):
        await client._lone(SimpleNamespace(one=lambda _: 8))


async def test_a_client_may_be_plain_or_asynchronous() -> None:
    async def batch(count: int) -> list[int]:
        return list(range(count))

    assert await client._batch(SimpleNamespace(batch=batch), 3) > 0
    assert await client._batch(SimpleNamespace(batch=lambda count: list(range(count))), 3) > 0
