# SPDX-License-Identifier: Apache-2.0
"""Tables and figures of scores."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scripts.errors import InputError
from scripts.evaluation import figures, tables
from scripts.evaluation.fourier_shell import Curve
from scripts.evaluation.plane_scores import gains

NM = (10.0, 10.0, 10.0)


def scores(psnr: float, ssim: float) -> dict:
    planes = ("xy", "xz", "yz")
    return {"psnr": dict.fromkeys(planes, psnr), "ssim": dict.fromkeys(planes, ssim)}


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


@pytest.fixture
def volume() -> np.ndarray:
    x, y, z = np.meshgrid(*(np.arange(n) for n in (48, 40, 33)), indexing="ij")
    return (128 + 60 * np.sin(x / 4) * np.cos(z / 5) + 20 * np.sin(y / 3)).astype(np.uint8)


def test_table_has_one_row_a_volume():
    rows = {"cubic": scores(26.061, 0.6543), "D2R": scores(27.36, 0.711)}
    lines = tables.score_table(rows, gains(rows["D2R"], rows["cubic"])).splitlines()
    assert cells(lines[0]) == ["", "PSNR XY", "PSNR XZ", "PSNR YZ", "SSIM XY", "SSIM XZ", "SSIM YZ"]
    assert cells(lines[2]) == ["cubic", "26.06", "26.06", "26.06", "0.654", "0.654", "0.654"]
    assert cells(lines[3])[0] == "D2R"
    # 1.299 and 0.0567: rounded down, never in favour of the result
    assert cells(lines[4]) == ["gain", "+1.29", "+1.29", "+1.29", "+0.056", "+0.056", "+0.056"]
    assert len(lines) == 7 and "XY leaves out" in lines[-1]


def test_table_is_aligned_markdown():
    lines = tables.score_table({"a | b": scores(math.inf, 1), "a longer name": scores(9.5, -0.1)}).splitlines()
    table = lines[:4]
    assert len({len(line) for line in table}) == 1
    assert {line.count("|") for line in table} == {8}
    assert set(table[1]) <= set("|-:")
    assert "inf" in table[2]


def correlations(voxel: float, falls_to: float) -> dict[str, Curve]:
    """The whole curve falls in a line to a value at the highest frequency, the axial one twice as fast."""
    frequency = np.linspace(0.1, 1, 10) / (2 * voxel)
    fall = (1 - falls_to) * np.linspace(0.1, 1, 10)
    return {"whole": Curve(frequency, 1 - fall, 2 * voxel), "axial": Curve(frequency, 1 - 2 * fall, 2 * voxel)}


@pytest.mark.parametrize(
    "voxel, unit, expected",
    [
        # lines cross 0.5 at 0.5 / 0.8 of the highest frequency, 0.143 nowhere: 0.857 / 0.8 is beyond it
        (10, "nanometer", ["FSC, nm", "32.0", "64.0", "<= 20.0", "37.4"]),
        (0.26, "micrometer", ["FSC, µm", "0.832", "1.664", "<= 0.520", "0.971"]),
        (1, "pixel", ["FSC, px", "3.20", "6.40", "<= 2.00", "3.74"]),
    ],
)
def test_resolution_table(voxel, unit, expected):
    """0.2 at the end: lengths are rounded up, never in favour of the result."""
    lines = tables.resolution_table({"a | b": correlations(voxel, 0.2)}, unit).splitlines()
    assert cells(lines[0]) == [expected[0], "whole 0.5", "axial 0.5", "whole 0.143", "axial 0.143"]
    assert cells(lines[2]) == ["a / b", *expected[1:]]
    assert len({len(line) for line in lines[:3]}) == 1
    assert "copied" in lines[-1]


def test_drawn_correlations(tmp_path):
    path = tmp_path / "fsc.png"
    figures.draw_correlations(path, {"cubic": correlations(10, -0.2), "result": correlations(10, 0.2)}, "nanometer")
    image = pixels(path)
    height, width = image.shape[:2]
    assert 1000 < width < 1400 and 600 < height < 900
    red = (image[..., 0] > image[..., 1] + 80) & (image[..., 0] > image[..., 2] + 80)
    assert red.mean() > 0.003  # the result stands out
    assert [p.name for p in tmp_path.iterdir()] == ["fsc.png"]


@pytest.mark.parametrize("plane", ["xz", "yz"])
def test_compare_slices(tmp_path, volume, plane):
    path = tmp_path / "figures" / "compare.png"
    volumes = {"input": volume[:, :, ::8], "interpolation": volume, "result": volume, "truth": volume}
    figures.compare_slices(path, volumes, NM, "nanometer", factor=8, plane=plane, captions={"result": "30.0 dB"})
    image = pixels(path)
    height, width = image.shape[:2]
    assert 1800 < width < 2200 and 700 < height < 1100
    # the columns of the result and of the truth show the same voxels below their titles
    gray = image[150:].mean(2)
    quarter = width // 4
    assert abs(gray[:, 2 * quarter : 3 * quarter].mean() - gray[:, 3 * quarter :].mean()) < 4
    assert [p.name for p in path.parent.iterdir()] == ["compare.png"]


def test_compare_shares_one_gray_window(tmp_path, volume):
    """A column darker than the truth is drawn darker, not stretched to look alike."""
    path = tmp_path / "compare.png"
    figures.compare_slices(path, {"dark": volume // 2, "truth": volume}, NM, "nanometer")
    image = pixels(path)
    half = image.shape[1] // 2
    assert image[150:, :half].mean() < image[150:, half:].mean() - 30


def middle_slices(volume: np.ndarray, disagreement: np.ndarray) -> dict[str, list[np.ndarray]]:
    x, y, _ = volume.shape
    both = volume, disagreement
    return {"xz": [each[:, y // 2] for each in both], "yz": [each[x // 2] for each in both]}


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(300, 20, 16), (16, 300, 16), (16, 16, 300), (12, 12, 2)])
def test_pictures_of_long_volumes_stay_readable(tmp_path, shape):
    volume = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
    figures.compare_slices(tmp_path / "a.png", {"input": volume, "result": volume}, (0.2, 0.2, 0.5), "micrometer")
    figures.show_disagreement(tmp_path / "b.png", middle_slices(volume, volume / 10))
    for name in ("a.png", "b.png"):
        height, width = pixels(tmp_path / name).shape[:2]
        assert 300 < height < 2500 and 500 < width < 2500


def test_compare_constant_volume(tmp_path):
    volume = np.full((12, 12, 12), 7, np.uint8)
    figures.compare_slices(tmp_path / "a.png", {"input": volume, "result": volume}, NM)
    assert pixels(tmp_path / "a.png").size


def test_compare_wrong_options(tmp_path, volume):
    with pytest.raises(InputError, match="plane 'zx'"):
        figures.compare_slices(tmp_path / "a.png", {"a": volume}, NM, plane="zx")
    with pytest.raises(InputError, match="slice 40 .* 0 to 39"):
        figures.compare_slices(tmp_path / "a.png", {"a": volume}, NM, index=40)
    assert not list(tmp_path.iterdir())


def test_disagreement(tmp_path, volume):
    disagreement = np.zeros(volume.shape)
    disagreement[:, :, 10:14] = 20
    figures.show_disagreement(tmp_path / "a.png", middle_slices(volume, disagreement), NM, "nanometer")
    image = pixels(tmp_path / "a.png")
    color = np.ptp(image, axis=2) > 60  # the gray half has none
    half = image.shape[0] // 2
    assert color[half:].mean() > 0.02 > color[: half - 40].mean()
    with pytest.raises(InputError, match="differ in size"):
        figures.show_disagreement(tmp_path / "b.png", middle_slices(volume, disagreement[:-1]))
