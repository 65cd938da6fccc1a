# SPDX-License-Identifier: Apache-2.0
"""The network made ready for use gives what the network gives, on a CPU and on CUDA."""

from __future__ import annotations

import logging

import pytest
import torch

from scripts.networks.aenet import AENet, ChannelGate
from scripts.prediction import Predictor

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def network(device: str) -> AENet:
    """With residuals of a few per cent of the range, and gates that differ from cell to cell."""
    torch.manual_seed(0)
    result = AENet(widths=(6, 8, 12, 16)).eval()
    with torch.no_grad():
        torch.nn.init.normal_(result.output.head.weight, std=0.05)
        for module in result.modules():
            if isinstance(module, ChannelGate):
                torch.nn.init.normal_(module.mix.weight, std=2.0)
            elif isinstance(module, (torch.nn.Conv2d, torch.nn.Conv3d)) and module.bias is not None:
                torch.nn.init.normal_(module.bias, std=0.1)
    return result.to(device)


def expected(aenet: AENet, slabs: torch.Tensor, depths: torch.Tensor, factor: float) -> torch.Tensor:
    """Slice by slice."""
    gap = torch.tensor(factor, device=slabs.device)
    with torch.no_grad():
        rows = [[aenet(slab[None, None], depth, gap)[0, 0] for depth in row] for slab, row in zip(slabs, depths)]
    return torch.stack([torch.stack(row) for row in rows])


@pytest.mark.parametrize(
    "device, amp", [("cpu", False), ("cpu", True), *[pytest.param("cuda", a, marks=CUDA) for a in (False, True)]]
)
@pytest.mark.parametrize("sides", [(64, 64), (72, 85)])
def test_batches_are_what_the_network_gives(device, amp, sides, caplog):
    aenet = network(device)
    with caplog.at_level(logging.WARNING):
        predict = Predictor(aenet, 5.0, torch.device(device), 2, amp)
    assert not caplog.records  # on CUDA the fused kernels were built
    for _ in range(2):  # on CUDA the second is a replay
        slabs, depths = torch.rand(3, *sides, 4, device=device), torch.rand(3, 5, device=device)
        found = predict(slabs, depths)
        difference = (found - expected(aenet, slabs, depths, 5.0)).abs()
        assert found.shape == (3, 5, *sides) and found.dtype == torch.float32
        assert difference.max() < (4 / 255 if amp else 1e-3 if device == "cuda" else 1e-5)
        assert difference.mean() < (0.5 / 255 if amp else 1e-5)


def test_the_network_is_left_alone():
    aenet = network("cpu")
    before = {name: value.clone() for name, value in aenet.state_dict().items()}
    Predictor(aenet, 5.0, torch.device("cpu"), 2, True)(torch.rand(1, 32, 32, 4), torch.rand(1, 2))
    assert all(torch.equal(value, before[name]) for name, value in aenet.state_dict().items())


@CUDA
def test_batches_of_another_size_are_recorded_anew():
    aenet = network("cuda")
    predict = Predictor(aenet, 5.0, torch.device("cuda"), 2, False)
    for sides in ((64, 64), (32, 96), (64, 64)):
        slabs, depths = torch.rand(1, *sides, 4, device="cuda"), torch.rand(1, 2, device="cuda")
        assert torch.allclose(predict(slabs, depths), expected(aenet, slabs, depths, 5.0), atol=1e-3)
