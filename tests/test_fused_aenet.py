# SPDX-License-Identifier: Apache-2.0
"""The fused AENet is AENet, and the Triton kernels do what their plain reference does.

The kernels run on CUDA; where Triton is installed, ``TRITON_INTERPRET=1`` runs them on a CPU.
"""

from __future__ import annotations

import importlib.util
import logging
import os
from typing import Any

import pytest
import torch
from scripts import errors
from scripts.networks import optimize
from scripts.networks.aenet import AENet
from scripts.networks.fused_aenet import fuse
from scripts.networks.optimize import optimize_for_inference
from scripts.networks.plain_ops import PLAIN
from scripts.networks.plane_conv import fold_planes
from toy_network import toy_aenet

WIDTHS = (6, 8, 12, 16)
CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
KERNELS = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None
    or not (torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") == "1"),
    reason="no Triton, or no GPU for it",
)


def random(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    """Around zero, in channels-last memory where it is images."""
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE, dtype)
    return values.contiguous(memory_format=torch.channels_last) if len(shape) == 4 else values


# ---- the network -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sides", [(64, 64), (72, 85), (31, 40)])
@pytest.mark.parametrize("strides", [(2, 1, 2, 2, 1), (1, 1, 2, 2, 2), (2, 2, 2, 2, 1)])
def test_fused_network_is_the_network(strides, sides):
    aenet = toy_aenet(WIDTHS, strides)
    fused = fuse(aenet, PLAIN)
    window, factor = torch.rand(2, 1, *sides, 4), torch.full((4,), 5.0)
    relative_depth = torch.tensor([0.2, 0.6, 0.0, 0.8])
    with torch.no_grad():
        expected = aenet.decode(aenet.encode(window), relative_depth, factor)
        found = fused.decode(fused.encode(window), relative_depth, factor)
        untrained = AENet(WIDTHS, strides)(window)
    assert torch.allclose(found, expected, atol=1e-5)
    assert not torch.allclose(expected[:1], untrained[:1], atol=1e-2)  # the fused parts have their say in it


def test_fusing_leaves_the_network_alone():
    aenet = toy_aenet(WIDTHS)
    before = {name: value.clone() for name, value in aenet.state_dict().items()}
    fuse(aenet, PLAIN)
    assert aenet.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in aenet.state_dict().items())


# ---- the switch ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("amp", [False, True])
def test_a_cpu_folds_and_does_not_fuse(amp):
    """To the bit what the folded network gives."""
    aenet, window = toy_aenet(WIDTHS), torch.rand(1, 1, 40, 33, 4)
    with torch.no_grad():
        assert torch.equal(optimize_for_inference(aenet, torch.device("cpu"), amp)(window), fold_planes(aenet)(window))


def test_kernels_that_cannot_be_built_are_told_once(monkeypatch, caplog):
    monkeypatch.setattr(errors, "_told", set())

    def fail(aenet, device):
        raise RuntimeError("no C compiler\nand much more")

    monkeypatch.setattr(optimize, "_fused", fail)
    aenet, window = toy_aenet(WIDTHS), torch.rand(1, 1, 40, 33, 4)
    with caplog.at_level(logging.WARNING):
        found = [optimize_for_inference(aenet, torch.device("cuda"), True) for _ in range(2)]
    (record,) = caplog.records
    assert record.getMessage() == "slower than it could be: the fused kernels cannot be built here (no C compiler)"
    with torch.no_grad():
        assert torch.equal(found[1](window), fold_planes(aenet)(window))


@CUDA
@pytest.mark.parametrize("sides", [(64, 64), (72, 85)])
def test_fused_network_on_cuda_is_the_network(sides, caplog):
    aenet = toy_aenet(WIDTHS, device="cuda")
    with caplog.at_level(logging.WARNING):
        fused: Any = optimize_for_inference(aenet, torch.device("cuda"), True)
    assert not caplog.records
    window, factor = torch.rand(2, 1, *sides, 4, device="cuda"), torch.full((4,), 5.0, device="cuda")
    relative_depth = torch.tensor([0.2, 0.6, 0.0, 0.8], device="cuda")
    with torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
        found = fused.decode(fused.encode(window), relative_depth, factor)
    with torch.no_grad():
        expected = aenet.decode(aenet.encode(window), relative_depth, factor)
    assert (found - expected).abs().max() < 4 / 255 and (found - expected).abs().mean() < 0.5 / 255


# ---- the kernels, each against its reference -------------------------------------------------------------------------

PRECISIONS = [(torch.float32, 1e-5), (torch.bfloat16, 0.05)]
SIZES = [(32, 32), (37, 50), (5, 70)]


@KERNELS
@pytest.mark.parametrize("dtype, tolerance", PRECISIONS)
@pytest.mark.parametrize("sides", SIZES)
@pytest.mark.parametrize("cell", [4, 16])
@pytest.mark.parametrize("windows", [None, 1, 2])
def test_cell_means(windows, cell, sides, dtype, tolerance):
    from scripts.networks.triton_kernels import TRITON

    y, bias = random(4, 24, *sides, dtype=dtype), random(24, seed=1)
    skip = None if windows is None else random(windows, 24, *sides, dtype=dtype, seed=2)
    expected, found = (ops.cell_means(y, bias, cell, skip) for ops in (PLAIN, TRITON))
    assert found.dtype == dtype and found.shape == expected.shape
    assert torch.allclose(found.float(), expected.float(), atol=tolerance)


@KERNELS
@pytest.mark.parametrize("dtype, tolerance", PRECISIONS)
@pytest.mark.parametrize("sides", SIZES)
@pytest.mark.parametrize("cell", [4, 16])
@pytest.mark.parametrize(
    "images, windows, film, skip, residual",
    [(2, 2, False, False, True), (2, 1, True, False, False), (4, 2, True, True, False), (1, 1, True, True, False)],
)  # of a residual block, of the bottom and of the decoder, many windows and one
def test_gated(images, windows, film, skip, residual, cell, sides, dtype, tolerance):
    from scripts.networks.triton_kernels import TRITON

    count, cells = 4 if film else images, [-(-side // cell) for side in sides]
    arguments = {
        "skip": random(windows, 24, *sides, dtype=dtype, seed=3) if skip else None,
        "scale_and_shift": random(count, 12, dtype=dtype, seed=4) if film else None,
        "residual": random(count, 24, *sides, dtype=dtype, seed=5) if residual else None,
    }
    y, bias = random(images, 24, *sides, dtype=dtype), random(24, seed=1)
    logits = 3 * random(windows, *cells, 6, dtype=dtype, seed=2).contiguous()
    expected, found = (ops.gated(y, bias, logits, cell, 0.2, **arguments) for ops in (PLAIN, TRITON))
    assert found.dtype == dtype and found.shape == expected.shape == (count, 24, *sides)
    assert (expected < 0).any() and torch.allclose(found.float(), expected.float(), rtol=tolerance, atol=tolerance)


@KERNELS
@pytest.mark.parametrize("dtype, tolerance", PRECISIONS)
@pytest.mark.parametrize("sides", SIZES)
@pytest.mark.parametrize("windows", [None, 1, 2])
def test_biased(windows, sides, dtype, tolerance):
    from scripts.networks.triton_kernels import TRITON

    y, bias = random(4, 24, *sides, dtype=dtype), random(24, seed=1)
    skip = None if windows is None else random(windows, 24, *sides, dtype=dtype, seed=2)
    expected, found = (ops.biased(y.clone(), bias, 0.2, skip) for ops in (PLAIN, TRITON))
    assert found.dtype == dtype and (expected < 0).any()
    assert torch.allclose(found.float(), expected.float(), rtol=tolerance, atol=tolerance)
