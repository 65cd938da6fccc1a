# SPDX-License-Identifier: Apache-2.0
"""N5, written by hand from its specification: voxels, places, voxel sizes by what names them, and what is refused."""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chunked_files import SHAPE, assert_coded, coded, voxel_size, write_json, write_n5
from scripts.errors import InputError
from scripts.volumes.read_options import ReadOptions
from scripts.volumes.reading import VolumeSource
from volume_files import assert_in_one_line, expect_refusal

COSEM = {"axes": ["z", "y", "x"], "scale": [40, 5, 4], "translate": [80, 10, 8], "units": ["nm", "nm", "nm"]}
PIXELS = {"dimensions": [4, 5, 40], "unit": "nm"}


def edit(file: Path, **changes: Any) -> Path:
    """Change attributes; None takes them away."""
    found = {**json.loads(file.read_text()), **changes}
    return write_json(file, {key: value for key, value in found.items() if value is not None})


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "uint32"])
@pytest.mark.parametrize("compression", ["gzip", "raw"])
def test_voxels(tmp_path, dtype, compression):
    """Dimensions are x, y, z; numbers are big-endian; blocks at the end are smaller."""
    assert_coded(write_n5(tmp_path / "v.n5", None, coded(dtype), compression))
    with VolumeSource(tmp_path / "v.n5") as source:
        assert (source.header.dtype, source.header.unit, source.chunk) == (dtype, "pixel", (4, 3, 2))


@pytest.mark.parametrize(
    "attributes, expected",
    [
        ({"transform": COSEM}, ((4, 5, 40), (8, 10, 80), "nanometer")),
        (
            {"transform": {**COSEM, "axes": ["x", "y", "z"], "units": ["um", "nm", "nm"]}},
            ((40, 0.005, 0.004), (80, 0.01, 0.008), "micrometer"),
        ),
        ({"pixelResolution": PIXELS}, ((4, 5, 40), (0, 0, 0), "nanometer")),
        ({"pixelResolution": {**PIXELS, "unit": "\u00b5m"}}, ((4, 5, 40), (0, 0, 0), "micrometer")),
        ({"pixelResolution": [4, 5, 40]}, ((4, 5, 40), (0, 0, 0), "pixel")),
        ({"pixelResolution": PIXELS, "downsamplingFactors": [2, 2, 1]}, ((8, 10, 40), (2, 2.5, 0), "nanometer")),
        (
            {"resolution": [4, 5, 40], "units": ["nm", "nm", "nm"], "axes": ["x", "y", "z"]},
            ((4, 5, 40), (0, 0, 0), "nanometer"),
        ),
        ({"resolution": [4, 5, 0.04], "units": ["nm", "nm", "um"]}, ((4, 5, 40), (0, 0, 0), "nanometer")),
        ({"transform": COSEM, "pixelResolution": PIXELS}, ((4, 5, 40), (8, 10, 80), "nanometer")),
    ],
)
def test_voxel_size(tmp_path, attributes, expected, caplog):
    assert voxel_size(write_n5(tmp_path / "v.n5", attributes)) == expected
    assert bool(caplog.messages) == (expected[2] == "pixel")  # a list of sizes has no unit, which is told


@pytest.mark.parametrize(
    "group",
    [
        {"pixelResolution": PIXELS, "scales": [[1, 1, 1], [2, 2, 4]]},
        {"resolution": [4, 5, 40], "units": ["nm"] * 3, "downsamplingFactors": [[1, 1, 1], [2, 2, 4]]},
        {
            "multiscales": [
                {
                    "datasets": [
                        {"path": "s0", "transform": {**COSEM, "translate": [0, 0, 0]}},
                        {"path": "s1", "transform": {**COSEM, "scale": [160, 10, 8], "translate": [60, 2.5, 2]}},
                    ]
                }
            ]
        },
        {
            "multiscales": [
                {
                    "axes": [{"name": each, "unit": "nanometer"} for each in "zyx"],
                    "datasets": [
                        {"path": path, "coordinateTransformations": [{"type": "scale", "scale": scale}, shift]}
                        for path, scale, shift in (
                            ("s0", [40, 5, 4], {"type": "identity"}),
                            ("s1", [160, 10, 8], {"type": "translation", "translation": [60, 2.5, 2]}),
                        )
                    ],
                }
            ]
        },
    ],
)
def test_levels_of_a_group(tmp_path, group):
    """The first level is taken; a coarser one begins at the center of what it is the mean of."""
    path = tmp_path / "v.n5"
    write_json(path / "attributes.json", {"n5": "2.5.1"})
    write_json(path / "em" / "attributes.json", group)
    write_n5(path / "em" / "s0")
    write_n5(path / "em" / "s1", None, coded() + np.uint16(1))
    assert_coded(path)
    for where in ({}, {"dataset": "0"}, {"dataset": "em"}, {"dataset": "em/s0"}):
        assert voxel_size(path, **where) == ((4, 5, 40), (0, 0, 0), "nanometer")
    expected = ((8, 10, 160), (2, 2.5, 60), "nanometer")
    assert voxel_size(path, dataset="1") == voxel_size(path / "em", dataset="s1") == expected
    assert voxel_size(path / "em" / "s1") == expected
    with VolumeSource(path, ReadOptions(dataset="1")) as source:
        assert source.read(0).min() == 1


def test_factors_of_a_level_itself(tmp_path):
    path = tmp_path / "v.n5"
    write_json(path / "attributes.json", {"pixelResolution": PIXELS})
    write_n5(path / "s0")
    write_n5(path / "s1", {"downsamplingFactors": [2, 2, 1]})
    assert voxel_size(path, dataset="1") == ((8, 10, 40), (2, 2.5, 0), "nanometer")


def test_groups_without_a_file(tmp_path):
    """N5 needs none; several volumes are listed, and a table is passed over."""
    write_n5(tmp_path / "v.n5" / "volumes" / "raw")
    write_n5(tmp_path / "v.n5" / "table", None, np.arange(4, dtype="uint16"), block=(2,))
    assert_coded(tmp_path / "v.n5")
    assert_coded(tmp_path / "v.n5" / "volumes")
    write_n5(tmp_path / "v.n5" / "volumes" / "labels")
    expect_refusal(tmp_path / "v.n5", "2 arrays", "--dataset: volumes/labels, volumes/raw")
    assert_coded(tmp_path / "v.n5", dataset="volumes/raw")


def test_channels_and_axes(tmp_path):
    """By the names, or by the option; numbers for the axes in space leave out the channels."""
    channels = np.stack([coded() + np.uint16(each) for each in range(3)])  # dimensions x, y, z, c
    attributes: dict[str, Any] = {"resolution": [4, 5, 40], "units": "nm"}
    path = write_n5(tmp_path / "v.n5", attributes, channels, block=(4, 3, 2, 1))
    expect_refusal(path, "4 axes without names", "7 x 6 x 5 x 3", "--axes XYZC")
    assert_coded(path, axes="XYZC", channel=0)
    edit(path / "attributes.json", axes=["x", "y", "z", "c"])
    expect_refusal(path, "3 channels", "--channel 0 to 2")
    assert voxel_size(path, channel=1)[0] == (4, 5, 40)
    with VolumeSource(path, ReadOptions(channel=2)) as source:
        assert source.read(0)[0, 0] == 2
    turned = write_n5(tmp_path / "t.n5", {"axes": ["z", "y", "x"], "resolution": [40, 5, 4]}, coded().transpose())
    assert_coded(turned)
    assert voxel_size(turned)[0] == (4, 5, 40)


def test_absent_chunks_are_counted(tmp_path, caplog):
    path = write_n5(tmp_path / "v.n5")
    (path / "0" / "1" / "2").unlink()
    shutil.rmtree(path / "1")
    truth = coded()
    truth[4:, 3:, :4] = truth[:, :, 4:] = 0
    with caplog.at_level(logging.WARNING), VolumeSource(path) as source:
        voxels = source.read_block(slice(0, 7), slice(0, 6), range(5))
    np.testing.assert_array_equal(voxels, truth.transpose(2, 1, 0))
    assert "7 of its 12 chunks are absent, and read as the fill value 0" in caplog.text


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-9],
        lambda content: content[:7],
        lambda _: b"",
        lambda content: content[:16] + b"\0" * (len(content) - 16),
        lambda content: b"\0\0\0\2" + content[4:],  # of another rank
        lambda content: content[:4] + b"\0\0\0\7" + content[8:],  # larger than a block
    ],
)
def test_damaged_chunk_is_named(tmp_path, damage):
    path = write_n5(tmp_path / "v.n5")
    file = path / "1" / "0" / "2"
    file.write_bytes(damage(file.read_bytes()))
    with VolumeSource(path) as source:
        source.read_block(slice(0, 7), slice(0, 6), [0, 1, 2, 3])  # beside it
        with pytest.raises(InputError) as error:
            source.read_block(slice(0, 7), slice(0, 6), [3, 4])
    assert_in_one_line(error, str(path), "chunk (1, 0, 2)", str(file), "copy it again")


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"compression": {"type": "lz4", "blockSize": 65536}}, "compressed with lz4, which is not read here"),
        ({"compression": {"type": "imaginary"}}, "compressed with imaginary"),
        ({"compression": None, "compressionType": "lz4"}, "compressed with lz4"),
        ({"compression": None}, "compressed with None"),
        ({"dataType": "decimal"}, "decimal"),
        ({"dataType": None}, "has no dataType"),
        ({"blockSize": None}, "has no blockSize"),
        ({"blockSize": [4, 3]}, "cannot be opened"),
        ({"blockSize": [4, 0, 2]}, "cannot be opened"),
        ({"dimensions": [7, 0, 5]}, "[7, 0, 5] have a size of 0"),
        ({"dimensions": "7,6,5"}, "are no list of sizes"),
        ({"dimensions": [7, 6], "blockSize": [4, 3]}, "single 2-D image"),
        ({"dimensions": [7, 6, 1]}, "1 slice"),
        ({"resolution": [4, -5, 40]}, "not positive (4 x -5 x 40 in resolution"),
        ({"transform": {**COSEM, "scale": [0, 5, 4]}}, "not positive (4 x 5 x 0 in transform"),
        ({"pixelResolution": {"dimensions": [4, 5, float("nan")]}}, "not positive (4 x 5 x nan in pixelResolution"),
    ],
)
def test_wrong_attributes(tmp_path, changes, words):
    path = write_n5(tmp_path / "v.n5")
    edit(path / "attributes.json", **changes)
    expect_refusal(path, str(path), words)


@pytest.mark.parametrize("content", [b'{"dimensions": [7,', b"", b"\xff\xfe", b"[1]"])
def test_broken_json(tmp_path, content):
    path = write_n5(tmp_path / "v.n5")
    (path / "attributes.json").write_bytes(content)
    expect_refusal(path, str(path / "attributes.json"), "JSON", "copy it again")


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: write_json(path / "attributes.json", {"n5": "2.0.0"})])
def test_container_without_an_array(tmp_path, make):
    make(tmp_path / "v.n5")
    expect_refusal(tmp_path / "v.n5", "holds no array of N5")


@pytest.mark.parametrize("dataset", ["none", "em/s9", "../v.n5/em/s0", "9"])
def test_dataset_that_does_not_exist(tmp_path, dataset):
    write_n5(tmp_path / "v.n5" / "em" / "s0")
    with pytest.raises(InputError) as error:
        VolumeSource(tmp_path / "v.n5", ReadOptions(dataset=dataset))
    assert_in_one_line(error, f"--dataset {dataset}: ", str(tmp_path / "v.n5"))
    with pytest.raises(InputError, match="leave it out"):
        VolumeSource(tmp_path / "v.n5" / "em" / "s0", ReadOptions(dataset=dataset))


@pytest.mark.parametrize(
    "attributes, words",
    [
        ({"transform": COSEM, "pixelResolution": {**PIXELS, "unit": "um"}}, ("transform says", "pixelResolution 4")),
        ({"transform": {**COSEM, "axes": ["z", "y"]}}, ("transform has the axes ['z', 'y']",)),
        ({"transform": {**COSEM, "axes": ["depth", "y", "x"]}}, ("transform is of the axes QYX",)),
        ({"pixelResolution": {"dimensions": [4, 5], "unit": "nm"}}, ("pixelResolution has 2 sizes for 3 axes",)),
        ({"pixelResolution": {"unit": "nm"}}, ("pixelResolution",)),
        ({"pixelResolution": [4, 5, 40]}, ("4 x 5 x 40 without a unit",)),
        ({"pixelResolution": {**PIXELS, "unit": "furlong"}}, ('"furlong"', "not known")),
        ({"pixelResolution": PIXELS, "downsamplingFactors": [2, 2]}, ("has 2 factors for 3 axes",)),
    ],
)
def test_doubtful_voxel_size_is_told(tmp_path, attributes, words, caplog):
    with caplog.at_level(logging.WARNING):
        voxel_size(write_n5(tmp_path / "v.n5", attributes))
    (message,) = caplog.messages
    assert all(word in message for word in ("--spacing", *words))


def test_level_and_group_that_disagree(tmp_path, caplog):
    write_json(tmp_path / "v.n5" / "attributes.json", {"pixelResolution": PIXELS, "scales": [[1, 1, 1], [2, 2, 2]]})
    write_n5(tmp_path / "v.n5" / "s0")
    write_n5(tmp_path / "v.n5" / "s1", {"pixelResolution": PIXELS})
    assert voxel_size(tmp_path / "v.n5", dataset="1")[0] == (4, 5, 40)
    assert "pixelResolution says 4 x 5 x 40" in caplog.text and "of the group 8 x 10 x 80" in caplog.text


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_container_that_may_not_be_read(tmp_path):
    path = write_n5(tmp_path / "v.n5")
    (path / "0" / "0" / "0").chmod(0)
    expect_refusal(path, "chunk (0, 0, 0)", "change its permissions")
    (path / "attributes.json").chmod(0)
    expect_refusal(path, "attributes.json: may not be read")


def test_shape_of_the_fixture():
    """No two sizes are alike, so that no order of the axes passes for another."""
    assert len(set(SHAPE)) == 3
