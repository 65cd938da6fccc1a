# SPDX-License-Identifier: Apache-2.0
"""Folders of slices: their order, and names that leave a doubt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from scripts.volumes.read_options import ReadOptions
from scripts.volumes.reading import read_volume
from scripts.volumes.writing import write_volume
from volume_files import expect_refusal, save_slices, sizes_of, stack, volume


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".tif", ".tiff"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_slices_come_in_natural_order(tmp_path, suffix, dtype):
    array = stack(dtype, (12, 6, 7))
    for index, page in enumerate(array):
        Image.fromarray(page).save(tmp_path / f"slice{index}{suffix}")
    (tmp_path / "notes.txt").write_text("not a slice")
    (tmp_path / ".hidden.png").write_text("not a slice")
    loaded = read_volume(tmp_path)
    assert np.array_equal(loaded[0], array.transpose(2, 1, 0))
    assert (loaded.meta["dtype"], loaded.meta["unit"]) == (dtype, "pixel")
    np.testing.assert_allclose(sizes_of(read_volume(tmp_path, ReadOptions([8, 10, 10]))), (10, 10, 8))


def test_wrong_folders(tmp_path):
    expect_refusal(tmp_path, str(tmp_path), "without slices", ".png")
    Image.fromarray(stack()[0]).save(tmp_path / "1.png")
    expect_refusal(tmp_path, "1 slice", "at least 2")
    Image.fromarray(stack()[1, :3]).save(tmp_path / "2.png")
    expect_refusal(tmp_path, "2.png", "7 x 3", "7 x 6")
    Image.fromarray(stack("uint16")[1]).save(tmp_path / "2.png")
    expect_refusal(tmp_path, "2.png", "uint16", "uint8")
    Image.fromarray(np.zeros((6, 7, 3), np.uint8)).save(tmp_path / "2.png")
    expect_refusal(tmp_path, "2.png", "grayscale", "RGB")
    (tmp_path / "2.png").write_bytes((tmp_path / "1.png").read_bytes()[:60])
    expect_refusal(tmp_path, "2.png", "cannot be read")
    (tmp_path / "2.png").rename(tmp_path / "2.tif")
    expect_refusal(tmp_path, "both PNG and TIFF")


def test_stacks_in_a_folder(tmp_path):
    for index in range(2):
        tifffile.imwrite(tmp_path / f"{index}.tif", stack())
    expect_refusal(tmp_path, "0.tif", "5 pages", "one 2-D slice")


def order_of(path: Path, names: dict[int, str]) -> list[str]:
    return [names[int(index)] for index in read_volume(path)[0, 0, 0]]


GOOD_NAMES = {
    "padding": ["s_8.png", "s_9.png", "s_10.png", "s_011.png"],
    "another number": ["v1.0008.png", "v1.0009.png", "v1.0010.png"],
    "decimals": ["z_0.25um.png", "z_0.5um.png", "z_0.75um.png", "z_1.0um.png"],
    "decimals below 1": ["z_0.25um.png", "z_0.5um.png", "z_0.75um.png"],
    "decimals with a comma": ["z_0,5.png", "z_0,75.png", "z_1,0.png"],
    "rounded decimals": ["z_0.33.png", "z_0.67.png", "z_1.00.png", "z_1.33.png"],
    "two that are no decimals": ["s_1.9.png", "s_1.10.png"],
    "no decimals": ["s_1.8.png", "s_1.9.png", "s_1.10.png", "s_1.11.png"],
    "number and place": ["slice_1_z=0.0050um.png", "slice_2_z=0.0101um.png", "slice_3_z=0.0149um.png"],
    "negative": ["z_-2.png", "z_-1.png", "z_0.png", "z_1.png"],
    "negative after a letter": ["z-2.png", "z-1.png", "z0.png", "z1.png"],
    "hyphens": ["slice-1.png", "slice-2.png", "slice-3.png"],
    "capitals": ["S_1.png", "s_2.PNG", "S_3.png"],
    "TIFF and TIF": ["s_1.tif", "s_2.tiff", "s_3.TIF"],
    "steps": ["z_000.png", "z_005.png", "z_010.png"],
}


@pytest.mark.parametrize("names", GOOD_NAMES.values(), ids=GOOD_NAMES)
def test_order_of_slices(tmp_path, names):
    shuffled = sorted(names, key=lambda name: name[::-1])
    assert order_of(tmp_path, save_slices(tmp_path, shuffled)) == names


def test_slices_that_are_numbered_by_more_than_one_are_told(tmp_path, caplog):
    save_slices(tmp_path, GOOD_NAMES["steps"])
    read_volume(tmp_path)
    assert "numbered by 5" in caplog.text and "z_005.png" in caplog.text


# names, what the line says, the pattern that it offers, and the names that this takes, in their order
DOUBTS = {
    "missing": (
        ["s_001.png", "s_002.png", "s_004.png"],
        ("slice 3 is missing between s_002.png and s_004.png",),
        "s_*.png",
        ["s_001.png", "s_002.png", "s_004.png"],
    ),
    "several missing": (
        ["s_1.png", "s_2.png", "s_5.png", "s_6.png", "s_8.png"],
        ("slices 3 to 4 are missing between s_2.png and s_5.png", "1 more"),
        "s_*.png",
        ["s_1.png", "s_2.png", "s_5.png", "s_6.png", "s_8.png"],
    ),
    "missing among steps": (
        ["s_0.png", "s_5.png", "s_15.png", "s_20.png"],
        ("slice 10 is missing",),
        "s_*.png",
        ["s_0.png", "s_5.png", "s_15.png", "s_20.png"],
    ),
    "missing of two": (["s_1.png", "s_3.png"], ("slice 2 is missing",), "s_*.png", ["s_1.png", "s_3.png"]),
    "missing decimal": (
        ["z_0.5um.png", "z_0.25um.png", "z_1.0um.png"],
        ("slice 0.75 is missing between z_0.5um.png and z_1.0um.png",),
        "z_*um.png",
        ["z_0.25um.png", "z_0.5um.png", "z_1.0um.png"],
    ),
    "uneven": (
        ["im_01.png", "im_07.png", "im_13.png", "im_20.png"],
        ("not numbered evenly", "im_13.png and im_20.png"),
        "im_*.png",
        ["im_01.png", "im_07.png", "im_13.png", "im_20.png"],
    ),
    "series": (
        ["a_1.png", "a_2.png", "b_1.png", "b_2.png"],
        ("2 series", "a_1.png", "b_1.png"),
        "a_*.png",
        ["a_1.png", "a_2.png"],
    ),
    "channels": (
        ["img_z001_c0.png", "img_z001_c1.png", "img_z002_c0.png", "img_z002_c1.png"],
        ("more than one number", "c0, c1"),
        "img_z*_c0.png",
        ["img_z001_c0.png", "img_z002_c0.png"],
    ),
    "time points": (
        ["t0_z1.png", "t0_z2.png", "t0_z3.png", "t1_z1.png", "t1_z2.png", "t1_z3.png"],
        ("t0, t1",),
        "t0_z*.png",
        ["t0_z1.png", "t0_z2.png", "t0_z3.png"],
    ),
    "one more file": (
        ["overview.png", "s_1.png", "s_2.png", "s_3.png"],
        ("holds overview.png beside 3 slices",),
        "s_*.png",
        ["s_1.png", "s_2.png", "s_3.png"],
    ),
    "a copy": (
        ["s_1.png", "s_2.png", "s_2 (1).png"],
        ("holds s_2 (1).png beside 2 slices",),
        "s_?.png",
        ["s_1.png", "s_2.png"],
    ),
    "no numbers": (["b.png", "a.png", "c.png"], ("no numbers",), "*.png", ["a.png", "b.png", "c.png"]),
    "brackets": (
        ["s[1].png", "s[2].png", "s[4].png"],
        ("slice 3 is missing",),
        "s[[]*].png",
        ["s[1].png", "s[2].png", "s[4].png"],
    ),
}


@pytest.mark.parametrize("names, says, pattern, taken", DOUBTS.values(), ids=DOUBTS)
def test_folders_in_doubt(tmp_path, names, says, pattern, taken):
    folder = tmp_path / "Mouse #3 [a]"  # of which no part is a pattern
    saved = save_slices(folder, names)
    expect_refusal(folder, str(folder), *says, f"'{folder / pattern}'")
    assert order_of(folder / pattern, saved) == taken


@pytest.mark.parametrize(
    "names, says",
    [
        (["1.png", "01.png", "2.png"], ("01.png, 1.png have the same number",)),
        (["s_1.tif", "s_1.tiff", "s_2.tif"], ("s_1.tif, s_1.tiff have the same number",)),
        (["z_0.5.png", "z_0.25.png", "z_0.8.png"], ("may be decimals or not", "rename")),
        (["1f.png", "2a.png", "30.png"], ("differ in more than a number", "keep the slices of one volume alone")),
        (["s1_77.png", "s2_12.png", "s3_45.png"], ("more than one number",)),
        (["s1_9.png", "s2_8.png", "s3_8.png"], ("more than one number",)),  # falling, but for two
    ],
)
def test_folders_that_no_pattern_helps(tmp_path, names, says):
    save_slices(tmp_path, names)
    expect_refusal(tmp_path, str(tmp_path), *says)
    expect_refusal(tmp_path / f"*{Path(names[0]).suffix}*", *says)


def test_series_that_go_on_are_one_if_the_user_says_so(tmp_path):
    saved = save_slices(tmp_path, ["t0_z1.png", "t0_z2.png", "t1_z3.png", "t1_z4.png"])
    expect_refusal(tmp_path, "t0, t1", "t0_z*.png", "to take them all as one", "t*_z*.png")
    assert order_of(tmp_path / "t*_z*.png", saved) == list(saved.values())


def test_pattern_of_several_series(tmp_path):
    save_slices(tmp_path, ["a_1.png", "a_2.png", "b_1.png", "b_2.png"])
    expect_refusal(tmp_path / "*.png", "2 series", "narrow the pattern", "a_*.png")
    expect_refusal(tmp_path / "c_*.png", "c_*.png: no such file or folder")


def test_file_with_the_name_of_a_pattern_is_that_file(tmp_path):
    write_volume(volume(), tmp_path / "v[1].tif")
    write_volume(volume(sizes=(1, 1, 1)), tmp_path / "v1.tif")
    np.testing.assert_allclose(sizes_of(read_volume(tmp_path / "v[1].tif")), (0.26, 0.27, 0.5))


def test_slices_of_another_format(tmp_path):
    save_slices(tmp_path, ["s_1.png", "s_2.png", "s_3.jpg", "preview.jpg", "s_1.jpg"])
    expect_refusal(tmp_path, "s_3.jpg is named like a slice")
    (tmp_path / "s_3.jpg").unlink()
    assert read_volume(tmp_path).shape[-1] == 2


def test_axes_of_a_folder(tmp_path):
    save_slices(tmp_path, ["1.png", "2.png", "3.png"])
    assert read_volume(tmp_path, ReadOptions(axes="ZYX")).shape == (1, 7, 6, 3)
    assert torch.equal(read_volume(tmp_path, ReadOptions(axes="ZXY"))[0], read_volume(tmp_path)[0].transpose(0, 1))
    expect_refusal(tmp_path, "--axes YXZ", "Z comes first", axes="YXZ")


def test_png_that_is_none(tmp_path):
    for name in ("1.png", "2.png"):
        Image.fromarray(stack()[0]).save(tmp_path / name, format="JPEG")
    expect_refusal(tmp_path, "1.png", "is a JPEG file in spite of its name")
    for name in ("1.png", "2.png"):
        Image.fromarray(stack()[0]).save(
            tmp_path / name, format="PNG", save_all=True, append_images=[Image.fromarray(stack()[1])]
        )
    expect_refusal(tmp_path, "1.png", "2 frames")
