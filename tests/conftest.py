# SPDX-License-Identifier: Apache-2.0
"""Networks and inputs that the tests share; keeps the tests from fighting over cores."""

from __future__ import annotations

import os
from pathlib import Path

if "OMP_NUM_THREADS" not in os.environ:  # before torch is imported; also for the commands that tests start
    os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch
from inference_run import write_inputs
from scripts.networks.aenet import AENet
from toy_network import toy_aenet

torch.set_num_threads(1)  # two busy test processes on two cores would wait for each other

_LONGEST = ("readme", "tables", "wrong_input", "end_to_end", "speed", "zoo", "memory", "configs", "resume", "examples")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take minutes come first, so that no process is left alone with one at the end."""
    names = [f"test_{name}" for name in _LONGEST]
    items.sort(key=lambda item: names.index(item.path.stem) if item.path.stem in names else len(names))


@pytest.fixture(scope="session")
def untrained() -> AENet:
    return AENet(widths=(2, 2, 2, 2)).eval()


@pytest.fixture(scope="session")
def trained() -> AENet:
    return toy_aenet()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two volumes, ``volumes/a.tif`` and ``b.tif``, and weights, ``aenet.pt``, for :mod:`inference_run`."""
    path = tmp_path_factory.mktemp("inputs")
    write_inputs(path)
    return path


@pytest.fixture(autouse=True)
def nothing_told(monkeypatch):
    """What an earlier test was warned of does not count."""
    monkeypatch.setattr("scripts.errors._told", set())
