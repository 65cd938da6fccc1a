# SPDX-License-Identifier: Apache-2.0
"""All of D2R on synthetic tissue: trained on the coarse volume alone, scored against a truth that nothing has seen."""

from __future__ import annotations

import json
from typing import Any

import pytest
from bundle_run import succeed
from scripts.phantom import write_sample

pytestmark = pytest.mark.slow

FACTOR = 4
# As short as shows the effect. The kept average of the weights must follow a few hundred steps instead of thousands.
SIZES: dict[str, Any] = {
    "prior": {
        "max_epochs": 6,
        "epoch_length": 50,
        "val_interval": 6,
        "batch_size": 8,
        "patch_size": [64, 64],
        "learning_rate": 0.002,
        "ema#momentum": 0.03,
    },
    "prior_network": {"width": 12, "encoder_blocks": [1, 1], "middle_blocks": 1, "decoder_blocks": [1, 1]},
    "generate": {"num_steps": 4, "batch_size": 16},
    "teacher": {
        "max_epochs": 2,
        "epoch_length": 50,
        "val_interval": 2,
        "batch_size": 8,
        "patch_size": [48, 48],
        "learning_rate": 0.002,
        "ema#momentum": 0.03,
    },
    "aenet": {
        "max_epochs": 4,
        "epoch_length": 50,
        "val_interval": 4,
        "batch_size": 8,
        "patch_size": [48, 48],
        "learning_rate": 0.002,
        "ema#momentum": 0.03,
    },
    "aenet_network": {"widths": [8, 16, 32, 64], "strides": [2, 1, 2, 2, 1]},
}


def test_d2r_beats_interpolation(tmp_path):
    truth, lowres = write_sample(tmp_path, (96, 96, 73), FACTOR, seed=3)
    hidden = tmp_path / "hidden"  # the truth is not even where a run could find it
    hidden.mkdir()
    truth = truth.rename(hidden / truth.name)
    output = tmp_path / "reconstruction.tif"
    options = {"volume": lowres, "output": output, "workdir": tmp_path / "work"}
    options = {**options, "train_factors": "[3,5]", "presets#standard": SIZES}
    succeed("d2r.yaml", options)

    scores = tmp_path / "scores"
    succeed("evaluate.yaml", {"reconstruction": output, "truth": truth, "factor": FACTOR, "output_dir": scores})
    gain = json.loads((scores / "scores.json").read_text())["gain over the better interpolation"]
    assert min(gain["psnr"].values()) > 0.2, gain  # 0.5 dB when this was written
    assert min(gain["ssim"].values()) > 0.004, gain  # 0.013
