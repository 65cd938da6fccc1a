# SPDX-License-Identifier: Apache-2.0
"""Networks that the tests share; keeps the tests from fighting over cores."""

from __future__ import annotations

import os

if "OMP_NUM_THREADS" not in os.environ:  # before torch is imported; also for the commands that tests start
    os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch
from scripts.networks.aenet import AENet, ChannelGate

torch.set_num_threads(1)  # two busy test processes on two cores would wait for each other


@pytest.fixture(scope="session")
def untrained() -> AENet:
    return AENet(widths=(2, 2, 2, 2)).eval()


@pytest.fixture(scope="session")
def trained() -> AENet:
    """Residuals of a few per cent of the range, with gates that follow the image from cell to cell."""
    torch.manual_seed(0)
    network = AENet(widths=(4, 4, 6, 8)).eval()
    with torch.no_grad():
        network.output.head.weight.normal_(std=0.5)
        network.output.head.weight -= network.output.head.weight.mean(
            (2, 3), keepdim=True
        )  # no offset: what is added varies in space
        for module in network.modules():
            if isinstance(module, ChannelGate):
                module.mix.weight.normal_(std=2.0)
                module.mix.bias.copy_(0.5 * torch.randn(len(module.mix.weight)))  # type: ignore[union-attr]
    return network


@pytest.fixture(autouse=True)
def nothing_told(monkeypatch):
    """What an earlier test was warned of does not count."""
    monkeypatch.setattr("scripts.errors._told", set())
