# SPDX-License-Identifier: Apache-2.0
"""The benchmark of ``make speed`` counts right, and runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from bundle_run import environment
from scripts.networks.plane_conv import PLANES, PlaneConv, PlaneConvTranspose
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.machine.speed import cost, parts

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("groups", [1, 4])
def test_operations_are_those_that_torch_counts(groups):
    network = nn.Conv2d(8, 8, 3, padding=1, groups=groups)
    x = torch.rand(2, 8, 16, 12)
    with FlopCounterMode(display=False) as counter:
        network(x)
    operations, moved = cost(network, lambda: network(x))
    assert operations == counter.get_total_flops()
    assert moved == 4 * (2 * x.numel() + network.weight.numel())


@pytest.mark.parametrize(
    "folded, plain",
    [
        (PlaneConv(3, 5, 3, (1, 2, 2), 1), nn.Conv3d(3, 5, 3, (1, 2, 2), 1)),
        (PlaneConvTranspose(3, 5, (3, 4, 4), (1, 2, 2), 1), nn.ConvTranspose3d(3, 5, (3, 4, 4), (1, 2, 2), 1)),
    ],
)
def test_products_with_zero_are_not_counted(folded, plain):
    with FlopCounterMode(display=False) as counter:
        plain(torch.rand(1, 3, PLANES, 16, 16))
    operations, _ = cost(folded, lambda: folded(torch.rand(1, 3 * PLANES, 16, 16)))
    # torch counts the products with the zeros outside the window, two of twelve
    assert operations == pytest.approx(counter.get_total_flops() * 10 / 12)


def test_times_of_stages_are_read_from_the_log():
    log = (
        "\rstage I, diffusion prior:  99%|#| 99/100 [01:18<00:00, 80.2step/s]\rstage I, diffusion prior: 100%|#| "
        "100/100 [01:19<00:00, 80.2step/s]\n"
        "INFO - took 89.5 s: stage I, learn the prior\n"
        "\rrestoring: 100%|#| 34/34 [00:12<00:00, 2.7batch/s]\nINFO - took 20.0 s: stage II, restore\n"
    )
    rows = {row.what: row for row in parts(log, 1000)}
    assert rows["of that: stage II, restore"].rate == 50 and rows["of that: stage I, learn the prior"].seconds == 89.5
    steps = rows["steps of stage I, diffusion prior, validated and saved"]
    assert steps.seconds == 80 and steps.rate == 100 / 80
    assert len(rows) == 3


@pytest.mark.slow
def test_benchmark_runs_at_toy_size(tmp_path):
    words = [sys.executable, "-m", "benchmarks.machine.speed", "--size", "toy", "--output", str(tmp_path / "x.json")]
    result = subprocess.run(words, cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    written = json.loads((tmp_path / "x.json").read_text())
    assert {row["unit"] for row in written["rows"]} >= {"images/s", "windows/s", "voxel/s", "voxel/s restored"}
    for row in written["rows"]:
        assert row["rate"] > 0 and row["what"] in result.stdout
