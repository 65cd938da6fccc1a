# SPDX-License-Identifier: Apache-2.0
"""Scores of files: the range of their gray levels, and what is refused before a volume is read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from scripts.errors import InputError
from scripts.evaluation.evaluate import evaluate
from skimage.metrics import peak_signal_noise_ratio

FACTOR = 4
LEVELS = {"uint8": (10, 180), "uint16": (300, 4300), "float32": (0.075, 1.075)}  # the last two alike


@pytest.fixture
def truth() -> np.ndarray:
    """(Z, Y, X) in [0, 1], a wave along each axis."""
    z, y, x = np.meshgrid(*(np.arange(side) for side in (13, 16, 14)), indexing="ij")
    waves = np.sin(z / 2) + np.sin(y / 3) + np.sin(x / 2 + z / 5)
    return (waves - waves.min()) / np.ptp(waves)


def write(path: Path, values: np.ndarray, dtype: str) -> np.ndarray:
    low, high = LEVELS[dtype]
    levels = low + (high - low) * values
    stored = (levels if dtype == "float32" else levels.round()).astype(dtype)
    tifffile.imwrite(path, stored)
    return stored.transpose(2, 1, 0)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", LEVELS)
def test_scores_refer_to_the_range_of_the_truth(truth, tmp_path, dtype):
    """255 for 8 bits, as in the paper; of other types what the truth spans, in the reconstruction and in the baselines."""
    true = write(tmp_path / "truth.tif", truth, dtype)
    result = write(tmp_path / "result.tif", 0.9 * truth + 0.02, dtype)
    document = evaluate(tmp_path / "result.tif", tmp_path / "truth.tif", FACTOR, tmp_path)
    assert document == json.loads((tmp_path / "scores.json").read_text())
    data_range = 255 if dtype == "uint8" else float(np.ptp(true))
    assert document["data_range"] == pytest.approx(data_range)
    each = [peak_signal_noise_ratio(true[:, y], result[:, y], data_range=data_range) for y in range(16)]
    assert document["scores"]["result"]["psnr"]["xz"] == pytest.approx(np.mean(each), abs=1e-3)

    at = np.arange(true.shape[2])
    lines = true[..., ::FACTOR].reshape(-1, len(at[::FACTOR]))
    linear = np.stack([np.interp(at, at[::FACTOR], line) for line in lines]).reshape(true.shape)
    linear = linear if dtype == "float32" else np.rint(linear)
    each = [peak_signal_noise_ratio(true[:, y].astype(float), linear[:, y], data_range=data_range) for y in range(16)]
    assert document["scores"]["linear"]["psnr"]["xz"] == pytest.approx(np.mean(each), abs=1e-3)


@pytest.mark.slow
def test_scores_do_not_depend_on_the_type(truth, tmp_path):
    """The same picture in 16 bits and in floats."""
    found = []
    for dtype in ("uint16", "float32"):
        write(tmp_path / "truth.tif", truth, dtype)
        write(tmp_path / "result.tif", 0.9 * truth + 0.02, dtype)
        found.append(evaluate(tmp_path / "result.tif", tmp_path / "truth.tif", FACTOR, tmp_path)["scores"])
    for volume in ("linear", "cubic", "result"):
        for measure, tolerance in (("psnr", 0.01), ("ssim", 0.001)):
            assert found[0][volume][measure] == pytest.approx(found[1][volume][measure], abs=tolerance)


def test_what_cannot_be_is_refused_before_a_volume_is_read(truth, tmp_path, monkeypatch):
    for name in ("truth.tif", "result.tif", "scores.json"):
        write(tmp_path / name, truth, "uint8")
    before = (tmp_path / "scores.json").read_bytes()
    monkeypatch.setattr("scripts.evaluation.evaluate.read_volume", None)
    result, true = tmp_path / "result.tif", tmp_path / "truth.tif"
    with pytest.raises(InputError, match="--factor 2.5: scores need a whole factor"):
        evaluate(result, true, 2.5, tmp_path)
    with pytest.raises(InputError, match="scores.json: is the same file as .*, which this run reads"):
        evaluate(tmp_path / "scores.json", true, FACTOR, tmp_path)
    with pytest.raises(
        InputError, match="reconstruction has 14 x 16 x 13 voxels and the truth 14 x 16 x 11: give a truth on"
    ):
        evaluate(result, true, 5, tmp_path)
    tifffile.imwrite(tmp_path / "short.tif", np.ones((10, 16, 14), np.uint8))
    with pytest.raises(InputError, match="at least 11 voxels a side, this one has 14 x 16 x 1"):
        evaluate(tmp_path / "short.tif", tmp_path / "short.tif", 9, tmp_path)
    (tmp_path / "short.tif").unlink()
    monkeypatch.setattr("scripts.volumes.memory.psutil.virtual_memory", lambda: type("Memory", (), {"available": 1000}))
    with pytest.raises(InputError, match="truth.tif: scores of it need"):
        evaluate(result, true, FACTOR, tmp_path)
    assert (tmp_path / "scores.json").read_bytes() == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["result.tif", "scores.json", "truth.tif"]
